"""One version: damaged files, and links that lead out of the base directory."""

import json
import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.serving.versions import State, Version
from tests.service.serving.served import factor, publish, serve, until


def test_damaged_files_are_reported_and_end_nothing(
    tmp_path: Path, scales: Path
) -> None:
    draw = random.Random(0)
    states = set()
    for number in range(1, 41):
        directory = tmp_path / "m" / str(number)
        shutil.copytree(scales / "2", directory)
        path = draw.choice([p for p in sorted(directory.rglob("*")) if p.is_file()])
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        match draw.choice(["cut off", "flip a bit", "put in"]):
            case "cut off":
                del content[place:]
            case "flip a bit":
                content[place] ^= 1 << draw.randrange(8)
            case "put in":
                content[place:place] = draw.randbytes(8)
        path.write_bytes(content)
        version = Version("m", number, directory)
        version.load(tmp_path)
        states.add(version.state)
        if version.state is State.END:
            assert version.error is not None
            assert version.error.message
            assert "Traceback" not in version.error.message
        version.unload()
    assert states == {State.AVAILABLE, State.END}


@pytest.mark.parametrize("where", ["version", "model", "file", "variables"])
def test_links_that_lead_out_are_refused(
    tmp_path: Path, scales: Path, where: str
) -> None:
    base = tmp_path / "base"
    version = base / "m" / "1"
    version.parent.mkdir(parents=True)
    match where:
        case "version":
            version.symlink_to(scales / "1")
        case "model":
            version.parent.rmdir()
            version.parent.symlink_to(scales)
        case _:
            shutil.copytree(scales / "1", version)
            name = {"file": "saved_model.pb", "variables": "variables"}[where]
            (version / name).rename(tmp_path / name)
            (version / name).symlink_to(tmp_path / name)
    with serve(base) as (client, _):
        until(lambda: set(client.status("m").values()) == {"END"})
        _, answer = client.send("GET", "/v1/models/m")
        error = json.loads(answer)["model_version_status"][0]["status"]
        assert error["error_code"] == "PERMISSION_DENIED"
        assert "leads out of the model base path" in error["error_message"]


def test_links_within_the_base_are_followed(tmp_path: Path, scales: Path) -> None:
    publish(scales / "1", tmp_path / "m" / "1")
    (tmp_path / "alias").symlink_to("m")
    with serve(tmp_path) as (client, _):
        assert factor(client, "alias") == 1
