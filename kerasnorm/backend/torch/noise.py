"""Dropout for PyTorch."""

from kerasnorm.functional import dropout, gaussian_dropout, thinning

__all__ = ["dropout", "gaussian_dropout", "thinning"]
