"""Train an image classifier and export it as a SavedModel: see --help."""

import contextlib
import sys

from training import ray_workers
from training.cli import interruption
from training.cli.command_line import CommandLine, read, resumed
from training.cli.quiet import importing, start_tensorflow
from training.errors import UserError
from training.run.heartbeat import beating


def main() -> int:
    """Run one job.

    Returns:
        The exit status: 0 for success, 1 for a submitted job that has not succeeded,
        2 for a mistake of the user, 128 + signal for an interruption. There is no
        status if the process does not end within ten seconds after the signal: then
        SIGALRM kills it.
    """
    interruption.take_signals()
    try:
        options = read(sys.argv[1:])
        if options.submit is not None and options.resume is not None:
            raise UserError("`--submit` starts a new job; leave out `--resume`.")
        if options.submit is not None:
            # Imported here, so that other jobs need not wait for it.
            from training.cli.submit import submit

            return 0 if submit(options.submit, options.job()) else 1
        run_job(options)
    except (Exception, KeyboardInterrupt) as error:
        if interruption.status() is None:
            if not isinstance(error, UserError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return 2
    finally:
        interruption.release_signals()
    return interruption.status() or 0


def run_job(options: CommandLine) -> None:
    """Train here or on a Ray cluster, as the options say."""
    config = options.job()
    if options.resume is not None:
        config = resumed(options.resume, config)
    if options.ray is not None and options.workers is not None:
        ray_workers.train(config, options.resume, options.ray, options.workers)
        return
    with beating(options.resume) if options.resume else contextlib.nullcontext():
        # Imported here, so that --help and a wrong option need not wait for TensorFlow.
        interruption.release_signals()  # some imports drop a KeyboardInterrupt
        start_tensorflow()
        with importing():
            from training import job

        interruption.take_signals()
        if options.resume is None:
            job.train(config)
        else:
            job.resume(options.resume, config)


if __name__ == "__main__":
    sys.exit(main())
