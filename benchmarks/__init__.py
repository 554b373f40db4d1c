"""Timings of our layers beside Keras's, PyTorch's and a mere copy of the bytes."""
