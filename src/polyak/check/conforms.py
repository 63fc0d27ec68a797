"""The check as an assertion, for the tests of an optimizer."""

from collections.abc import Iterable
from typing import Any

from polyak.check.report import check
from polyak.check.text import findings


def assert_conforms(
    optimizer: Any, /, *, select: Iterable[str] | None = None, ignore: Iterable[str] = (), **options: Any
) -> None:
    """Fail with a page of what is wrong with an optimizer, if there is anything.

    Args:
        optimizer: As in `check`: usually a function that makes the optimizer, from the parameters in PyTorch, from nothing in
            Keras and JAX.
        select: As in `check`.
        ignore: As in `check`.
        **options: As in `check`.

    Raises:
        AssertionError: There are findings. The message has each with its identifier, numbers, page and script.
        ValueError, TypeError: As in `check`.

    Example:
        >>> import torch
        >>> def test_my_sgd():
        ...     assert_conforms(lambda params: torch.optim.SGD(params, lr=0.1), ignore=["state-by-position"])
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    report = check(optimizer, select=select, ignore=ignore, **options)
    if report.code:
        raise AssertionError(findings(report))
