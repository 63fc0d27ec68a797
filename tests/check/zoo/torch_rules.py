"""Optimizers of PyTorch that do not follow the recurrence that their options say."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .cases import Case, broken
from .torch_sound import SGD, Group, SGDOfLists

CASES: list[Case] = []
rule = partial(broken, CASES, lr=0.1, momentum=0.9)


@rule(
    "momentum-differs",
    also=("option-without-effect", "option-effect", "dampening-differs", "nesterov-differs", "change-ignored"),
)
class MomentumWithoutEffect(SGD):
    def direction(self, v: Tensor, g: Tensor, group: Group) -> Tensor:  # noqa: ARG002  (the velocity is remembered and not used)
        return g


@rule("momentum-differs", also=("option-effect",))
class MomentumWithTheWrongSign(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return self.slot(p, "velocity").mul_(-group["momentum"]).add_(g, alpha=1 - group["dampening"])


@rule("momentum-differs", also=("option-effect",))
class MomentumOnePercentLess(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().remember(p, g, {**group, "momentum": 0.99 * group["momentum"]})


@rule("momentum-differs", also=("option-effect",))
class MomentumTheOtherWayRound(SGD):
    """As in batch normalisation, where the momentum is the share of what is new."""

    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().remember(p, g, {**group, "momentum": 1 - group["momentum"]})


@rule("learning-rate-differs", also=("option-effect",))
class RateOnePercentMore(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.sub_(direction, alpha=1.01 * group["lr"])


# 0.3 twice is no product of 0.3 and a dampening that an average of gradients would have.
@broken(CASES, "learning-rate-differs", also=("option-effect",), lr=0.3, momentum=0.9)
class RateTwice(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.sub_(direction * group["lr"], alpha=group["lr"])


@rule("ascent", also=("option-effect", "learning-rate-differs"))
class Ascent(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.add_(direction, alpha=group["lr"])


@rule("nesterov-differs", also=("option-without-effect", "option-effect"), nesterov=True)
class NesterovIgnored(SGD):
    def direction(self, v: Tensor, g: Tensor, group: Group) -> Tensor:  # noqa: ARG002  (accepted and ignored)
        return v


@rule("option-without-effect")
class NesterovIgnoredByDefault(NesterovIgnored):
    """The same, where it is not asked for."""


@rule("nesterov-differs", also=("option-without-effect", "option-effect"))
class NesterovAlways(SGD):
    def direction(self, v: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().direction(v, g, {**group, "nesterov": True})


@rule("nesterov-differs", also=("option-effect", "momentum-differs", "first-step-differs"), nesterov=True)
class NesterovWithTheOldVelocity(SGD):
    """lr (m v + g) with the v before the step: no look-ahead, but heavy ball."""

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        g = self.decay(p, g, group)
        direction = self.direction(self.slot(p, "velocity").clone(), g, group)
        self.remember(p, g, group)
        self.move(p, direction, group)


@rule("dampening-differs", also=("option-effect", "learning-rate-differs", "option-without-effect"), dampening=0.3)
class DampeningTheOtherWayRound(SGD):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "dampening": 1 - group["dampening"] if group["dampening"] else 0})


@rule("first-step-differs", also=("dampening-differs", "option-effect"), dampening=0.3)
class FirstStepWithoutDampening(SGD):
    """As torch.optim.SGD: the velocity begins as the first gradient."""

    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        first = "velocity" not in self.state[p]
        return super().remember(p, g, {**group, "dampening": 0.0} if first else group)


@rule("first-step-differs")
class FirstStepTwiceAsLong(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        first = not self.state[p].get("moved", False)
        self.state[p]["moved"] = True
        p.sub_(direction, alpha=2 * group["lr"] if first else group["lr"])


@rule("irregular-steps")
class EveryHundredthStepTwice(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        t = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        p.sub_(direction, alpha=2 * group["lr"] if t % 100 == 0 else group["lr"])


@rule("irregular-steps", also=("momentum-differs",))
class VelocityForgottenEveryFiftySteps(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        t = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        if t % 50 == 0:
            self.slot(p, "velocity").zero_()
        return super().remember(p, g, group)


@rule("decay-kind", also=("option-without-effect", "option-effect"), weight_decay=0.1, decoupled_weight_decay=True)
class DecayCoupledThoughDecoupledWasAskedFor(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "decoupled_weight_decay": False})


@rule("decay-kind", also=("option-without-effect", "option-effect"), weight_decay=0.1)
class DecayDecoupledThoughCoupledWasAskedFor(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "decoupled_weight_decay": True})


@rule("decay-kind", also=("decay-amount", "option-effect"), weight_decay=0.1)
class DecayOfTheSign(SGD):
    """The penalty of the absolute value in the place of that of the square."""

    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, group) if group["decoupled_weight_decay"] else g.add(p.sign(), alpha=group["weight_decay"])


@rule("decay-amount", also=("option-effect", "decay-kind"), weight_decay=0.1, decoupled_weight_decay=True)
class DecayTimesTheRateTwice(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "weight_decay": group["lr"] * group["weight_decay"]})


@rule("decay-amount", also=("option-effect", "decay-kind"), weight_decay=0.1)
class DecayWithTheWrongSign(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "weight_decay": -group["weight_decay"]})


@rule("decay-amount", also=("option-effect",), weight_decay=0.1)
class DecayOnePercentLess(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "weight_decay": 0.99 * group["weight_decay"]})


@rule("option-without-effect")
class DecayIgnored(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:  # noqa: ARG002
        return g


class _More(SGD):
    """With an option more."""

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0, *, maximize: bool = False
    ) -> None:
        super().__init__(params, lr, momentum, weight_decay=weight_decay, maximize=maximize)


@rule("option-without-effect")
class MaximizeIgnored(_More):
    pass


@rule("option-effect")
class MaximizeAfterTheFirstStepAlone(_More):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, -g if group["maximize"] and "velocity" in self.state[p] else g, group)


@rule("implementations-differ", also=("option-effect", "first-step-differs"), weight_decay=0.1)
class ListsWithoutDecay(SGDOfLists):
    def update_list(self, params: list[Tensor], group: Group) -> None:
        super().update_list(params, {**group, "weight_decay": 0.0})


@rule("implementations-differ", also=("option-effect", "nesterov-differs"), nesterov=True)
class ListsWithoutNesterov(SGDOfLists):
    def update_list(self, params: list[Tensor], group: Group) -> None:
        super().update_list(params, {**group, "nesterov": False})


@rule("implementations-differ", also=("option-effect", "nesterov-differs"))
class ListsWithoutNesterovByDefault(ListsWithoutNesterov):
    """The same, where it is not asked for."""


@rule("change-ignored", also=("schedule-ignored",))
class RateOfTheFirstStep(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.sub_(direction, alpha=self.state[p].setdefault("lr", group["lr"]))


@rule("change-ignored", also=("schedule-ignored", "groups-ignored", "resume-differs", "copy-shares-state"))
class RateReadAtConstruction(SGD):
    """In an attribute, which torch does not copy."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, momentum, weight_decay=weight_decay)
        self.lr = lr

    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:  # noqa: ARG002
        p.sub_(direction, alpha=self.lr)


@rule("schedule-ignored")
class RateBeforeAnyScheduler(SGD):
    """`initial_lr` is what a scheduler notes when it begins."""

    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        super().move(p, direction, {**group, "lr": group.get("initial_lr", group["lr"])})


@rule("change-ignored", also=("groups-ignored",))
class MomentumReadAtConstruction(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().remember(p, g, {**group, "momentum": self.defaults["momentum"]})


@rule("groups-ignored", also=("change-ignored",))
class OptionsOfTheFirstGroupForAll(SGD):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:  # noqa: ARG002
        super().update(p, g, self.param_groups[0])


@rule("groups-ignored")
class DecayOfTheLastGroupForAll(SGD):
    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return super().decay(p, g, {**group, "weight_decay": self.param_groups[-1]["weight_decay"]})


@rule("scale-fails", also=("learning-rate-differs", "implementations-differ", "option-effect"))
class HugeGradientsClippedInSilence(SGD):
    """A constant that someone found useful in one run."""

    def gradient(self, p: Tensor) -> Tensor:
        return super().gradient(p).clamp(-1e4, 1e4)


@rule(
    "scale-fails",
    also=("learning-rate-differs", "momentum-differs", "dampening-differs", "implementations-differ", "layout-differs"),
)
class ThroughHalfPrecision(SGD):
    """Gradients above 65504 overflow, and those below 6e-8 are 0."""

    def gradient(self, p: Tensor) -> Tensor:
        return super().gradient(p).to(torch.float16).to(p.dtype)
