"""Functions that call another one again for its gradient."""

import inspect


def is_called_by(functions: set[tuple[str, str]]) -> bool:
    """Return whether one of the functions, by module and name, is being run."""
    frame = inspect.currentframe()
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in functions:
            return True
        frame = frame.f_back
    return False
