"""The layers: state and configuration around `kerasnorm.functional`."""
