"""Checks of arguments. A message has the argument, its domain, the value, advice."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule


def message(argument: str, domain: str, received: Any, advice: str = "") -> str:
    """Compose the message of every refused argument, in one line."""
    text = f"`{argument}` must be {domain}. Received: {argument}={_shown(received)}."
    return f"{text} {advice}" if advice else text


LONGEST_VALUE = 120
"""So many characters of a received value a message shows."""


def wrong_type(
    argument: str, domain: str, received: Any, advice: str = ""
) -> TypeError:
    """Return the error of an argument of a wrong type, which it names."""
    # Keras makes lists and the like of its own of what a layer's attributes are given.
    plain = (kind for kind in (list, dict, set) if isinstance(received, kind))
    name = next(plain, type(received)).__name__
    advice = f"Its type is {name}. {advice}".rstrip()
    return TypeError(message(argument, domain, received, advice))


def check_real(
    argument: str,
    value: Any,
    domain: str,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    advice: str = "",
) -> float:
    """Return `value` as a float; refuse what is no number in the closed range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(argument, domain, value, advice)
    number = float(value)
    if not minimum <= number <= maximum:
        raise ValueError(message(argument, domain, number, advice))
    return number


def check_rate(rate: Any, below_one: bool = False) -> float | LearningRateSchedule:
    """Return the fraction dropped as a float, or the schedule that gives it."""
    if isinstance(rate, LearningRateSchedule):
        return rate
    interval = "[0, 1)" if below_one else "[0, 1]"
    return check_real(
        "rate",
        rate,
        f"a float in {interval} or a `keras.optimizers.schedules.LearningRateSchedule`",
        minimum=0.0,
        maximum=math.nextafter(1.0, 0.0) if below_one else 1.0,
        advice="`rate` is the fraction dropped, not kept.",
    )


def check_seed(seed: Any) -> int | None:
    """Return the seed, an integer or `None`."""
    if seed is None:
        return None
    if not _is_integer(seed):
        raise wrong_type("seed", "an integer or None", seed)
    return int(seed)


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of the strings `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(message(argument, f"one of {choices}", value))
    return str(value)


def check_axis(axis: Any) -> int | tuple[int, ...]:
    """Return the axis as an integer, or several as a tuple without repetition."""
    axes = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    if not axes or not all(_is_integer(a) for a in axes):
        raise wrong_type("axis", "an integer or a tuple of integers", axis)
    if len(set(axes)) != len(axes):
        raise ValueError(message("axis", "a tuple of different integers", axis))
    axes = tuple(int(a) for a in axes)
    return axes if isinstance(axis, (list, tuple)) else axes[0]


def check_noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    """Return the shape of the noise as a tuple of positive integers and `None`s."""
    if noise_shape is None:
        return None
    domain = "a tuple of positive integers or None"
    if isinstance(noise_shape, str) or not isinstance(noise_shape, Iterable):
        raise wrong_type("noise_shape", domain, noise_shape)
    shape = tuple(noise_shape)
    for size in shape:
        if size is not None and not (_is_integer(size) and size > 0):
            raise ValueError(message("noise_shape", domain, noise_shape))
    return tuple(size if size is None else int(size) for size in shape)


def check_noise_shape_fits(
    noise_shape: tuple[int | None, ...], shape: Iterable[int | None]
) -> None:
    """Refuse a noise shape that does not broadcast to inputs of `shape`."""
    shape = tuple(shape)
    if not broadcasts(noise_shape, shape):
        domain = f"broadcastable to the inputs' shape {shape}"
        raise ValueError(message("noise_shape", domain, noise_shape))


def check_boolean(argument: str, value: Any) -> bool:
    """Return `True` or `False`; refuse what only counts as one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong_type(argument, "True or False", value)
    return bool(value)


def check_training(training: Any) -> Any:
    """Return `training`: a boolean, `None`, or a tensor that holds a boolean.

    0 and 1 count as booleans, as in Keras.
    """
    domain = "a boolean, a boolean tensor of shape () or None"
    if not keras.ops.is_tensor(training):
        if training is None:
            return None
        if not isinstance(training, (bool, np.bool_, Integral)):
            raise wrong_type("training", domain, training)
        if training not in (0, 1):
            raise ValueError(message("training", domain, training))
        return bool(training)
    dtype = keras.backend.standardize_dtype(training.dtype)
    if dtype != "bool" and "int" not in dtype:
        raise TypeError(message("training", domain, f"a tensor of {dtype}"))
    if tuple(training.shape) != ():
        shape = tuple(training.shape)
        raise ValueError(message("training", domain, f"a tensor of shape {shape}"))
    return training


def check_mask(mask: Any) -> Any:
    """Return the mask as a boolean tensor; refuse other values than 0 and 1.

    What is being traced has no values yet: there whatever is not 0 counts as `True`.
    """
    mask = keras.ops.convert_to_tensor(mask)
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return mask
    values = known_values(mask)
    if values is not None and not np.isin(values, (0, 1)).all():
        wrong = values[~np.isin(values, (0, 1))].flat[0]
        raise ValueError(
            message(
                "mask",
                "a tensor of booleans, or of 0 and 1",
                wrong.item(),
                "It says which samples count, it does not weigh them.",
            )
        )
    return keras.ops.cast(mask, "bool")


def known_values(tensor: Any) -> np.ndarray | None:
    """Return the values of a tensor, or `None` if it is being traced."""
    try:
        values: np.ndarray = keras.ops.convert_to_numpy(tensor)
    except Exception:  # each backend has one of its own
        return None
    return values


def is_sparse(tensor: Any) -> bool:
    """Return whether a tensor is sparse: a `tf.SparseTensor` or JAX's `BCOO`."""
    symbolic = isinstance(tensor, keras.KerasTensor) and bool(tensor.sparse)
    return symbolic or type(tensor).__name__ in ("SparseTensor", "BCOO")


def check_rank_is_known(inputs: Any, what_for: str) -> None:
    """Refuse inputs whose number of axes is not known; `what_for` needs it."""
    if getattr(inputs.shape, "rank", 0) is None:
        raise ValueError(
            message(
                "inputs",
                f"of known rank {what_for}",
                "a tensor of unknown rank",
                "Tell it with tf.ensure_shape.",
            )
        )


def check_fraction(argument: str, value: Any) -> float:
    """Return a float in [0, 1]."""
    return check_real(argument, value, "a float in [0, 1]", minimum=0.0, maximum=1.0)


def check_positive_integer(argument: str, value: Any) -> int:
    """Return an integer of at least 1."""
    domain = "a positive integer"
    if not _is_integer(value):
        raise wrong_type(argument, domain, value)
    if value < 1:
        raise ValueError(message(argument, domain, value))
    return int(value)


def check_synchronized(synchronized: Any) -> bool:
    """Return whether replicas normalize together; refuse it but on TensorFlow."""
    together = check_boolean("synchronized", synchronized)
    if together and keras.backend.backend() != "tensorflow":
        raise ValueError(
            message(
                "synchronized",
                f"False on the {keras.backend.backend()} backend",
                synchronized,
                "Replicas are those of tf.distribute.",
            )
        )
    return together


def check_renorm_clipping(
    clipping: Any, renorm: bool
) -> dict[str, float | LearningRateSchedule]:
    """Return the bounds of r and d that are given; refuse them without `renorm`."""
    bounds = ("rmax", "rmin", "dmax")
    domain = f"a dictionary with keys among {bounds}"
    if clipping is None:
        return {}
    if not isinstance(clipping, dict):
        raise wrong_type("renorm_clipping", domain, clipping)
    if clipping and not renorm:
        raise ValueError(
            message("renorm_clipping", "None without `renorm=True`", clipping)
        )
    if set(clipping) - set(bounds):
        raise ValueError(message("renorm_clipping", domain, clipping))
    checked = {
        bound: value
        if isinstance(value, LearningRateSchedule)
        else check_real(
            f"renorm_clipping['{bound}']",
            value,
            "a float not below 0 or a schedule",
            minimum=0.0,
        )
        for bound, value in clipping.items()
        if value is not None
    }
    rmin, rmax = checked.get("rmin"), checked.get("rmax")
    if isinstance(rmin, float) and isinstance(rmax, float) and rmin > rmax:
        raise ValueError(message("renorm_clipping", "rmin <= rmax", clipping))
    return checked


def check_axes_fit(
    axis: int | tuple[int, ...], shape: tuple[int | None, ...]
) -> tuple[int, ...]:
    """Return the axes, counted from 0 and ascending, of inputs of `shape`."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    rank = len(shape)
    inputs = f"inputs of shape {tuple(shape)}"
    if not all(-rank <= a < rank for a in axes):
        domain = f"between {-rank} and {rank - 1} for {inputs}"
        raise ValueError(message("axis", domain, axis))
    counted = tuple(sorted(a % rank for a in axes))
    if len(set(counted)) != len(counted):
        raise ValueError(message("axis", f"different axes of {inputs}", axis))
    if any(shape[a] is None for a in counted):
        domain = f"of known size in {inputs}"
        raise ValueError(message("axis", domain, axis, "Give the input a shape."))
    return counted


def check_dtype(inputs: Any, kinds: tuple[str, ...]) -> None:
    """Refuse inputs of a dtype that is of none of `kinds`: `"float"`, `"int"`."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if not any(kind in dtype for kind in kinds):
        raise TypeError(message("inputs", f"of a {' or '.join(kinds)} dtype", dtype))


def broadcasts(shape: Iterable[int | None], to: Iterable[int | None]) -> bool:
    """Return whether a tensor of `shape` broadcasts to `to`; `None` is any size."""
    shape, to = tuple(shape), tuple(to)
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(
        size in (None, 1) or expected in (None, size) for size, expected in sizes
    )


def _shown(value: Any) -> str:
    """Return a value as code, in one line; of an array its type and shape."""
    text = repr(value)
    if len(text) <= LONGEST_VALUE and "\n" not in text:
        return text
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    return " ".join(text.split())[:LONGEST_VALUE] + "..."


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
