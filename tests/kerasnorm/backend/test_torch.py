"""The functions of `kerasnorm.backend.torch`: its kernels against the oracle.

What is many elements for the library is few here.
"""

import numpy as np
import pytest
from keras import ops

from kerasnorm import KBatchNorm, KDropout, KGaussianDropout, functional
from tests import oracle
from tests.kerasnorm import probes
from tests.kerasnorm.inputs import random_mask, reduction_axes, uneven
from tests.kerasnorm.probes import BACKEND, exact

if BACKEND != "torch":
    pytest.skip("It is PyTorch's.", allow_module_level=True)

import torch

from kerasnorm.backend import torch as kernels
from kerasnorm.backend.torch import images, noise, normalization, words

pytestmark = pytest.mark.any_backend

EPSILON = 0.01
OF_PYTORCH = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
SIZES = pytest.mark.parametrize("size", ["few", "many"])
LAYOUTS = pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((320, 5), -1),
        ((150, 20), -1),
        ((10, 8, 8, 4), -1),
        ((10, 4, 8, 8), 1),
        ((150, 5, 4), (1, 2)),
        ((6, 40), 0),
        ((4, 10, 6), (0, 2)),  # nothing that a kernel takes
        ((7, 3), -1),  # too few in a row
    ],
)


@pytest.fixture(autouse=True)
def some_are_many(request, monkeypatch):
    """Let "many" samples be many, and more than a block of them."""
    if getattr(request.node, "callspec", None) is None:
        return
    if request.node.callspec.params.get("size") == "many":
        monkeypatch.setattr(normalization, "SMALL", 0)
        monkeypatch.setattr(images, "BLOCK", 64)


def parameters(shape, axes, location, dtype=torch.float32):
    """Return x, gamma and beta."""
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    rng = np.random.default_rng(4)
    arrays = (
        rng.standard_normal(shape) + location,
        rng.uniform(0.5, 2, kept),
        rng.normal(0, 1, kept),
    )
    return [torch.tensor(a, dtype=dtype, requires_grad=True) for a in arrays]


def check(arguments, axes, tolerance, mask=None):
    """Compare outputs, moments and gradients; tolerances in the largest gradient."""
    x, gamma, beta = arguments
    dy = np.random.default_rng(2).normal(0.5, 1, x.shape)
    dy = torch.tensor(dy + 0.5 * (exact(x) - exact(x).mean()), dtype=x.dtype)
    torch_mask = None if mask is None else torch.tensor(mask)
    y, batch = kernels.normalize_batch(x, axes, gamma, beta, EPSILON, torch_mask)
    gradients = torch.autograd.grad(y, arguments, dy)
    x, gamma, beta = map(exact, arguments)
    expected = oracle.batch_norm(x, axes, gamma, beta, EPSILON, mask)
    np.testing.assert_allclose(exact(y), expected, rtol=0, atol=tolerance)
    moments = oracle.moments(x, axes, mask)
    unit = torch.finfo(y.dtype).eps
    np.testing.assert_allclose(exact(batch.mean), moments.mean, unit, tolerance)
    np.testing.assert_allclose(exact(batch.variance), moments.variance, tolerance)
    assert np.all(exact(batch.count) == moments.count)
    expected = oracle.batch_norm_gradients(exact(dy), x, axes, gamma, EPSILON, mask)
    for ours, other in zip(gradients, expected, strict=True):
        atol = tolerance * np.abs(other).max()
        np.testing.assert_allclose(exact(ours), other, rtol=0, atol=atol)


@pytest.mark.parametrize("location", [0.0, 3.0, 1e4])
@SIZES
@LAYOUTS
def test_float32(shape, axis, location, size):
    axes = reduction_axes(len(shape), axis)
    check(parameters(shape, axes, location), axes, 1e-5)


@SIZES
@LAYOUTS
def test_float64(shape, axis, size):
    axes = reduction_axes(len(shape), axis)
    check(parameters(shape, axes, 3.0, torch.float64), axes, 1e-12)


@pytest.mark.parametrize("location", [0.0, 3.0, 1e4])
@pytest.mark.parametrize(
    ("shape", "masked"),
    [
        ((2_000_000, 1), False),
        ((400_000, 3), False),
        ((100_352, 16), False),
        ((100_003, 16), False),  # a prime: blocks that cannot stand side by side
        ((4, 3, 200, 200), False),
        ((400_000, 3), True),
    ],
)
def test_many_samples(shape, masked, location):
    """Added one after another in float32, 2 million squares are off by 3e-3."""
    axis = 1 if len(shape) == 4 else -1
    axes = reduction_axes(len(shape), axis)
    mask = random_mask((shape[0], 1)) if masked else None
    check(parameters(shape, axes, location), axes, 1e-5, mask)


@SIZES
def test_memory_in_another_order(size):
    """The inputs of a transposed view, and the gradient of a sum, which is one number
    that is seen as many."""
    x, gamma, beta = parameters((4, 5, 6, 3), (0, 1, 2), 3.0)
    other_order = x.detach().movedim(3, 1).contiguous().movedim(1, 3).requires_grad_()
    found = []
    for inputs in (x, other_order):
        y, _ = kernels.normalize_batch(inputs, (0, 1, 2), gamma, beta, EPSILON)
        loss = torch.sum(y) + torch.sum(y.square())
        found.append([y, *torch.autograd.grad(loss, (inputs, gamma, beta))])
        (dbeta,) = torch.autograd.grad(
            kernels.normalize_batch(inputs, (0, 1, 2), gamma, beta, EPSILON)[0].sum(),
            beta,
        )
        assert dbeta.tolist() == [120.0] * 3
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@SIZES
def test_half_precision(dtype, size):
    shape = (10, 8, 8, 4)
    layer = probes.randomised(KBatchNorm(momentum=0.0, dtype=dtype), shape)
    x = ops.cast(uneven(shape, location=100.0), dtype).requires_grad_()
    y = layer(x, training=True)
    dy = ops.cast(np.random.default_rng(2).normal(0.5, 1, shape), dtype)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert y.dtype == dx.dtype == x.dtype
    gamma, beta = exact(layer.gamma), exact(layer.beta)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    expected = oracle.batch_norm(exact(x), (0, 1, 2), gamma, beta, layer.epsilon)
    np.testing.assert_allclose(exact(y), expected, rtol=1.05 * unit, atol=1e-3)
    expected = oracle.batch_norm_gradients(
        exact(dy), exact(x), (0, 1, 2), gamma, layer.epsilon
    )
    np.testing.assert_allclose(exact(dx), expected.x, rtol=2 * unit, atol=2e-3)
    mean = oracle.moments(exact(x), (0, 1, 2)).mean
    np.testing.assert_allclose(exact(layer.moving_mean), mean, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("samples", [0, 1])
@SIZES
def test_no_sample_or_one(samples, dtype, size):
    x = torch.ones((samples, 30), dtype=dtype, requires_grad=True)
    y, batch = kernels.normalize_batch(x, (0,), None, None, EPSILON)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == dx.shape == (samples, 30)
    assert not torch.any(y != 0)
    assert not torch.any(dx.abs() > 1e-3)
    assert batch.mean.tolist() == [float(samples)] * 30
    assert batch.variance.tolist() == [0.0] * 30


@SIZES
def test_gradients_of_the_parameters_alone(size):
    x, gamma, beta = parameters((40, 20), (0,), 0.0)
    y, _ = kernels.normalize_batch(x.detach(), (0,), gamma, beta, EPSILON)
    dgamma, dbeta = torch.autograd.grad(y.sum(), (gamma, beta))
    torch.testing.assert_close(dgamma, torch.zeros(20), atol=1e-4, rtol=0)
    assert dbeta.tolist() == [40.0] * 20


@pytest.mark.parametrize("shape", [(5, 16), (3, 4, 2)])
@SIZES
@OF_PYTORCH
def test_second_derivatives(shape, size):
    axes = reduction_axes(len(shape), 1)
    arguments = parameters(shape, axes, 3.0, torch.float64)

    def normalize(*arguments):
        x, gamma, beta = arguments
        return kernels.normalize_batch(x, axes, gamma, beta, EPSILON)[0]

    assert torch.autograd.gradcheck(normalize, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(normalize, arguments, fast_mode=True)


SEED = torch.tensor([-3, 2**31 - 1], dtype=torch.int32)


def transforms(function, x):
    """Return what transforms of `torch.func` make of a function of one tensor."""

    def loss(x):
        return function(x).sin().sum()

    return {
        "vmap": torch.vmap(function, in_dims=1, out_dims=1)(x),
        "grad": torch.func.grad(loss)(x),
        "jvp": torch.func.jvp(function, (x,), (x.cos(),))[1],
        "vmap of grad": torch.vmap(torch.func.grad(loss))(x),
        "hessian": torch.func.hessian(loss)(x[:3]),
        "grad of an inner backward pass": torch.func.grad(
            lambda x: torch.func.grad(loss)(x).square().sum()
        )(x),
    }


@pytest.mark.parametrize(
    "function",
    [
        lambda x, form: form.normalize_batch(x, (0,), None, None, EPSILON)[0],
        lambda x, form: form.normalize_with(
            x,
            tuple(range(x.ndim)),
            torch.tensor(0.5),
            torch.tensor(2.0),
            None,
            None,
            0.1,
        ),
        lambda x, form: form.dropout(x, 0.4, SEED),
        lambda x, form: form.gaussian_dropout(x, 0.4, SEED),
    ],
)
@SIZES
@OF_PYTORCH
def test_transforms_of_functions(function, size):
    x = torch.tensor(np.random.default_rng(1).normal(3, 2, (6, 4)))
    ours = transforms(lambda x: function(x, kernels), x)
    reference = transforms(lambda x: function(x, functional), x)
    for name, expected in reference.items():
        torch.testing.assert_close(ours[name], expected, msg=name)


@pytest.mark.parametrize(
    "layer",
    [
        KBatchNorm(),
        KBatchNorm(moving_average="debiased", bessel_correction=True, renorm=True),
        KDropout(0.3, seed=1, noise_shape=(None, 1)),
        KGaussianDropout(0.3, seed=1),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_graph_of_the_compiler(layer):
    """It gives the same, the same noise too; nothing breaks the graph in parts."""
    shape = (12, 7)
    layer.build(shape)
    x = torch.tensor(uneven(shape, dtype="float32"))
    before = [np.copy(exact(v)) for v in layer.variables]
    expected = [layer(x, training=training) for training in (True, True, False)]
    after = [np.copy(exact(v)) for v in layer.variables]
    for variable, value in zip(layer.variables, before, strict=True):
        variable.assign(value)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for y, training in zip(expected, (True, True, False), strict=True):
        torch.testing.assert_close(compiled(x, training=training), y)
    for variable, value in zip(layer.variables, after, strict=True):
        np.testing.assert_allclose(exact(variable), value, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (), (7,), (30, 8), (41, 21)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.3, 1 - 2**-16, 1.0, torch.tensor(0.4)])
def test_dropout_is_that_of_the_reference(shape, dtype, rate, monkeypatch):
    """To the last bit, by both ways to cut, in parts and by several threads."""
    monkeypatch.setattr(noise, "SMALL", 100)
    monkeypatch.setattr(words, "PART", 64)
    x = torch.tensor(np.random.default_rng(0).normal(3, 2, shape), dtype=dtype)
    x.reshape(-1)[3:4] = np.inf
    x.reshape(-1)[4:5] = np.nan
    x.requires_grad_()
    for name in ("dropout", "thinning"):
        for inputs in (x, x.T) if len(shape) == 2 else (x,):
            ours, reference = (
                getattr(form, name)(inputs, rate, SEED)
                for form in (kernels, functional)
            )
            same = {"rtol": 0, "atol": 0, "equal_nan": True}
            torch.testing.assert_close(ours, reference, **same)
            dy = torch.ones_like(ours)
            dx, expected = (torch.autograd.grad(y, x, dy)[0] for y in (ours, reference))
            torch.testing.assert_close(dx, expected, **same)


@pytest.mark.parametrize("noise_shape", [(None, 1, None), (4, 1, 5), (6, 5), (1,)])
@pytest.mark.parametrize("small", [0, 1000])
def test_masks_that_are_broadcast(noise_shape, small, monkeypatch):
    monkeypatch.setattr(noise, "SMALL", small)
    x = torch.tensor(uneven((4, 6, 5)))
    ours, reference = (
        form.dropout(x, 0.3, SEED, noise_shape) for form in (kernels, functional)
    )
    torch.testing.assert_close(ours, reference, rtol=0, atol=0)


@OF_PYTORCH
def test_second_derivatives_of_dropout(monkeypatch):
    monkeypatch.setattr(noise, "SMALL", 0)
    x = torch.tensor(uneven((5, 3)), requires_grad=True)

    def square(x):
        return kernels.dropout(x, 0.3, SEED).square()

    assert torch.autograd.gradcheck(square, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(square, x)


@pytest.mark.parametrize("threads", [1, 2])
def test_gaussian_noise_is_that_of_the_reference(threads, monkeypatch):
    monkeypatch.setattr(words, "PART", 64)
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = kernels.gaussian_dropout(torch.ones(41, 21), 0.3, SEED)
    finally:
        torch.set_num_threads(kept)
    expected = oracle.gaussian_noise((41, 21), 0.3, SEED.tolist())
    np.testing.assert_allclose(exact(y), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 3), -1), ((4, 3, 6), 1), ((4, 2, 5, 3), (1, 3))]
)
@pytest.mark.parametrize("center", [False, True])
def test_inference(shape, axis, center, dtype):
    """In place where nothing is differentiated, and not where something is."""
    layer = probes.randomised(KBatchNorm(axis, center=center, dtype=dtype), shape)
    x = ops.cast(uneven(shape, location=1e4), dtype)
    layer.moving_mean.assign(layer.moving_mean + 1e4)
    before = x.clone()
    y = layer(x)
    with torch.no_grad():
        in_place = layer(x)
    assert torch.equal(x, before)
    gamma, beta = probes.parameters(layer)
    expected = oracle.normalize(
        exact(x),
        reduction_axes(len(shape), axis),
        exact(layer.moving_mean),
        exact(layer.moving_variance),
        gamma,
        beta,
        layer.epsilon,
    )
    unit = torch.finfo(x.dtype).eps
    for ours in (y, in_place):
        np.testing.assert_allclose(exact(ours), expected, rtol=2 * unit, atol=9 * unit)
