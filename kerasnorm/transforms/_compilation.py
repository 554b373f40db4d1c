"""How a model made anew is compiled like another: loss, metrics, optimizer, slots."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from kerasnorm._keras import (
    AVERAGES,
    compile_arguments,
    decays,
    slots,
    trained_variables,
    wrapped_function,
)
from kerasnorm.transforms._pairs import Weights, assign_copy

LONGEST_LIST = 5
"""So many variables a warning names."""


def copy_compilation(old: keras.Model, new: keras.Model, weights: Weights) -> str:
    """Compile a model as another one is, with a copy of the optimizer and its slots.

    Args:
        old: A compiled model.
        new: One made of its configuration.
        weights: The weights of both in pairs.

    Returns:
        What could not be carried over, or nothing.
    """
    arguments = compile_arguments(old)
    try:
        for kind in ("metrics", "weighted_metrics"):
            arguments[kind] = keras.tree.map_structure(_copied_metric, arguments[kind])
        optimizer = old.optimizer
        if optimizer is not None:
            optimizer = type(optimizer).from_config(optimizer.get_config())
        new.compile(**{**arguments, "optimizer": optimizer})
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        return (
            f"{new.name!r} is not compiled: its optimizer or a metric cannot be made "
            "again of its configuration, or it has a `compile` of its own. Received: "
            f"{reason}. Compile it yourself."
        )
    return "" if optimizer is None else _copy_optimizer(old, new, weights)


def _copied_metric(metric: Any) -> Any:
    if not isinstance(metric, keras.Metric):
        return metric
    if type(metric) is keras.metrics.MeanMetricWrapper:
        # Its configuration has the bytecode of a lambda, without its module's names.
        function, arguments = wrapped_function(metric)
        base = keras.Metric.get_config(metric)
        return keras.metrics.MeanMetricWrapper(function, **base, **arguments)
    return type(metric).from_config(metric.get_config())


def _copy_optimizer(old: keras.Model, new: keras.Model, weights: Weights) -> str:
    """Copy the state of the optimizer; return what does not fit."""
    theirs, ours = old.optimizer, new.optimizer
    for their_part, our_part in zip(_parts(theirs), _parts(ours), strict=False):
        our_part.exclude_from_weight_decay(
            [w for v, w in weights if not decays(their_part, v)]
        )
    if not theirs.built:
        return ""
    trained = {id(v): v.path for v in trained_variables(theirs)}
    origin = {id(w): id(v) for v, w in weights if id(v) in trained}
    trainable = {id(w) for w in new.trainable_variables}
    # In the model's order, by which `use_ema` pairs variables and averages.
    variables = [w for w in new.weights if id(w) in trainable | origin.keys()]
    kept = [origin.get(id(w)) for w in variables]
    gone = [path for key, path in trained.items() if key not in kept]
    if kept == list(trained):
        ours.build(variables)
        for slot, source in zip(ours.variables, theirs.variables, strict=True):
            assign_copy(slot, source)
    elif len(gone) < len(trained) and _are_told_apart(theirs):
        ours.build(variables)
        for their_part, our_part in zip(_parts(theirs), _parts(ours), strict=True):
            _copy_slots(their_part, our_part, origin)
    else:
        return (
            f"The optimizer of {old.name!r} begins anew. It was built for other "
            f"variables, {_listed(gone or trained.values())}."
        )
    added = [w.path for w in variables if id(w) not in origin and _takes_slots(w)]
    return _remark(old.name, gone, added)


def _remark(name: str, gone: list[str], added: list[str]) -> str:
    if not gone and not added:
        return ""
    remark = f"Not all slots of the optimizer of {name!r} are carried over."
    if gone:
        remark += f" Those of {_listed(gone)} are dropped, which the model lacks."
    if added:
        remark += f" Those of {_listed(added)} begin anew, which it was not built for."
    return remark


def _copy_slots(theirs: Any, ours: Any, origin: dict[int, int]) -> None:
    """Copy an optimizer's own variables, but for those of new variables.

    Args:
        theirs: The optimizer to copy from.
        ours: One of the same class and configuration, built.
        origin: The `id` of the variable that a slot was of, by the `id` of the new one.
    """
    sources = slots(theirs)
    variables = {id(w): w for w in trained_variables(ours)}
    for (attribute, key), slot in slots(ours).items():
        if key is None or key in origin:
            source = sources.get((attribute, None if key is None else origin[key]))
        else:
            # An average that begins at 0 would be taken for the variable's value.
            source = variables[key] if attribute == AVERAGES else None
        if source is not None:
            assign_copy(slot, source)


def _are_told_apart(optimizer: Any) -> bool:
    """Return whether it is known of which variable each slot is."""
    known = {id(slot) for part in _parts(optimizer) for slot in slots(part).values()}
    return known >= {id(slot) for slot in optimizer.variables}


def _parts(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer, and those that it scales or chooses from."""
    yield optimizer
    if hasattr(optimizer, "inner_optimizer"):
        yield from _parts(optimizer.inner_optimizer)
    for inner in getattr(optimizer, "optimizers", ()):
        yield from _parts(inner)


def _takes_slots(variable: keras.Variable) -> bool:
    """Return whether it is stepped; the scales of float8 are overwritten."""
    return not getattr(variable, "overwrite_with_gradient", False)


def _listed(paths: Iterable[str]) -> str:
    paths = list(paths)
    more = len(paths) - LONGEST_LIST
    text = ", ".join(map(repr, paths[:LONGEST_LIST]))
    return f"{text} and {more} more" if more > 0 else text
