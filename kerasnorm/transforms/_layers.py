"""Which of Keras's layers have a counterpart here: the one list for whole models."""

from typing import Any

import keras

from kerasnorm.layers.batch_norm import KBatchNorm
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout

Layers = tuple[Any, ...]

SPATIAL_DROPOUTS: Layers = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
COUNTERPARTS: dict[Any, Any] = {
    keras.layers.BatchNormalization: KBatchNorm,
    keras.layers.Dropout: KDropout,
    keras.layers.GaussianDropout: KGaussianDropout,
    **dict.fromkeys(SPATIAL_DROPOUTS, KSpatialDropout),
}
"""Ours by Keras's."""

NORMALIZATIONS: Layers = (KBatchNorm, keras.layers.BatchNormalization)
DROPOUTS: Layers = tuple(
    layer
    for layer in (*COUNTERPARTS, *dict.fromkeys(COUNTERPARTS.values()))
    if layer not in NORMALIZATIONS
)
"""Keras's and ours."""
