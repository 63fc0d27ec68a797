"""Where every command says what is wrong."""

import sys


def complain(what: object, code: int = 0) -> int:
    """One message on standard error, and the exit code that goes with it; 0 for what does not end the command."""
    print(f"polyak: {what}", file=sys.stderr, flush=True)  # noqa: T201  (this is the place that prints errors)
    return code
