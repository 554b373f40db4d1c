"""What batch normalization sees while a model trains."""

from kerasnorm.monitor.shift_monitor import ShiftMonitor

__all__ = ["ShiftMonitor"]
