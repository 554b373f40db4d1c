"""The page: jobs, predictions and the inside of models, seen in a browser."""
