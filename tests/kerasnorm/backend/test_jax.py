"""What `kerasnorm.backend.jax` does otherwise than `kerasnorm.functional`."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("These are JAX's functions.", allow_module_level=True)

import jax
import jax.numpy as jnp

from kerasnorm import functional
from kerasnorm.backend import jax as backend
from tests import oracle

pytestmark = pytest.mark.any_backend
EPSILON = 0.01


def draw(shape, axes, location):
    """Return x, dy, which depends on it, gamma and beta, all float32."""
    rng = np.random.default_rng(5)
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    noise = rng.standard_normal(shape, dtype="float32")
    dy = rng.standard_normal(shape, dtype="float32") + 0.5 * noise + 0.5
    gamma, beta = rng.uniform(0.5, 2, (2, *kept)).astype("float32")
    return noise + np.float32(location), dy, gamma, beta


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("location", [0.0, 3.0, 1e4])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((300_000, 2), (0,)), ((16, 3, 100, 100), (0, 2, 3)), ((50, 4, 5), (0,))],
)
def test_results_are_right_to_1e_5(shape, axes, location, jit):
    x, dy, gamma, beta = draw(shape, axes, location)

    def compute(x, gamma, beta, dy):
        def normalize(x, gamma, beta):
            return backend.normalize_batch(x, axes, gamma, beta, EPSILON)

        y, pull_back, moments = jax.vjp(normalize, x, gamma, beta, has_aux=True)
        return y, moments, pull_back(dy)

    function = jax.jit(compute) if jit else compute
    y, batch, gradients = function(x, gamma, beta, dy)
    expected = oracle.batch_norm(x, axes, gamma, beta, EPSILON)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    _, mean, variance = oracle.moments(x, axes)
    np.testing.assert_allclose(batch.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(batch.variance, variance, rtol=1e-5)
    dy = dy.astype("float64")
    expected = oracle.batch_norm_gradients(dy, x, axes, gamma, EPSILON)
    for ours, other in zip(gradients, expected, strict=True):
        tolerance = 1e-5 * np.abs(other).max()
        np.testing.assert_allclose(ours, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("location", [0.0, 1e3])
def test_second_derivatives_in_all_orders_of_the_modes(location):
    """Of a scalar in x, gamma and beta, against the functional form in float64."""
    with jax.enable_x64(True):
        x, dy, gamma, beta = draw((12, 3), (0,), location)

        def hessians(form, *arguments):
            def scalar(x, gamma, beta):
                y, batch = form.normalize_batch(x, (0,), gamma, beta, EPSILON)
                return jnp.sum(jnp.sin(y) * dy) + jnp.sum(jnp.sin(batch.variance))

            everything = (0, 1, 2)
            return [
                jax.jit(outer(inner(scalar, everything), everything))(*arguments)
                for outer in (jax.jacfwd, jax.jacrev)
                for inner in (jax.jacfwd, jax.jacrev)
            ]

        wide = [jnp.asarray(v, "float64") for v in (x, gamma, beta)]
        expected = hessians(functional, *wide)
        for ours, other in zip(
            jax.tree.leaves(hessians(backend, x, gamma, beta)),
            jax.tree.leaves(expected),
            strict=True,
        ):
            tolerance = 3e-4 * max(np.abs(other).max(), 1)
            np.testing.assert_allclose(ours, other, rtol=0, atol=tolerance)


def test_each_member_of_a_vmap_is_its_own_batch():
    x, _, gamma, beta = draw((3, 40, 5), (0, 1), 2.0)
    x *= np.array([1, 10, 100], "float32")[:, None, None]

    def normalize(x):
        y, batch = backend.normalize_batch(x, (0,), gamma, beta, EPSILON)
        return y, batch.variance

    y, variance = jax.vmap(normalize)(x)
    for one, ours, other in zip(x, y, variance, strict=True):
        expected = oracle.batch_norm(one, (0,), gamma, beta, EPSILON)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(other, one.astype("float64").var(0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3)])
def test_few_samples(shape):
    x, *_ = draw(shape, (0,), 1.0)
    y, batch = backend.normalize_batch(x, (0,), None, None, EPSILON)
    np.testing.assert_array_equal(y, np.zeros(shape))
    np.testing.assert_array_equal(batch.variance, np.zeros(3))
    assert batch.count == shape[0]


@pytest.mark.parametrize("shape", [(6, 5), (16, 24), (2, 3, 4, 8)])
@pytest.mark.parametrize("function", ["dropout", "thinning"])
def test_rows_of_another_length_draw_the_same_masks(function, shape):
    x, *_ = draw(shape, (0,), 1.0)
    seed = jnp.asarray([3, 4], "uint32")
    ours = getattr(backend, function)(x, 0.3, seed)
    np.testing.assert_array_equal(ours, getattr(functional, function)(x, 0.3, seed))
