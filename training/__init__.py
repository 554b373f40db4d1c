"""One training job, from a `TrainConfig` to a versioned SavedModel."""
