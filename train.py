"""Trains an image classifier and exports it as a SavedModel: see --help."""

import sys

from training import ray_workers
from training.cli import interruption
from training.cli.command_line import CommandLine, read, resumed
from training.cli.quiet import start_tensorflow
from training.errors import UserError


def main() -> int:
    """Runs one job.

    Returns:
        The exit status: 0, 1 for a submitted job that has not succeeded, 2 for a
        mistake of the user's, 128 + signal for an interruption (or, where the process
        did not come to its end within ten seconds, none: SIGALRM has killed it).
    """
    interruption.take_signals()
    try:
        options = read(sys.argv[1:])
        if options.submit is not None and options.resume is not None:
            raise UserError("`--submit` starts a new job; leave out `--resume`.")
        if options.submit is not None:
            # Here, so that no other job waits for what submitting imports.
            from training.cli.submit import submit

            return 0 if submit(options.submit, options.job()) else 1
        _train(options)
    except (Exception, KeyboardInterrupt) as error:
        if interruption.status() is None:
            if not isinstance(error, UserError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return 2
    finally:
        interruption.release_signals()
    return interruption.status() or 0


def _train(options: CommandLine) -> None:
    config = options.job()
    if options.resume is not None:
        config = resumed(options.resume, config)
    if options.ray is not None and options.workers is not None:
        ray_workers.train(config, options.resume, options.ray, options.workers)
        return
    # Here, so that --help and a wrong option answer without waiting for TensorFlow.
    interruption.release_signals()  # imports often drop what is raised in them
    start_tensorflow()
    from training import job

    interruption.take_signals()
    if options.resume is None:
        job.train(config)
    else:
        job.resume(options.resume, config)


if __name__ == "__main__":
    sys.exit(main())
