"""Trainers on a Ray cluster whose machines share the service's directories."""

import shlex
import uuid
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from service.runs import LOG
from service.trainers import End, command
from training.claim import holder
from training.errors import UserError
from training.files import write_atomically

_SUBMISSION = ".ray"  # the file with the number of the Ray job
_CPUS = 1


class RayTrainers:
    """Trainers as Ray jobs. Ray places them on a machine that has a processor free.

    Args:
        address: Of the cluster's dashboard, as `http://127.0.0.1:8265`.

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

    def start(self, directory: Path) -> None:
        """Submits a Ray job whose output is added to log.txt."""
        submission = f"kerasnorm-{uuid.uuid4().hex}"
        # Before it is submitted, so that a service that is killed here can find it.
        write_atomically(directory / _SUBMISSION, submission)
        log = shlex.quote(str(directory / LOG))
        try:
            self._client.submit_job(
                submission_id=submission,
                entrypoint=f"exec {shlex.join(command(directory))} >> {log} 2>&1",
                entrypoint_num_cpus=_CPUS,
            )
        except RuntimeError as error:
            raise OSError(f"Ray does not take the job: {error}") from error

    def end(self, directory: Path) -> End | None:
        """Asks the cluster for the job; None also while a lost node's trainer lives."""
        path = directory / _SUBMISSION
        if holder(directory) is not None:
            return None
        if not path.exists():
            return End(None)
        try:
            job = self._client.get_job_info(path.read_text(encoding="utf-8"))
        except RuntimeError:  # another cluster answers now, which does not know it
            return End(None)
        if not job.status.is_terminal():
            return None
        if job.status is JobStatus.FAILED:
            return End(job.driver_exit_code)
        return End(0)

    def stop(self, directory: Path) -> None:
        """Ray sends SIGTERM, and SIGKILL after a while."""
        path = directory / _SUBMISSION
        if path.exists():
            self._client.stop_job(path.read_text(encoding="utf-8"))
