"""The masks, tested as random draws: `python -m experiments.masks`."""
