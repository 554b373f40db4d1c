"""Random and damaged bodies for every method.

`python -m tests.service.serving.fuzz_predict 100000` sends that many.

Every answer must be JSON with a status of 200 or 400. No request may hang, and memory
must not grow. A body that is answered is sent again with bytes after it. The server
reads that by other code, and the answer must be the same.
"""

import argparse
import base64
import collections
import datetime
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import pages
from tests.service.serving.served import ECHOED, Client, save_all, serve

TOKENS = [
    *(b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"{}", b"[]", b"[[]]"),
    *(b"1e999", b"-0", b"1.0", b"16777217", b"9223372036854775808", b"1e-400"),
    *(b"9" * 40, b"9" * 400, b"9" * 5000, b"0.1" + b"1" * 400),
    *(b"01", b"+1", b".5", b"1."),
    *(b'"', b'"\\ud800"', b'"\\u0000"', b'"\\x"', b"\xff", b"\x00", b"\xef\xbb\xbf"),
    *(b"[" * 2000, b'{"b64":' * 100, b'{"b64": "aGVsbG8="}', b'{"b64": "?"}'),
    *(b"[", b"]", b"{", b"}", b",", b":", b" ", b"/**/", b'"instances"', b'"inputs"'),
]
TYPES = [name for name in ECHOED if name not in ("float16", "uint16")]
KEYS = ["instances", "inputs", "signature_name", "examples", "context", "x", "b64"]


def scalar(draw: random.Random) -> Any:
    """Return a value of any type, an awkward one sometimes."""
    return draw.choice(
        [
            draw.randint(-5, 300),
            draw.uniform(-1, 1),
            10.0 ** draw.randint(-320, 308),
            draw.choice([-1, 1]) * 2 ** draw.randint(0, 70) + draw.randint(-1, 1),
            draw.choice([True, False, None, float("nan"), float("inf")]),
            "".join(chr(draw.randint(0, 0x3000)) for _ in range(draw.randint(0, 4))),
            {"b64": base64.b64encode(draw.randbytes(draw.randint(0, 5))).decode()},
            brackets(draw),
            {brackets(draw): draw.randint(-5, 300)},
        ]
    )


def brackets(draw: random.Random) -> str:
    """Return a string with the brackets and commas of lists."""
    return "".join(draw.choices("[],", k=draw.randint(0, 4)))


def nested(draw: random.Random, leaf: Callable[[], Any], shape: list[int]) -> Any:
    """Return nested lists of a shape."""
    if not shape:
        return leaf()
    return [nested(draw, leaf, shape[1:]) for _ in range(shape[0])]


def anything(draw: random.Random, depth: int = 4) -> Any:
    """Return any JSON value."""
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return scalar(draw)
    parts = [anything(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    return parts if kind < 0.75 else {draw.choice(KEYS): part for part in parts}


def tensor(draw: random.Random, dtype: str) -> Any:
    """Return nested lists, mostly regular and of the type."""
    leaves: dict[str, Callable[[], Any]] = {
        "float": lambda: draw.choice([draw.uniform(-9, 9), draw.randint(-9, 9)]),
        "string": lambda: draw.choice(["a", "ü", {"b64": "AAEC"}]),
        "bool": lambda: draw.random() < 0.5,
        "any": lambda: scalar(draw),
    }
    kind = draw.choice(["any", *[dtype.rstrip("0123456789")] * 5])
    leaf = leaves.get(kind, lambda: draw.randint(0, 100))
    shape = [draw.randint(1, 4) for _ in range(draw.randint(1, 4))]
    if draw.random() < 0.2:
        shape[draw.randrange(len(shape))] = 0
    value = nested(draw, leaf, shape)
    if draw.random() < 0.2 and value:
        value[draw.randrange(len(value))] = anything(draw, 2)
    return value


def document(draw: random.Random) -> tuple[str, Any]:
    """Return the path of a method, and a body that fits it or nearly does."""
    form = draw.choice(["instances", "inputs"])
    match draw.randint(0, 5):
        case 0 | 1 | 2:
            dtype = draw.choice(TYPES)
            body = {"signature_name": dtype, form: tensor(draw, dtype)}
            return "echo:predict", body
        case 3:
            rows = [
                {
                    "a": draw.randint(0, 9),
                    "b": draw.choice([[draw.randint(0, 9), scalar(draw)], "[,]"]),
                }
                for _ in range(draw.randint(0, 3))
            ]
            columns = {"a": [row["a"] for row in rows], "b": [row["b"] for row in rows]}
            return "pair:predict", {form: draw.choice([rows, columns])}
        case 4:
            method = draw.choice(["classify", "regress"])
            row = {"x": [draw.uniform(0, 1), 1.0], draw.choice("xn"): anything(draw, 2)}
            body = {"examples": [row], "signature_name": "regress"}
            if method == "classify":
                del body["signature_name"]
            return f"examples:{method}", body
        case _:
            return draw.choice(["text:predict", "half:predict"]), anything(draw)


def damaged(draw: random.Random, body: bytes) -> bytes:
    """Return a body with bytes changed, cut out, doubled or put in."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(body))
        end = min(len(body), start + draw.randint(0, 8))
        put_in = draw.choice(
            [b"", draw.choice(TOKENS), draw.randbytes(1), body[start:end] * 2]
        )
        body = body[:start] + put_in + body[end:]
    return body[: draw.randint(0, len(body))] if draw.random() < 0.1 else body


def check(client: Client, path: str, body: bytes) -> int:
    """Send a body, twice if it is answered, and return the status.

    Raises:
        AssertionError: If the answer is not allowed.
    """
    status, answer = client.send("POST", f"/v1/models/{path}", body)
    text = answer.decode("utf-8", "surrogateescape")
    assert status in (200, 400), (path, body, status, answer)
    assert "Traceback" not in text, (path, body, answer)
    keys = set(json.loads(text))
    assert len(keys) == 1, (path, body, answer)
    assert (keys == {"error"}) == (status == 400), (path, body, answer)
    if status == 200:
        again = client.send("POST", f"/v1/models/{path}", body + b" ]more")
        assert again == (status, answer), (path, body, answer, again)
    return status


def resident_bytes() -> int:
    """Return the memory of this process, in which the server runs too."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def fuzz(count: int, seed: int = 0) -> dict[str, Any]:
    """Send bodies to a server with all models.

    Args:
        count: The number of bodies.
        seed: The seed of the random numbers.

    Returns:
        The number of answers by status, the longest time, and the memory over time.

    Raises:
        AssertionError: If an answer is not allowed.
    """
    draw = random.Random(seed)
    statuses: collections.Counter[int] = collections.Counter()
    slowest = 0.0
    memory = []
    with tempfile.TemporaryDirectory() as directory:
        save_all(Path(directory))
        with serve(Path(directory)) as (client, _):
            for number in range(count):
                path, value = document(draw)
                body = json.dumps(value, ensure_ascii=draw.random() < 0.5).encode(
                    "utf-8", "surrogatepass"
                )
                if draw.random() < 0.6:
                    body = damaged(draw, body)
                start = time.monotonic()
                statuses[check(client, path, body)] += 1
                slowest = max(slowest, time.monotonic() - start)
                if number % (count // 10 or 1) == 0:
                    memory.append(resident_bytes() // 2**20)
    return {"statuses": dict(statuses), "slowest_s": slowest, "memory_mib": memory}


def describe(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    answered, refused = (result["statuses"][status] for status in (200, 400))
    memory = result["memory_mib"]
    return (
        f"{datetime.date.today()}: {answered + refused:,} bodies, {answered:,} of them "
        f"answered and {refused:,} refused with status 400; nothing else. The slowest "
        f"took {result['slowest_s']:.2f} s. Memory of the server's process over them, "
        f"MiB: {', '.join(map(str, memory))}."
    )


def main() -> None:
    """Fuzz, and print the result."""
    parser = argparse.ArgumentParser("python -m tests.service.serving.fuzz_predict")
    parser.add_argument("count", type=int, help="bodies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="put the figures there"
    )
    arguments = parser.parse_args()
    figures = describe(fuzz(arguments.count, arguments.seed))
    print(figures)
    if arguments.page is not None:
        pages.put(arguments.page, "tests.service.serving.fuzz_predict", figures)


if __name__ == "__main__":
    main()
