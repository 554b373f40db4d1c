"""docs/migrate.md's lines for PyTorch's numbers."""

import doctest
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kerasnorm

PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"


def test_the_numbers_of_pytorch() -> None:
    """`from_torch`, over steps of training, affine or not."""
    torch = pytest.importorskip("torch")
    (example,) = [
        example.source
        for example in doctest.DocTestParser().get_examples(PAGE.read_text())
        if example.source.startswith("def from_torch")
    ]
    namespace: dict[str, Any] = {"kerasnorm": kerasnorm}
    exec(example, namespace)
    rng = np.random.default_rng(0)
    for affine in (True, False):
        theirs = torch.nn.BatchNorm1d(3, momentum=0.3, eps=1e-4, affine=affine)
        theirs.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        theirs.running_var.copy_(torch.tensor([0.5, 1.5, 2.5]))
        if affine:
            with torch.no_grad():
                theirs.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
                theirs.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        ours = namespace["from_torch"](theirs, input_shape=(None, 3))
        for training in (False, True, True, False):
            theirs.train(training)
            x = rng.normal(3, 2, (5, 3)).astype("float32")
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(ours(x, training=training)),
                theirs(torch.tensor(x)).detach().numpy(),
                atol=1e-5,
            )
        for a, b in (
            (ours.moving_mean, theirs.running_mean),
            (ours.moving_variance, theirs.running_var),
        ):
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(a), b.numpy(), rtol=1e-5
            )
