"""Optimizers of PyTorch whose state goes astray: between parameters, on loading, between instances."""

import copy
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from .cases import Case, broken
from .torch_sound import SGD, AdamW, Group

CASES: list[Case] = []
state = partial(broken, CASES, lr=0.1, momentum=0.9)


@state("parameters-mixed", also=("groups-ignored", "missing-gradient", "resume-differs", "state-by-position", "poison-spreads"))
class VelocityByShape(SGD):
    """Parameters of one shape have one velocity."""

    def slot(self, p: Tensor, name: str) -> Tensor:
        return self.state[tuple(p.shape)].setdefault(name, torch.zeros_like(p))


@state("parameters-mixed", also=("groups-ignored", "missing-gradient", "resume-differs", "state-by-position", "poison-spreads"))
class VelocityBySize(SGD):
    """Parameters of as many elements, as a matrix and its transpose."""

    def slot(self, p: Tensor, name: str) -> Tensor:
        return self.state[p.numel()].setdefault(name, torch.zeros(p.numel(), dtype=p.dtype)).view(p.shape)


@state("parameters-mixed", also=("groups-ignored", "missing-gradient", "resume-differs", "state-by-position", "poison-spreads"))
class VelocityOfAll(SGD):
    """One velocity, as long as the longest parameter yet."""

    def slot(self, p: Tensor, name: str) -> Tensor:
        shared = self.state["all"].get(name, torch.zeros(0, dtype=p.dtype))
        more = p.numel() - shared.numel()
        if more > 0:
            shared = torch.cat([shared, torch.zeros(more, dtype=p.dtype)])
        self.state["all"][name] = shared
        return shared[: p.numel()].view(p.shape)


@state("parameters-mixed", also=("missing-gradient", "shape-fails", "state-by-position"))
class RateByThePosition(SGD):
    """Later parameters are slower: meant for layers, and it counts parameters."""

    def step_group(self, params: list[Tensor], group: Group) -> None:
        for i, p in enumerate(params):
            self.update(p, self.gradient(p), {**group, "lr": group["lr"] * 0.9**i})


@broken(CASES, "parameters-mixed", also=("groups-ignored", "missing-gradient", "resume-differs", "state-by-position"))
class OneCountForAllParameters(AdamW):
    """Which each of them raises: the bias corrections are those of later steps."""

    def count(self, p: Tensor) -> int:  # noqa: ARG002
        step: int = self.state["all"].get("step", 0) + 1
        self.state["all"]["step"] = step
        return step


@state("state-by-position")
class LoadedByPosition(SGD):
    """As all of torch.optim."""

    load_state_dict = torch.optim.Optimizer.load_state_dict


@state("resume-differs", also=("state-by-position",))
class VelocityForgottenOnLoading(SGD):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "state": {}})


@state("resume-differs", also=("copy-shares-state", "state-by-position"))
class VelocityNotSaved(SGD):
    """Kept beside what torch saves."""

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay)
        self.velocities: dict[Tensor, Tensor] = {}

    def slot(self, p: Tensor, name: str) -> Tensor:  # noqa: ARG002  (there is one)
        return self.velocities.setdefault(p, torch.zeros_like(p))


@broken(CASES, "resume-differs")
class CountNotSaved(AdamW):
    """The bias correction begins again."""

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        each = {p: {k: v for k, v in slots.items() if k != "step"} for p, slots in saved["state"].items()}
        return {**saved, "state": each}


@state("resume-differs", also=("state-by-position",))
class LoadedVelocityScaledByTheRate(SGD):
    """Converted from the convention of another framework, which it is not in."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for p in group["params"]:
                self.slot(p, "velocity").div_(group["lr"])


@state("resume-differs", also=("option-effect", "change-ignored", "schedule-ignored"))
class OptionsNotLoaded(SGD):
    """The rate is that of the constructor again."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rates = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, lr in zip(self.param_groups, rates, strict=True):
            group["lr"] = lr


@state("state-dtype", also=("resume-differs",))
class VelocityInSinglePrecisionUntilLoaded(SGD):
    """torch's own loading gives it the dtype of the parameter."""

    def slot(self, p: Tensor, name: str) -> Tensor:
        return self.state[p].setdefault(name, torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)))

    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        v = self.slot(p, "velocity")
        return super().remember(p, g.to(v.dtype), group)


@state("state-dtype", also=("resume-differs", "state-by-position"))
class StateInSinglePrecisionOnLoading(SGD):
    """Whatever it was in."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for slots in self.state.values():
            for name, value in slots.items():
                slots[name] = value.to(torch.float32)

    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        v = self.slot(p, "velocity")
        return super().remember(p, g.to(v.dtype), group).to(p.dtype)


@state("instances-share-state", also=("resume-differs", "copy-shares-state", "state-by-position"))
class VelocityOfTheClass(SGD):
    """By the number of the parameter; each new instance begins with none."""

    velocities: ClassVar[dict[int, Tensor]] = {}

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay)
        self.velocities.clear()

    def slot(self, p: Tensor, name: str) -> Tensor:  # noqa: ARG002  (there is one)
        number = [id(q) for group in self.param_groups for q in group["params"]].index(id(p))
        return self.velocities.setdefault(number, torch.zeros_like(p))


@state(
    "instances-share-state",
    also=("groups-ignored", "resume-differs", "copy-shares-state", "change-ignored", "schedule-ignored"),
)
class RateOfTheClass(SGD):
    """The last instance that was made sets it for all."""

    lr: ClassVar[float] = 0.1

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.9, dampening: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay)
        type(self).lr = lr

    def step_group(self, params: list[Tensor], group: Group) -> None:
        super().step_group(params, {**group, "lr": self.lr})


@state("copy-shares-state")
class CopyWithTheSameVelocity(SGD):
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        new = copy.copy(self)
        new.param_groups = copy.deepcopy(self.param_groups, memo)
        new.state = type(self.state)(dict)
        for p, slots in self.state.items():
            new.state[memo[id(p)]] = slots
        return new


@state("copy-shares-state")
class PickledWithoutVelocity(SGD):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": type(self.state)(dict)}
