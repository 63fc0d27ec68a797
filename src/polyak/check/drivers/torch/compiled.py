"""A step under `torch.compile`."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from signal import default_int_handler
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from polyak.check.trial import Refused

COMPILED = "compiled"
"""The implementation that is the step that people get, under `torch.compile`."""


class Compiled:
    """A step under `torch.compile`, of which is noted in how many calls something was compiled.

    What is captured of a step, and on which values it depends, is TorchDynamo's; its graphs are then run as they are. A backend
    that makes machine code of them would take a minute more. What else was compiled in this process is compiled again at its
    next use.

    Attributes:
        compilations: The calls in which something was compiled. One may have several graphs.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        torch.compiler.reset()  # else the compilations of former trials count towards its limit
        self.compilations = 0
        self._anew = False
        self._step = torch.compile(step, backend=self._backend)

    def __call__(self, *args: Any) -> None:
        """Take the step.

        Raises:
            Refused: It cannot be compiled.
        """
        self._anew = False
        try:
            with _unlogged(), _interrupted_after():
                self._step(*args)
        except TorchDynamoException as error:
            first, *_ = str(error).splitlines()  # of many
            raise Refused(f"torch.compile: {first}") from error
        self.compilations += self._anew

    def _backend(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:  # noqa: ARG002  (TorchDynamo's)
        self._anew = True
        return graph.forward


@contextmanager
def _interrupted_after() -> Iterator[None]:
    """A Ctrl-C is raised when this is over: where it comes in a guard or a finalizer, TorchDynamo and Python lose it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not default_int_handler:
        yield
        return
    noted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default_int_handler)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def _unlogged() -> Iterator[None]:
    """Nothing is logged of what was compiled too often: that is counted."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
