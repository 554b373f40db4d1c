"""The HTTP service: training jobs, and predictions by the models they have exported."""
