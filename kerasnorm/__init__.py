"""Dropout and batch normalization for Keras 3, faithful to the papers."""

from kerasnorm import _requirements

_requirements.check_version("keras")

from kerasnorm import functional
from kerasnorm._version import __version__
from kerasnorm.layers.batch_norm import KBatchNorm, KBatchNormalization
from kerasnorm.layers.dropout import KDropout, KGaussianDropout, KSpatialDropout
from kerasnorm.layers.recompute import recompute
from kerasnorm.monitor import ShiftMonitor
from kerasnorm.transforms.convert import convert
from kerasnorm.transforms.fold import fold
from kerasnorm.transforms.load import load_model, load_weights
from kerasnorm.transforms.monte_carlo import MonteCarloPrediction, monte_carlo
from kerasnorm.transforms.monte_carlo_model import monte_carlo_model
from kerasnorm.transforms.recalibrate import recalibrate

__all__ = [
    "KBatchNorm",
    "KBatchNormalization",
    "KDropout",
    "KGaussianDropout",
    "KSpatialDropout",
    "MonteCarloPrediction",
    "ShiftMonitor",
    "__version__",
    "convert",
    "fold",
    "functional",
    "load_model",
    "load_weights",
    "monte_carlo",
    "monte_carlo_model",
    "recalibrate",
    "recompute",
]
