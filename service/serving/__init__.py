"""Predictions: the REST and gRPC APIs of TensorFlow Serving on exported SavedModels."""
