"""Trainers on a Ray cluster. Its machines share the service's directories."""

import contextlib
import shlex
import signal
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from service.jobs.trainers import NOTHING, End, command
from training.errors import UserError
from training.run.atomic import write_atomically
from training.run.claim import is_claimed
from training.run.files import LOG

_SUBMISSION = ".ray"  # the file with the number of the Ray job
_CPUS = 1


class RayTrainers:
    """Trainers as Ray jobs. Ray places them on a machine that has a processor free.

    Args:
        address: The cluster's dashboard, as `http://127.0.0.1:8265`.

    Raises:
        UserError: If no cluster answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                "`--ray-address` must be the address of a Ray cluster's dashboard. "
                f"Received: {address}, where none answers."
            ) from error

    def start(
        self, directory: Path, gpus: int = 0, variables: Mapping[str, str] = NOTHING
    ) -> None:
        """Submit a Ray job that adds its output to log.txt.

        Ray chooses the GPUs, and sets CUDA_VISIBLE_DEVICES.
        """
        if self.end(directory) is None:  # submitted, though no answer came
            return
        submission = f"kerasnorm-{uuid.uuid4().hex}"
        # Written first: a service that is killed here leaves a job that can be found.
        write_atomically(directory / _SUBMISSION, submission)
        log = shlex.quote(str(directory / LOG))
        with _as_os_error():
            self._client.submit_job(
                submission_id=submission,
                entrypoint=f"exec {shlex.join(command(directory))} >> {log} 2>&1",
                entrypoint_num_cpus=_CPUS,
                entrypoint_num_gpus=gpus,
            )

    def end(self, directory: Path) -> End | None:
        """Ask the cluster about the job.

        None also while a trainer lives on a node that the cluster has lost.
        """
        submission = _submission(directory)
        if is_claimed(directory):
            return None
        if submission is None:
            return End(None)
        try:
            with _as_os_error():
                job = self._client.get_job_info(submission)
        except FileNotFoundError:  # never submitted, or to another cluster
            return End(None)
        if not job.status.is_terminal():
            return None
        if job.status is JobStatus.STOPPED:
            return End(128 + signal.SIGTERM)
        return End(job.driver_exit_code)

    def stop(self, directory: Path) -> None:
        """Ask Ray to stop the job: it sends SIGTERM, and later SIGKILL."""
        submission = _submission(directory)
        if submission is not None:
            with _as_os_error():
                self._client.stop_job(submission)

    def kill(self, directory: Path) -> None:
        """Stop the job and forget it: nobody has told it to be interrupted."""
        self.stop(directory)
        (directory / _SUBMISSION).unlink(missing_ok=True)


def _submission(directory: Path) -> str | None:
    try:
        return (directory / _SUBMISSION).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise Ray's errors as OSError: the runner then tries again."""
    try:
        yield
    except RuntimeError as error:
        if "does not exist" in str(error):
            raise FileNotFoundError(str(error)) from error
        raise OSError(f"Ray: {error}") from error
