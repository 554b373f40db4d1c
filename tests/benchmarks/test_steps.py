"""The steps that are timed compute the same."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.steps import tensorflow as steps
from benchmarks.steps.cases import Case, make_layer
from benchmarks.steps.cases import arrays as arrays_of

IMAGES = (4, 6, 6, 8)


needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed."
)


def arrays(results):
    """Return TensorFlow's or PyTorch's tensors as float32 arrays."""
    return [
        np.asarray(
            tf.cast(r, tf.float32) if tf.is_tensor(r) else r.detach().float().numpy()
        )
        for r in results
    ]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("known_batch", [True, False])
def test_batch_normalization_steps_compute_the_same(xla, known_batch):
    case = Case("batch_norm", IMAGES, xla=xla, known_batch=known_batch)
    ours = arrays(steps.layer_step(case, "kerasnorm")())
    keras_own = arrays(steps.layer_step(case, "keras")())
    assert [a.shape for a in ours] == [IMAGES, IMAGES, (8,), (8,)]
    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", ["kerasnorm", "keras"])
def test_a_training_step_updates_the_moving_statistics(library):
    case = Case("batch_norm", IMAGES)
    layer = make_layer(case, library)
    x, dy = arrays_of(case)
    steps.compiled_step(case, layer)(x, dy)
    np.testing.assert_allclose(layer.moving_mean, 0.01 * x.mean((0, 1, 2)), rtol=1e-4)


@needs_torch
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_pytorch_computes_the_same_batch_normalization(channels_last, training):
    from benchmarks.steps import torch

    case = Case("batch_norm", IMAGES, training=training)
    ours = arrays(steps.layer_step(case, "kerasnorm")())
    theirs = arrays(torch.native_step(case, channels_last)())
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        other = np.moveaxis(other, 1, -1) if other.ndim == 4 else other
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@needs_torch
def test_pytorch_has_the_two_layouts():
    from benchmarks.steps import torch

    case = Case("dropout", IMAGES)
    for channels_last, strides in ((False, (288, 36, 6, 1)), (True, (288, 1, 48, 8))):
        y, dx = torch.native_step(case, channels_last)()
        assert y.shape == dx.shape == (4, 8, 6, 6)
        assert y.stride() == strides


@pytest.mark.parametrize("library", ["kerasnorm", "keras"])
def test_dropout_steps_drop_the_same_in_both_directions(library):
    case = Case("dropout", IMAGES)
    x, dy = arrays_of(case)
    y, dx = arrays(steps.layer_step(case, library)())
    kept = y != 0
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_allclose(y, np.where(kept, x / 0.7, 0), rtol=1e-4)
    np.testing.assert_allclose(dx, np.where(kept, dy / 0.7, 0), rtol=1e-4)


def test_the_copy_moves_the_bytes_of_the_input():
    assert steps.copy_step(Case("dropout", IMAGES))().shape == (4 * 6 * 6 * 8,)
    half = Case("dropout", IMAGES, dtype="float16")
    assert steps.copy_step(half)().shape == (2 * 6 * 6 * 8,)


def test_half_precision_keeps_float32_weights():
    case = Case("batch_norm", IMAGES, dtype="bfloat16")
    for library in ("kerasnorm", "keras"):
        y, _, dgamma, _ = steps.layer_step(case, library)()
        assert (y.dtype, dgamma.dtype) == (tf.bfloat16, tf.float32)
