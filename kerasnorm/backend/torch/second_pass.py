"""Calls that PyTorch repeats for their gradient."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from kerasnorm.backend.generic import is_called_by


def is_second_pass() -> bool:
    """Return whether `torch.utils.checkpoint` calls its function again.

    It does so in a backward pass. To look at the callers takes long, and in a compiled
    function what is called again has the state of the first time.
    """
    return (
        not torch.compiler.is_compiling()
        # PyTorch has no public way to ask; its checkpoints ask so too.
        and torch._C._current_graph_task_id() != -1  # noqa: SLF001
        and is_called_by(
            {
                ("torch.utils.checkpoint", "recompute_fn"),
                ("torch.utils.checkpoint", "backward"),
            }
        )
    )


def remat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is computed again for its gradient."""
    return functools.partial(checkpoint, function, use_reentrant=False)
