"""What jfusion raises when it is given something it cannot use.

Every message says what was expected, what came and how to mend it; the command line prints it as it is.
"""

import difflib
from collections.abc import Collection

TERMINATED = 143
"""Exit code after SIGTERM."""


class JFusionError(Exception):
    """Root of all errors that jfusion raises on purpose."""


class InputError(JFusionError, ValueError):
    """An argument, file or array does not fit: wrong shape, ratio, range, name or format. Exit code 2."""


class RunError(JFusionError, RuntimeError):
    """The input was good and the work failed all the same, such as a diverging fit. Exit code 1."""


def unknown(kind: str, name: str, names: Collection[str]) -> InputError:
    """The error for a name that is none of `names`: it tells those that look alike, or else all."""
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names)}."
    return InputError(f"There is no {kind} {name!r}; {hint}")
