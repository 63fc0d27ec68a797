"""`polyak check`, as the command line sees it: the signature and the docstring are its options and its help."""

import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from polyak.check.data import written
from polyak.check.drivers.loading import load
from polyak.check.plot import plot as draw
from polyak.check.report import check as checked
from polyak.check.report import known
from polyak.check.trial import Refused, Subject
from polyak.complain import complain
from polyak.train.backends import BACKENDS, check_backend, choose, quieten
from polyak.train.command import Flag, Settings
from polyak.train.settings import is_call
from polyak.train.settings import settings as parsed
from polyak.train.words import choice

Identifiers = Annotated[tuple[str, ...], Parameter(show_default=False)]


def check(
    optimizer: str,
    /,
    *,
    settings: Settings = (),
    backend: str | None = None,
    select: Identifiers = (),
    ignore: Identifiers = (),
    json: Flag = False,
    plot: Path | None = None,
) -> int:
    """Measure an optimizer: what recurrence it follows, and what is wrong with it.

    polyak check torch.optim:SGD --set lr=0.1 --set momentum=0.9. It is a black box that is given weights and gradients of a few
    elements. Each finding has an identifier, a page in docs/findings/ and a script of a few lines that shows it.

    Args:
        optimizer: module:name of a PyTorch class, a Keras class, or an optax function.
        settings: NAME=VALUE: any option of its constructor; repeat it.
        backend: Of Keras: tensorflow, jax or torch. [what Keras is set to]
        select: Identifiers of the findings to look for, with commas between them. [all]
        ignore: Identifiers of findings that are known, likewise.
        json: Print all of it as JSON in the place of the page.
        plot: A picture of the impulse and the frequency response: .png, .svg or .pdf.

    Returns:
        The exit code: 0 without findings, 1 with some, 2 for what cannot be checked, 130 after Ctrl-C.
    """
    from polyak.train.display import say

    try:
        wanted = known("--select", split(select)) or None
        unwanted = known("--ignore", split(ignore))
        with redirect_stdout(sys.stderr):  # what the optimizer prints is not part of the page
            subject = _subject(optimizer, settings, backend)
    except (ValueError, TypeError, ImportError) as error:
        return complain(error, 2)
    try:
        with redirect_stdout(sys.stderr):
            report = checked(subject, select=wanted, ignore=unwanted)
            text = written(report) if json else str(report)
    except Exception as error:
        traceback.print_exception(error)
        return complain(f"the check of {optimizer} stopped: {type(error).__name__}: {error}", 2)
    say(text)
    if plot is not None:
        try:
            draw(report, plot)
        except (ValueError, ImportError, OSError, Refused) as error:
            return complain(f"--plot {plot}: {error}", 2)
    return report.code


def split(identifiers: Iterable[str]) -> list[str]:
    """Identifiers that came one by one, or several with commas between them."""
    return [name.strip() for words in identifiers for name in words.split(",") if name.strip()]


def _subject(optimizer: str, settings: Iterable[str], backend: str | None) -> Subject:
    """The optimizer, with Keras on its backend."""
    options = parsed(settings)
    if calls := [f"--set {name}={value}" for name, value in options.items() if is_call(value)]:
        raise ValueError(f"{calls[0]}: schedules are not checked; give a number.")
    quieten()
    if backend is not None:
        check_backend(choice("--backend", backend, BACKENDS))
        choose(backend)
    subject = load(optimizer, options)
    if backend is not None and subject.framework != "keras":
        raise ValueError(f"--backend is for optimizers of Keras; {optimizer} is one of {subject.framework}. Leave it out.")
    return subject
