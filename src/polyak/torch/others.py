"""The second optimizer of `Muon`, for the parameters that are no matrices: one of Polyak or any other of torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from polyak.rules.descent import DESCENT
from polyak.torch.distributed import Number, Squares
from polyak.torch.guard import Verdict
from polyak.torch.modules import Named
from polyak.torch.momentum import Momentum
from polyak.torch.optimizer import Optimizer, Planned
from polyak.torch.options import of_all_groups
from polyak.torch.tensors import Group, Row, Step
from polyak.update import pipeline

Factory = Callable[[Named], torch.optim.Optimizer]


def made(factory: Factory | None, named: Named, *, maximize: bool) -> torch.optim.Optimizer:
    """The second optimizer.

    Args:
        factory: What the user gave; None for heavy ball.
        named: The parameters.
        maximize: Whether the first one goes up the gradient.

    Raises:
        ValueError: It has a guard of its own, or goes the other way.
    """
    others = factory(named) if factory else Momentum(named, lr=0.01, momentum=0.9, maximize=maximize)
    for group in others.param_groups:
        for name, nothing in (("max_norm", None), ("finite", "off")):
            if group.get(name, nothing) != nothing:
                raise ValueError(
                    f"`others` was made with {name}={group[name]!r}, which concerns the gradients of all parameters together. "
                    f"Give it to Muon, which has them all: Muon(..., {name}={group[name]!r})."
                )
    ways = {bool(group.get("maximize")) for group in others.param_groups}
    if ways == {not maximize}:
        raise ValueError(
            f"Muon has maximize={maximize}, and `others` was made with maximize={not maximize}: one would undo what the other "
            "does. Give both the same."
        )
    return others


def share_guard(others: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """Give an optimizer of Polyak the guard of the first one's groups."""
    if isinstance(others, Optimizer):
        for theirs in others.param_groups:
            theirs["max_norm"], theirs["finite"] = group["max_norm"], group["finite"]


def look(others: torch.optim.Optimizer, groups: Sequence[dict[str, Any]]) -> None:
    """See what may have changed since the last step, and that the guard is still that of the first optimizer's groups."""
    if isinstance(others, Optimizer):
        others._look_for_changes()
        of_all_groups([*groups, *others.param_groups])


def planned(others: torch.optim.Optimizer) -> Planned:
    """What its next step does."""
    return others._plan() if isinstance(others, Optimizer) else [(_Whole(others), {"scale": 1.0})]


def carry_out(others: torch.optim.Optimizer, plan: Planned, verdict: Verdict) -> None:
    """Make the step that was planned, by the optimizer's own `step`, of which hooks and schedulers know."""
    if isinstance(others, Optimizer):
        others._given = plan, verdict
        try:
            others.step()
        finally:
            others._given = None
    else:
        for step, h in plan:
            step.apply({"scale": verdict.scale * h["scale"]})


class _Whole:
    """The step of an optimizer of another library. It knows no scale, so it is given gradients that are scaled."""

    on_host = True  # it cannot be told by a device to leave a step out

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.weights: Row = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._optimizer = optimizer

    def sum_of_squares(self) -> Squares:
        """Of the gradients, as far as this process holds them."""
        return self._elements().sum_of_squares()

    def squares(self) -> list[Number]:
        """Of each gradient."""
        return self._elements().squares()

    def _elements(self) -> Step:
        gradients: Any = [p.grad for p in self.weights]
        return Group(pipeline(DESCENT)).read(self.weights, gradients, [])

    def apply(self, h: Mapping[str, Number], passes: Tensor | None = None) -> None:  # noqa: ARG002  (None: see on_host)
        """Let the optimizer make its step."""
        with _scaled(self.weights, h["scale"]):
            self._optimizer.step()


@contextmanager
def _scaled(params: Row, scale: Number) -> Iterator[None]:
    """Other gradients in the place of those that are there, to which nothing is written."""
    if scale == 1.0:
        yield
        return
    given: list[Any] = [p.grad for p in params]
    try:
        for p, g in zip(params, given, strict=True):
            p.grad = g * scale
        yield
    finally:
        for p, g in zip(params, given, strict=True):
            p.grad = g
