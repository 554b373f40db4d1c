"""JSON that is nested deeply, compared with Python's own parser."""

import json
import random
from typing import Any

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.deep_json import flattened


def nested(draw: random.Random, depth: int) -> Any:
    if depth == 0 or draw.random() < 0.2:
        return draw.choice([1, -0.5, "a]", '{"', None, True, float("inf"), [], {}, ""])
    parts = [nested(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    if draw.random() < 0.5:
        return parts
    return {draw.choice(["a", "]", '"']) + str(i): p for i, p in enumerate(parts)}


def cut(value: Any, depth: int) -> Any:
    """Return a value with 0 for each list and object below a depth."""
    if not isinstance(value, list | dict):
        return value
    if depth == 0:
        return 0
    if isinstance(value, list):
        return [cut(part, depth - 1) for part in value]
    return {name: cut(part, depth - 1) for name, part in value.items()}


def test_what_is_too_deep_is_a_number_and_the_rest_stays() -> None:
    draw = random.Random(0)
    for _ in range(500):
        value = {"x": nested(draw, 6)}
        depth = draw.randint(1, 7)
        text = json.dumps(value, indent=draw.choice([None, 1, "\t"]))
        flat = flattened(f"  {text} ]more", 2, depth)
        assert len(flat) == len(text) + 8
        assert flat.endswith(" ]more")
        document, _ = json.JSONDecoder().raw_decode(flat, 2)
        # An empty object has no brackets that contain anything.
        expected = json.dumps(cut(value, depth)).replace("{}", "0")
        assert json.dumps(document).replace("{}", "0") == expected


def test_what_is_not_json_is_refused_where_python_refuses_it() -> None:
    draw = random.Random(1)
    wrong = 0
    for _ in range(2000):
        text = json.dumps({"x": nested(draw, 5)})
        place = draw.randrange(1, len(text))
        text = text[:place] + draw.choice('[]{},:"1e x') + text[place + 1 :]
        try:
            json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            wrong += 1
            with pytest.raises(json.JSONDecodeError):
                flattened(text, 0, 3)
        else:
            flattened(text, 0, 3)
    assert 500 < wrong < 1900
