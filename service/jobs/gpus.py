"""The GPUs that jobs are given, each of them to one job at a time."""

import itertools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from service.jobs.rows import Job
from service.jobs.submission import refusal
from service.log import log_refusal
from training.errors import UserError

_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_NONE = "-1"  # is visible
_LIST = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
_SECONDS = 30  # that nvidia-smi may take to wake the GPUs


@dataclass(frozen=True)
class Gpus:
    """The GPUs that jobs may have.

    Attributes:
        names: What CUDA_VISIBLE_DEVICES calls them. None: there are none to give, and
            trainers see what the service sees.
        are_elsewhere: Whether whoever places the trainers counts the GPUs, as Ray does.
    """

    names: tuple[str, ...] | None = None
    are_elsewhere: bool = False

    @property
    def most(self) -> int | None:
        """Return how many a job can have; None if that is not known here."""
        return None if self.are_elsewhere else len(self.names or ())

    def number(self, asked: int | None) -> int:
        """Return how many a job gets: if it does not say, one where there are any."""
        return min(1, len(self.names or ())) if asked is None else asked

    def complaint(self, asked: int | None) -> str:
        """Return why no job can have so many, in one line, or nothing."""
        if self.most is None or self.number(asked) <= self.most:
            return ""
        most = (
            f"at most {self.most}, the number of GPUs that --devices gives to jobs"
            if self.most
            else "0, since this service has no GPUs for jobs (--devices)"
        )
        return f"`gpus` must be {most}. Received: {asked}."

    def check(self, asked: int | None) -> None:
        """Refuse a job that asks for more than there are.

        Raises:
            SubmissionError: If it does.
        """
        if said := self.complaint(asked):
            log_refusal(f"A job is refused: {said}")
            raise refusal(said, "gpus")

    def choose(self, job: Job, running: Iterable[Job]) -> tuple[str, ...] | None:
        """Return GPUs for a job that no other has, or None while too few are free.

        Args:
            job: One that does not run, or whose trainer has died. It keeps its own.
            running: The jobs that have GPUs.
        """
        if self.are_elsewhere:
            return ()
        taken = {gpu for each in running if each.id != job.id for gpu in each.devices}
        free = [gpu for gpu in self.names or () if gpu not in taken]
        free.sort(key=lambda gpu: gpu not in job.devices)  # the others keep their order
        number = self.number(job.gpus)
        return tuple(free[:number]) if number <= len(free) else None

    def variables(self, chosen: tuple[str, ...]) -> dict[str, str]:
        """Return what the environment of a trainer says of its GPUs."""
        if self.names is None:
            return {}
        if not chosen:
            return {_VISIBLE: _NONE}
        return {
            _VISIBLE: ",".join(chosen),
            _ORDER: os.environ.get(_ORDER, "PCI_BUS_ID"),  # that of nvidia-smi
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }


def gpus_of(devices: str) -> Gpus:
    """Return the GPUs of a value of `--devices`: auto, cpu or 0,1,2,3.

    Raises:
        UserError: If it names one that nvidia-smi does not know.
    """
    if devices == "cpu":
        return Gpus(())
    found = _known_to_nvidia_smi()
    if devices == "auto":
        return Gpus(_visible(found) or None)
    given = tuple(devices.split(","))
    if found and not set(given) <= set(found):
        raise UserError(
            "`--devices` must be GPUs of this machine, which has "
            f"{','.join(found)}. Received: {devices}."
        )
    return Gpus(given)


def _visible(found: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the machine's GPUs that the service's own environment leaves."""
    variable = os.environ.get(_VISIBLE)
    if variable is None or not found:
        return found
    names = (name.strip() for name in variable.split(","))
    # CUDA, too, stops at the first number that is none. A UUID is believed.
    return tuple(
        itertools.takewhile(lambda n: n in found or n[:4] in ("GPU-", "MIG-"), names)
    )


def _known_to_nvidia_smi() -> tuple[str, ...]:
    """Return the numbers of this machine's GPUs, none where there is no nvidia-smi."""
    try:
        listed = subprocess.run(
            _LIST, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines())
