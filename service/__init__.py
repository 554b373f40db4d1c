"""The HTTP service: training jobs and predictions. `python -m service`."""
