"""The `polyak` command. Thin: what a command does is in the package that is named after it."""

import io
import os
import signal
import sys

from polyak.complain import complain


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (open to the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a folder's name that the terminal's encoding does not have
    try:
        code = dispatch(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    # All is done and on the disk. A framework that is taking itself down does not look good interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def dispatch(words: list[str]) -> int:
    """Call the command that the words name.

    Returns:
        Its exit code, or 2 for words that no command understands.
    """
    # Imported here, where Ctrl-C is looked after, and so that what is missing can be said.
    try:
        from cyclopts import App, CycloptsError, Parameter
    except ImportError:
        return complain('the command line needs cyclopts: pip install "polyak[train]" brings it.', 2)

    from polyak import __version__
    from polyak.bits.command import bits
    from polyak.check.command import check
    from polyak.compare.command import compare
    from polyak.report.command import report
    from polyak.state.command import state
    from polyak.train.command import train
    from polyak.train.predict import predict

    app = App(
        name="polyak",
        help="Momentum optimization for training neural networks.",
        version=__version__,
        default_parameter=Parameter(negative=()),  # no --no-nesterov beside --nesterov
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    for command in (train, predict, compare, check, report, state, bits):
        app.command(command)
    try:
        return app(words) or 0
    except CycloptsError as error:
        return complain(f"{error}\nTry: polyak --help", 2)
