"""Steps on the JAX backend, and those of Flax NNX or of plain JAX."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.steps.cases import (
    EPSILON,
    MOMENTUM,
    RATE,
    Case,
    arrays,
    make_layer,
)
from benchmarks.timing import Step

HAS_GRAPHS = False
DEVICE = jax.default_backend()


def layer_step(case: Case, library: str) -> Step:
    """Make the compiled step of our layer or of Keras's."""
    layer = make_layer(case, library)
    layer.build(case.shape)

    def call(weights: list[Any], state: list[Any], x: Any) -> tuple[Any, list[Any]]:
        y, state = layer.stateless_call(weights, state, x, training=case.training)
        return y, state

    return _step(
        case,
        call,
        [variable.value for variable in layer.trainable_variables],
        [variable.value for variable in layer.non_trainable_variables],
    )


def native_steps(case: Case) -> dict[str, Step]:
    """Make the step that a user of JAX writes: with Flax NNX, if it is installed."""
    if case.layer not in ("batch_norm", "dropout"):
        return {}
    if importlib.util.find_spec("flax") is not None:
        return {"flax": _flax_step(case)}
    if case.layer == "dropout":
        return {"jnp": _step(case, _plain_dropout, [], [jax.random.key(0)])}
    features = case.shape[case.axis]
    ones, zeros = jnp.ones(features), jnp.zeros(features)
    call = _plain_batch_norm(case)
    return {"jnp": _step(case, call, [ones, zeros], [zeros, ones])}


def copy_step(case: Case) -> Step:
    """Make a step that reads and writes as many bytes as the input has."""
    x = jnp.asarray(arrays(case)[0], case.dtype)
    add = jax.jit(lambda x: x + 1)
    return lambda: jax.block_until_ready(add(x))


def _step(
    case: Case, call: Callable[..., Any], weights: list[Any], state: list[Any]
) -> Step:
    x, dy = (jnp.asarray(values, case.dtype) for values in arrays(case))

    @jax.jit
    def train(weights: list[Any], state: list[Any], x: Any, dy: Any) -> list[Any]:
        def forward(weights: list[Any], x: Any) -> Any:
            return call(weights, state, x)

        y, pull_back, new = jax.vjp(forward, weights, x, has_aux=True)
        dweights, dx = pull_back(dy)
        return [y, dx, *dweights, *new]

    @jax.jit
    def infer(weights: list[Any], state: list[Any], x: Any, dy: Any) -> list[Any]:
        return [call(weights, state, x)[0]]

    step = train if case.training else infer
    return lambda: jax.block_until_ready(step(weights, state, x, dy))


def _plain_dropout(weights: list[Any], state: list[Any], x: Any) -> tuple[Any, Any]:
    key, new = jax.random.split(state[0])
    keep = jax.random.bernoulli(key, 1 - RATE, x.shape)
    return jnp.where(keep, x / (1 - RATE), 0).astype(x.dtype), [new]


def _plain_batch_norm(case: Case) -> Callable[..., tuple[Any, list[Any]]]:
    axis = case.axis % len(case.shape)
    axes = tuple(a for a in range(len(case.shape)) if a != axis)

    def call(weights: list[Any], state: list[Any], x: Any) -> tuple[Any, list[Any]]:
        gamma, beta = weights
        wide = x.astype("float32")
        if case.training:
            mean = jnp.mean(wide, axes)
            variance = jnp.mean(jnp.square(wide), axes) - jnp.square(mean)
        else:
            mean, variance = state
        factor = gamma * jax.lax.rsqrt(variance + EPSILON)
        mean_, factor_, beta_ = (jnp.expand_dims(v, axes) for v in (mean, factor, beta))
        y = ((wide - mean_) * factor_ + beta_).astype(x.dtype)
        new = [
            MOMENTUM * old + (1 - MOMENTUM) * value
            for old, value in zip(state, (mean, variance), strict=True)
        ]
        return y, new

    return call


def _flax_step(case: Case) -> Step:
    from flax import nnx

    if case.layer == "dropout":
        layer = nnx.Dropout(RATE, rngs=nnx.Rngs(0), deterministic=not case.training)
    else:
        layer = nnx.BatchNorm(
            case.shape[case.axis],
            axis=case.axis,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            use_running_average=not case.training,
            dtype=jnp.dtype(case.dtype),
            rngs=nnx.Rngs(0),
        )
    graph, weights, rest = nnx.split(layer, nnx.Param, ...)

    def call(weights: list[Any], state: list[Any], x: Any) -> tuple[Any, list[Any]]:
        # Copies: Flax lets no inner trace change the variables of an outer one.
        merged = nnx.merge(graph, *weights, *state, copy=True)
        y = merged(x)
        return y, [nnx.split(merged, nnx.Param, ...)[2]]

    return _step(case, call, [weights], [rest])
