"""What jfusion raises when it is given something it cannot use.

Every message says what was expected, what came and how to mend it; the command line prints it as it is.
"""

TERMINATED = 143
"""Exit code after SIGTERM."""


class JFusionError(Exception):
    """Root of all errors that jfusion raises on purpose."""


class InputError(JFusionError, ValueError):
    """An argument, file or array does not fit: wrong shape, ratio, range, name or format. Exit code 2."""


class RunError(JFusionError, RuntimeError):
    """The input was good and the work failed all the same, such as a diverging fit. Exit code 1."""
