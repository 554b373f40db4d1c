"""Several processes that serve on one port, each with all models."""
