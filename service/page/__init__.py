"""The page: jobs, predictions and the inside of models, for people who look."""
