"""What the main process does with others that hang."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("simdjson", reason="pip install --group serve")

from service.options import ServiceOptions
from service.processes import leading
from service.processes.leading import Crew
from service.processes.messages import Orders
from service.serving.config import ServingConfig
from service.serving.model_config import ModelConfig
from service.serving.versions import State
from tests.service.services import wait_until

# A process that does what it is told without a model, and so starts at once.
MEMBER = """
import sys
from multiprocessing.connection import Connection
from service.processes.messages import Report
control = Connection(int(sys.argv[1]))
control.recv()
while True:
    control.send(Report("running"))
    if control.poll(0.2):
        for told in control.recv().versions:
            what = "loaded" if told.is_wanted else "closed"
            control.send(Report(what, told.key))
        control.send(Report("answering"))
"""


def test_one_that_hangs_is_replaced_and_stops_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "uvicorn.error")
    monkeypatch.setattr(leading, "_COMMAND", (sys.executable, "-c", MEMBER))
    monkeypatch.setattr(leading, "_SECONDS_OF_SILENCE", 10)
    crew = Crew(tmp_path, 1)
    crew.start(Orders(ServiceOptions.read([]), ServingConfig(tmp_path), tmp_path))
    try:
        first = crew.version("m", 1, tmp_path)
        crew.tell({}, [first])
        crew.wait_for(first)
        first.state = State.AVAILABLE
        other = psutil.Process(crew._members[0].process.pid)
        os.kill(other.pid, signal.SIGSTOP)
        second = crew.version("m", 2, tmp_path)
        labels = {str(n): n for n in range(100_000)}  # more than it can leave unread
        crew.tell({"m": ModelConfig("m", tmp_path, labels=labels)}, [first, second])
        crew.wait_for(second)
        assert not other.is_running()
        wait_until(lambda: crew.is_answering)
        first.unload()
        assert first.state is State.UNLOADING  # the one that has come has it too
        crew.tell({}, [first, second])
        wait_until(lambda: first.state is State.END)
    finally:
        crew.end()
    line = "A serving process has said nothing for 10 s (status -9). Another starts."
    assert caplog.messages[0] == line
