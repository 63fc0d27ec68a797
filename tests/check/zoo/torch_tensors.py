"""Optimizers of PyTorch that get on badly with some tensors or gradients."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .cases import Case, broken
from .torch_sound import SGD, Group

CASES: list[Case] = []
tensor = partial(broken, CASES, lr=0.1, momentum=0.9)


@tensor("gradient-written", weight_decay=0.1)
class DecayAddedToTheGradient(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, group) if group["decoupled_weight_decay"] else g.add_(p, alpha=group["weight_decay"])


@tensor("gradient-written", nesterov=True)
class NesterovInTheGradient(SGD):
    def direction(self, v: Tensor, g: Tensor, group: Group) -> Tensor:
        return g.add_(v, alpha=group["momentum"]) if group["nesterov"] else v

    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, group) if group["weight_decay"] else g


@tensor("gradient-kept", also=("gradient-written",))
class VelocityIsTheFirstGradient(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        if "velocity" not in self.state[p]:
            self.state[p]["velocity"] = g
            return g
        return super().remember(p, g, group)

    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, group) if group["weight_decay"] else g


@tensor("sparse-differs")
class RowsWithoutGradientKeepTheirVelocity(SGD):
    """Only the rows that are there are remembered and moved."""

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        if not p.grad.is_sparse:
            return super().update(p, g, group)
        rows = p.grad.coalesce().indices()[0]
        part, v = p[rows], self.slot(p, "velocity")
        g = self.decay(part, g[rows], group)
        v[rows] = v[rows] * group["momentum"] + g * (1 - group["dampening"])
        self.move(part, self.direction(v[rows], g, group), group)
        p[rows] = part
        return None


@tensor("shape-fails")
class ZeroDimensionsFail(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        for i in range(len(p)):
            p[i] -= group["lr"] * direction[i]


@tensor("shape-fails")
class NoElementsFail(SGD):
    def gradient(self, p: Tensor) -> Tensor:
        g = super().gradient(p)
        if g.abs().max() == float("inf"):
            raise FloatingPointError("the gradient is infinite")
        return g


@tensor("shape-fails", also=("parameters-mixed", "instances-share-state"))
class OneElementIsCentred(SGD):
    """The mean is taken from gradients of fewer than two elements, so they are 0."""

    def gradient(self, p: Tensor) -> Tensor:
        g = super().gradient(p)
        return g - g.mean() if g.numel() == 1 else g


@tensor("shape-fails", also=("parameters-mixed", "layout-differs", "sparse-differs"))
class RemainderForgotten(SGD):
    """Pairs of elements are moved, and what is left over is not."""

    def gradient(self, p: Tensor) -> Tensor:
        g = super().gradient(p).clone()
        g.view(-1)[g.numel() // 2 * 2 :] = 0
        return g


@tensor("layout-differs")
class StridesFail(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.view(-1).sub_(direction.reshape(-1), alpha=group["lr"])


@tensor("layout-differs")
class StridesMoveACopy(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.reshape(-1).sub_(direction.reshape(-1), alpha=group["lr"])


@tensor("layout-differs", also=("parameters-mixed",))
class StridesOfTheGradientIgnored(SGD):
    """Elements are taken as they lie in memory, as a kernel with a pointer does."""

    def gradient(self, p: Tensor) -> Tensor:
        g = super().gradient(p)
        return g if g.is_contiguous() else g.as_strided(g.shape, torch.empty(g.shape).stride())


@tensor("missing-gradient")
class MissingGradientFails(SGD):
    def step_group(self, params: list[Tensor], group: Group) -> None:  # noqa: ARG002  (all of them, with a gradient or not)
        super().step_group(group["params"], group)


@tensor(
    "missing-gradient", also=("parameters-mixed", "resume-differs", "copy-shares-state", "groups-ignored", "state-by-position")
)
class VelocityOfTheNeighbour(SGD):
    """Velocities in the order of the parameters that have a gradient at this step."""

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay)
        self.number = 0

    def step_group(self, params: list[Tensor], group: Group) -> None:
        for self.number, p in enumerate(params):
            self.update(p, self.gradient(p), group)

    def slot(self, p: Tensor, name: str) -> Tensor:  # noqa: ARG002
        owners = [q for group in self.param_groups for q in group["params"]]
        return super().slot(owners[self.number], name)


@tensor("poison-spreads", also=("scale-fails",))
class ClippedByANorm(SGD):
    """At a norm so large that nobody meets it; but that of a NaN is NaN."""

    def gradient(self, p: Tensor) -> Tensor:
        g = super().gradient(p)
        return g * (1e30 / g.norm()).clamp(max=1.0)


@tensor("poison-spreads")
class NaNOfOneReachesAllParameters(SGD):
    def step_group(self, params: list[Tensor], group: Group) -> None:
        gs = [self.gradient(p) for p in params]
        poison = sum((g.sum() * 0 for g in gs if g.isnan().any()), torch.zeros(()))
        for p, g in zip(params, gs, strict=True):
            self.update(p, g + poison.to(p.dtype), group)
