"""What PyTorch's kernels can be called with."""

import torch

from kerasnorm.functional import Tensor


def is_plain(x: Tensor) -> bool:
    """Return whether `x` has values now, in the memory of a CPU or of a CUDA device.

    It has none for a compiler or an export, and where only shapes are inferred. In the
    transforms of `torch.func` nothing may depend on the values, and tangents go with
    them.
    """
    return (
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type in ("cpu", "cuda")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        # PyTorch has no public way to ask; its autograd.Function asks so too.
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001
        and torch.autograd.forward_ad._current_level < 0  # noqa: SLF001
    )
