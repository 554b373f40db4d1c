"""The repository's layout: what is packaged, which room may import which, the docs."""

import ast
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {
    "kerasnorm": set(),
    "models": {"kerasnorm"},
    "training": {"kerasnorm", "models"},
    "train.py": {"kerasnorm", "models", "training"},
    "service": {"kerasnorm", "models", "training"},
    "experiments": {"kerasnorm", "models", "training"},
    "benchmarks": {"kerasnorm", "models", "training"},
    "examples": {"kerasnorm", "models", "training"},
}
ROOMS = [name.removesuffix(".py") for name in BELOW]
FILES = sorted(
    path
    for room in BELOW
    for path in ([ROOT / room] if room == "train.py" else (ROOT / room).rglob("*.py"))
    if path.is_file()
)


def room_of(path):
    return path.relative_to(ROOT).parts[0]


def imported(path):
    """The top-level packages that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield room_of(path) if node.level else node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_dependencies_point_one_way(path):
    room = room_of(path)
    packages = set(imported(path))
    assert packages & set(ROOMS) <= BELOW[room] | {room}
    assert "tests" not in packages
    if room != "training":
        assert "tensorflow_datasets" not in packages


def part_of(module, room):
    """The part of a room, a file or a folder, that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == room else None


@pytest.mark.parametrize("room", ["kerasnorm", "training", "service", "experiments"])
def test_no_two_parts_of_a_room_import_each_other(room):
    graph = {}
    for path in (ROOT / room).rglob("*.py"):
        part = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            parts = {part_of(name, room) for name in names}
            known = {p for p in parts if p and (ROOT / room / p).is_dir()}
            known |= {p for p in parts if p and (ROOT / room / f"{p}.py").is_file()}
            if part != "__init__":
                graph.setdefault(part, set()).update(known - {part})
    assert sum(map(len, graph.values())) > 5
    list(graphlib.TopologicalSorter(graph).static_order())  # refuses a cycle


def test_what_makes_keeps_and_runs_jobs_knows_no_http():
    http = {"routes.py", "sweep_routes.py", "body.py", "files.py", "following.py"}
    for path in (ROOT / "service" / "jobs").glob("*.py"):
        knows = set(imported(path)) & {"fastapi", "starlette"}
        assert not knows or path.name in http, path


def test_every_room_with_code_is_known_to_the_import_test():
    with_code = {
        p.name for p in ROOT.iterdir() if p.is_dir() and list(p.glob("*.py"))
    } | {p.name for p in ROOT.glob("*.py")}
    assert with_code - {"tests", "conftest.py"} <= set(BELOW)


def test_the_librarys_tests_need_nothing_else_of_the_repository():
    """`make wheel` copies their folder and the oracle to where nothing else is."""
    for path in (ROOT / "tests" / "kerasnorm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("tests"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert all(
                    name.startswith(("tests.oracle", "tests.kerasnorm"))
                    for name in names
                )
        assert set(imported(path)) & set(ROOMS) <= {"kerasnorm"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tracked kinds of files."""
    copy = tmp_path_factory.mktemp("source") / "copy"
    names = [".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "datasets"]
    leave_out = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, copy, ignore=leave_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(copy)],
        check=True,
        capture_output=True,
    )
    (path,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_kerasnorm_whole_and_nothing_else(wheel):
    names = set(wheel.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kerasnorm").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert names - metadata == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_page_on_a_package_index_has_no_link_to_a_file(wheel):
    (metadata,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
    text = wheel.read(metadata).decode()
    assert "# kerasnorm" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert [t for t in targets if not t.startswith(("https://", "#"))] == []


def test_the_slurm_script_of_the_docs_makes_a_tf_config(tmp_path):
    """With stand-ins for SLURM's commands and for Python, which shows what it gets."""
    text = (ROOT / "docs" / "distributed.md").read_text()
    (script,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    programs = {
        "bin/scontrol": "test $3 = 'node[1-2]' && printf 'node1\\nnode2\\n'",
        "bin/srun": 'for i in 0 1; do SLURM_NODEID=$i "$@"; done',
        ".venv/bin/python": 'echo "$TF_CONFIG"; echo "$*" >&2',
    }
    for name, line in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "node[1-2]",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    cluster = {"worker": ["node1:12345", "node2:12345"]}
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
        for index in (0, 1)
    ]
    assert "train.py --distribute multiworker" in ended.stderr
