"""Dropout and batch normalization for Keras 3, faithful to the papers."""

from kerasnorm import functional
from kerasnorm._version import __version__
from kerasnorm.layers.batch_norm import KBatchNorm, KBatchNormalization
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout

__all__ = [
    "KBatchNorm",
    "KBatchNormalization",
    "KDropout",
    "KGaussianDropout",
    "KSpatialDropout",
    "__version__",
    "functional",
]
