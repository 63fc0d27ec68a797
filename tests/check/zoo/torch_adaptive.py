"""Broken Lions and Adams of PyTorch."""

import torch
from torch import Tensor

from .cases import Case, broken
from .torch_sound import AdamW, Group, Lion

CASES: list[Case] = []


@broken(CASES, "momentum-differs", also=("option-without-effect", "option-effect"), lr=0.01)
class BetasSwapped(Lion):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "betas": group["betas"][::-1]})


@broken(CASES, "option-without-effect", also=("momentum-differs", "option-effect", "change-ignored"), lr=0.01)
class SignOfTheGradientAlone(Lion):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "betas": (0.0, 0.0)})


@broken(CASES, "ascent", also=("learning-rate-differs", "option-effect"), lr=0.01)
class LionUphill(Lion):
    def sign(self, c: Tensor) -> Tensor:
        return -c.sign()


@broken(CASES, "decay-kind", also=("decay-amount", "option-effect"), lr=0.01, weight_decay=0.1)
class LionWithDecayInTheGradient(Lion):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g.add(p, alpha=group["weight_decay"]), {**group, "weight_decay": 0.0})


@broken(CASES, "scale-fails", lr=0.01)
class TinyGradientsVanish(Lion):
    """Of less than 6e-8, in half precision."""

    def sign(self, c: Tensor) -> Tensor:
        return c.clamp(-6e4, 6e4).to(torch.float16).sign().to(c.dtype)


@broken(CASES, "scale-fails", also=("learning-rate-differs", "option-effect", "poison-spreads"), lr=0.01)
class SquaresInHalfPrecision(AdamW):
    def squared(self, g: Tensor) -> Tensor:
        return g.to(torch.float16).square().to(g.dtype)


@broken(CASES, "decay-kind", also=("option-without-effect", "option-effect"), lr=0.01, weight_decay=0.1)
class AdamCoupledThoughDecoupledWasAskedFor(AdamW):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "decoupled_weight_decay": False})


@broken(CASES, "option-without-effect", also=("option-effect", "momentum-differs", "change-ignored"), lr=0.01)
class BetasOfTheTextbookForAll(AdamW):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "betas": (0.9, 0.999)})


@broken(CASES, "ascent", also=("learning-rate-differs", "option-effect"), lr=0.01)
class AdamUphill(AdamW):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, -g, group)


@broken(CASES, "change-ignored", also=("schedule-ignored", "groups-ignored", "resume-differs"), lr=0.01)
class AdamWithTheRateOfItsConstructor(AdamW):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        super().update(p, g, {**group, "lr": self.defaults["lr"]})


@broken(CASES, "irregular-steps", lr=0.01)
class AdamEveryHundredthStepTwice(AdamW):
    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        twice = self.state[p].get("step", 0) % 100 == 99
        super().update(p, g, {**group, "lr": 2 * group["lr"]} if twice else group)
