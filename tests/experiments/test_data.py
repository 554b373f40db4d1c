"""The data of the experiments."""

import numpy as np
import pytest

from experiments.data import load_splits


@pytest.mark.slow
def test_the_data_are_split_fifty_ten_ten():
    splits = load_splits("fashion_mnist", None)
    sizes = [len(s) for s in (splits.train, splits.validation, splits.test)]
    assert sizes == [50_000, 10_000, 10_000]
    subset = splits.train.subset(100, 1)
    assert (subset.images == splits.train.subset(100, 1).images).all()
    assert (subset.labels != splits.train.subset(100, 2).labels).any()
    assert set(np.unique(subset.binarized().images)) == {0, 255}
