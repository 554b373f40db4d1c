"""Architectures: functions that return functional `keras.Model`s, found by name."""

from models.named import REGISTRY, arguments, build, find, source

__all__ = ["REGISTRY", "arguments", "build", "find", "source"]
