"""A model of our layers as the `torch.nn.Module` that it is."""

import copy

import keras
import numpy as np
import pytest

import kerasnorm
from tests import oracle
from tests.kerasnorm.inputs import uneven
from tests.kerasnorm.probes import BACKEND, exact

if BACKEND != "torch":
    pytest.skip("It is PyTorch's.", allow_module_level=True)

import torch

pytestmark = pytest.mark.any_backend

X = torch.tensor(uneven((12, 5), dtype="float32"))


def network():
    """Make the same model each time, with the same names and weights."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8),
            kerasnorm.KBatchNorm(momentum=0.8),
            keras.layers.ReLU(),
            kerasnorm.KDropout(0.3, seed=1),
            kerasnorm.KGaussianDropout(0.2, seed=2),
            keras.layers.Dense(3),
        ]
    )


def step(model, call):
    """Return the gradients of a training step, after which all variables are read."""
    model.zero_grad()
    call(X, training=True).square().mean().backward()
    return [exact(v.value.grad) for v in model.trainable_variables]


def variables(model):
    return {variable.path: exact(variable.value) for variable in model.variables}


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], err_msg=name, **tolerance)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_training_model_is_compiled_without_a_break():
    """`fullgraph` refuses one; the backward pass is compiled, too."""
    plain, compiled = network(), network()
    torch.compiler.reset()
    call = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        pairs = zip(step(plain, plain), step(compiled, call), strict=True)
        for expected, gradient in pairs:
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
        assert_same(variables(compiled), variables(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_an_exported_model_takes_every_batch():
    model = network()
    model(X, training=True)
    shapes = {"args": ({0: torch.export.Dim("batch")},)}
    exported = torch.export.export(model, (X,), dynamic_shapes=shapes).module()
    for inputs in (X, X[:5] - 3):
        torch.testing.assert_close(exported(inputs), model(inputs))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_an_exported_monte_carlo_dropout_draws_every_time():
    layers = [kerasnorm.KDropout(0.5, monte_carlo=True, seed=4)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    exported = torch.export.export(model, (X,)).module()
    for draw in range(3):
        mask = oracle.keep_mask(X.shape, 0.5, (4, draw))
        expected = oracle.inverted_dropout(exact(X), mask, 0.5)
        np.testing.assert_allclose(exact(exported(X)), expected, rtol=1e-6)


def test_to_another_dtype():
    """All weights and statistics go, and are trained; the random state stays."""
    layers = [kerasnorm.KBatchNorm(momentum=0.8), kerasnorm.KDropout(0.3, seed=1)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    expected = model(X, training=True)
    assert model.to("cpu", torch.float64) is model
    dtypes = {v.name: v.value.dtype for v in model.variables}
    assert dtypes.pop("seed_generator_state") == torch.int32
    assert set(dtypes.values()) == {torch.float64}
    layers[1].seed_generator.state.assign([1, 0])
    y = model(X.double(), training=True)
    torch.testing.assert_close(y, expected, check_dtype=False)
    (0.5 * y.square().sum()).backward()
    assert layers[0].gamma.value.grad.dtype == torch.float64
    mean = X.double().mean(0) * (0.2 + 0.2 * 0.8)
    np.testing.assert_allclose(exact(layers[0].moving_mean), exact(mean), rtol=1e-5)


def test_the_state_dict_of_the_same_architecture():
    """It has the random state: both draw the same masks from then on."""
    model = network()
    step(model, model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    other = network()
    assert not np.allclose(exact(other(X)), exact(model(X)))
    other.load_state_dict(state)
    assert_same(variables(other), variables(model), rtol=0)
    for training in (False, True):
        torch.testing.assert_close(
            other(X, training=training), model(X, training=training)
        )


def test_a_copy_draws_the_same_masks():
    model = network()
    step(model, model)
    other = copy.deepcopy(model)
    torch.testing.assert_close(other(X, training=True), model(X, training=True))


def test_training_is_what_the_call_says():
    """And not `train()` and `eval()`, as with every layer of Keras."""
    model = network()
    before = variables(model)
    inference = model.train()(X)
    torch.testing.assert_close(model.eval()(X), inference)
    assert_same(variables(model), before, rtol=0)
    model(X, training=True)
    assert not np.allclose(exact(model(X)), exact(inference))


def test_what_an_optimizer_of_pytorch_trains():
    model = network()
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(v.value) for v in model.trainable_variables}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(X, training=True) - X[:, :3]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
