"""The papers' claims as experiments: `python -m experiments list`."""
