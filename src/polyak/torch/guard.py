"""What looks at all gradients of a step together: the bound of their norm, and whether all of them are finite."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from polyak.arguments import Finite, not_finite
from polyak.torch.distributed import Squares, total
from polyak.update import clip_scale

# In place of names, where no gradient that this process can see is to blame.
ELSEWHERE = "in a shard that another process holds"


class Work(Protocol):
    """What a step does to some of the parameters, once it is known that it is taken."""

    weights: Sequence[Tensor]

    @property
    def on_host(self) -> bool:
        """Whether any of the tensors is in host memory, where numbers are read without waiting."""

    def sum_of_squares(self) -> Squares:
        """Of the gradients."""

    def squares(self) -> Sequence[Any]:
        """The sum of squares of each gradient."""

    def apply(self, h: Any, passes: Tensor | None = None) -> None:
        """Update weights and slots; or leave them as they are, where there is a `passes` that is False."""


class Verdict(NamedTuple):
    """What the guard says of a step.

    Attributes:
        scale: What gradients are multiplied by to be within the bound: a number, or on a device a tensor without dimensions.
        passes: On a device, whether the step is taken, a tensor without dimensions. None: it is.
    """

    scale: float | Tensor
    passes: Tensor | None


TAKEN = Verdict(1.0, None)  # with the gradients as they are


class Guard:
    """Judges steps, and counts those that are left out.

    The host reads the norm of gradients in host memory and decides. If no tensor of a step is there, all stays on the device:
    the norm, the scale, whether the step is taken, how many were not, and which gradients were to blame. It is read when
    somebody asks.

    Attributes:
        norm: That of all gradients of the last step that was taken, if it has a bound; on a device a tensor.
    """

    def __init__(self) -> None:
        self.norm: float | Tensor | None = None
        self._by_host = 0
        self._by_device: int | Tensor = 0
        # 1 + the last step that was left out; after it, for each parameter, 1 + the last in which its gradient was to blame.
        self._marks: Tensor | None = None

    @property
    def skipped(self) -> int:
        """How many steps were left out."""
        return self._by_host + self.skipped_by_device

    @property
    def skipped_by_device(self) -> int:
        """How many of them were left out without the host's knowing at the time."""
        self._by_device = int(self._by_device)
        return self._by_device

    def look(
        self, work: Sequence[Work], bound: float | None, finite: Finite, step: int, params: Iterable[Tensor]
    ) -> Verdict | None:
        """Judge a step.

        Args:
            work: What it does.
            bound: Of the norm of all gradients together, or None.
            finite: What becomes of the step if a gradient is not finite.
            step: Its number.
            params: All parameters in their order, also those that have no part in this step.

        Returns:
            None, if the step is left out and the host knows it.
        """
        squares = total([each.sum_of_squares() for each in work])
        if isinstance(squares, Tensor) and not any(each.on_host for each in work):
            return self._look_on_device(squares.sqrt(), work, bound, finite, step, params)
        norm = math.sqrt(squares)
        if finite != "off" and not math.isfinite(norm):
            self._by_host += 1
            return None
        if bound is None:
            return TAKEN
        self.norm = norm
        scale = clip_scale(norm, bound)
        return TAKEN if scale == 1 else Verdict(scale, None)

    @torch.no_grad()
    def _look_on_device(
        self, norm: Tensor, work: Sequence[Work], bound: float | None, finite: Finite, step: int, params: Iterable[Tensor]
    ) -> Verdict:
        passes = None
        if finite != "off":
            passes = norm.isfinite()
            self._by_device = _beside(self._by_device, norm) + (~passes).long()
            if finite == "error":
                self._mark(norm, work, step, params)
        if bound is None:
            return Verdict(1.0, passes)
        before, self.norm = self.norm, norm
        if passes is not None and before is not None:
            self.norm = torch.where(passes, norm, _beside(before, norm))
        return Verdict(clip_scale(norm, bound), passes)

    def _mark(self, norm: Tensor, work: Sequence[Work], step: int, params: Iterable[Tensor]) -> None:
        squares = {p: x for each in work for p, x in zip(each.weights, each.squares(), strict=True)}
        zero = torch.zeros_like(norm)  # of parameters without a gradient
        bad = ~torch.stack([norm, *(squares.get(p, zero).to(norm.device) for p in params)]).isfinite()
        marks = bad * (step + 1)
        if self._marks is not None:  # parameters may have been added at the end
            torch.maximum(marks[: len(self._marks)], _beside(self._marks, norm), out=marks[: len(self._marks)])
        self._marks = marks

    def report(self, names: Iterable[str]) -> None:
        """Raise FloatingPointError, once, if the device left out a step that is an error and that nobody was told of.

        Args:
            names: Of all parameters, in their order.
        """
        if self._marks is None:
            return
        latest, *last = self._marks.tolist()
        self._marks = None
        if latest:
            blamed = [(name, at) for name, at in zip(names, last, strict=False) if at]
            newest, before = ([name for name, at in blamed if (at == latest) is now] for now in (True, False))
            raise FloatingPointError(not_finite(newest or [ELSEWHERE], latest - 1, before))


def _beside(x: Any, t: Tensor) -> Any:
    """A number as it is, a tensor on the device of `t`: a model may have moved since the last step."""
    return x.to(t.device) if isinstance(x, Tensor) else x
