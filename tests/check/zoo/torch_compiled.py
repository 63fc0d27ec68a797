"""Optimizers of PyTorch that are as they should be, but not under `torch.compile`."""

from functools import partial

import torch
from torch import Tensor

from .cases import Case, broken
from .torch_sound import SGD, Group

CASES: list[Case] = []
compiled = partial(broken, CASES, lr=0.1, momentum=0.9)


@compiled("recompiles")
class CorrectionFromAList(SGD):
    """As of the first steps of Adam, looked up by the number of the step: each number is another program."""

    corrections = [1 / (1 - 0.5**step) for step in range(1, 1000)]  # noqa: RUF012  (as people write it)

    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        step = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        p.sub_(direction * (group["lr"] * self.corrections[min(step, 999) - 1]))


@compiled("implementations-differ", also=("change-ignored",))
class MomentumIsLeftOut(SGD):
    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return g if torch.compiler.is_compiling() else super().remember(p, g, group)


@compiled("change-ignored")
class RateOfTheConstructor(SGD):
    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.sub_(direction, alpha=self.defaults["lr"] if torch.compiler.is_compiling() else group["lr"])
