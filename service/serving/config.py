"""How models are served."""

import os
from dataclasses import dataclass
from pathlib import Path

from service.serving.batching import BatchingParameters


@dataclass(frozen=True)
class ServingConfig:
    """How models are served.

    Attributes:
        model_base_path: The directory that holds the models; none elsewhere is loaded.
        model_config_file: TensorFlow Serving's file of models, policies and labels.
            `None`: every sub-directory with a version, in its latest version.
        poll_interval: Seconds between two looks for versions.
        timeout: Seconds that a request may take.
        max_queue: Requests under way; more get status 429.
        max_body_bytes: A longer body gets status 413.
        max_pending_bytes: Bytes of all bodies under way; more get status 429.
        max_decoded_bytes: Bytes of memory for what all bodies become. Requests wait for
            them. One that may need more by itself gets status 413.
        threads: Requests that are worked on at the same time.
        batching: How to batch requests; `None`: not at all.
    """

    model_base_path: Path
    model_config_file: Path | None = None
    poll_interval: float = 1.0
    timeout: float = 30.0
    max_queue: int = 256
    max_body_bytes: int = 64 * 2**20
    max_pending_bytes: int = 512 * 2**20
    max_decoded_bytes: int = 2**30
    threads: int = 2 * len(os.sched_getaffinity(0))
    batching: BatchingParameters | None = None
