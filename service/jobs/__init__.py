"""Training jobs: their queue, the processes that train, their HTTP API."""
