"""Timings beside Keras's own layers, PyTorch's and the limit set by the memory."""
