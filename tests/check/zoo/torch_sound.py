"""Optimizers of PyTorch that are as they should be, with steps made of small methods: a broken one overrides one of them."""

from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


class Sound(torch.optim.Optimizer):
    """What the three share: a loop over parameters that have a gradient, and state that follows the names of its parameters."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.step_group([p for p in group["params"] if p.grad is not None], group)
        return loss

    def step_group(self, params: list[Tensor], group: Group) -> None:
        for p in params:
            self.update(p, self.gradient(p), group)

    def gradient(self, p: Tensor) -> Tensor:
        return p.grad.to_dense() if p.grad.is_sparse else p.grad

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        raise NotImplementedError

    def slot(self, p: Tensor, name: str) -> Tensor:
        if name not in self.state[p]:
            self.state[p][name] = torch.zeros_like(p)
        return self.state[p][name]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = []
        for own, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            names, saved_names = own.get("param_names"), saved.get("param_names")
            if names is None or saved_names is None:
                groups.append(saved)
            elif sorted(names) != sorted(saved_names):
                raise ValueError(
                    f"the state is that of {saved_names}, the parameters are {names}: give both in the same groups"
                )
            else:
                numbers = dict(zip(saved_names, saved["params"], strict=True))
                groups.append({**saved, "params": [numbers[n] for n in names], "param_names": list(names)})
        super().load_state_dict({**state_dict, "param_groups": groups})


class SGD(Sound):
    """v = m v + (1 - d) g from the first step on; w -= lr v, or lr (m v + (1 - d) g) with the new v for Nesterov's."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
        decoupled_weight_decay: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "decoupled_weight_decay": decoupled_weight_decay,
                **more,
            },
        )

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        g = self.decay(p, g, group)
        v = self.remember(p, g, group)
        self.move(p, self.direction(v, g, group), group)

    def decay(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        """The gradient with coupled decay; decoupled decay is done to the weight."""
        if not group["decoupled_weight_decay"]:
            return g.add(p, alpha=group["weight_decay"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        return g

    def remember(self, p: Tensor, g: Tensor, group: Group) -> Tensor:
        return self.slot(p, "velocity").mul_(group["momentum"]).add_(g, alpha=1 - group["dampening"])

    def direction(self, v: Tensor, g: Tensor, group: Group) -> Tensor:
        return g.mul(1 - group["dampening"]).add_(v, alpha=group["momentum"]) if group["nesterov"] else v

    def move(self, p: Tensor, direction: Tensor, group: Group) -> None:
        p.sub_(direction, alpha=group["lr"])


class SGDOfLists(SGD):
    """With a second implementation, which takes all parameters of a group at once."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool = False,
    ) -> None:
        same = {"nesterov": nesterov, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, lr, momentum, dampening, weight_decay, **same, foreach=foreach)

    def step_group(self, params: list[Tensor], group: Group) -> None:
        if group["foreach"]:
            self.update_list(params, group)
        else:
            super().step_group(params, group)

    def update_list(self, params: list[Tensor], group: Group) -> None:
        if not params:
            return
        gs = [self.gradient(p) for p in params]
        if group["decoupled_weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        else:
            gs = list(torch._foreach_add(gs, params, alpha=group["weight_decay"]))
        vs = [self.slot(p, "velocity") for p in params]
        torch._foreach_mul_(vs, group["momentum"])
        torch._foreach_add_(vs, gs, alpha=1 - group["dampening"])
        if group["nesterov"]:
            gs = list(torch._foreach_mul(gs, 1 - group["dampening"]))
            torch._foreach_add_(gs, vs, alpha=group["momentum"])
            vs = gs
        torch._foreach_sub_(params, vs, alpha=group["lr"])


class Lion(Sound):
    """w -= lr (sign(b1 v + (1 - b1) g) + wd w); v = b2 v + (1 - b2) g. Chen et al. 2023.

    Args:
        params: As of all.
        lr: The size of a step.
        betas: b1 and b2.
        weight_decay: Decoupled from the gradient.
    """

    def __init__(
        self, params: Any, lr: float = 0.01, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        b1, b2 = group["betas"]
        p.mul_(1 - group["lr"] * group["weight_decay"])
        v = self.slot(p, "average")
        p.sub_(self.sign(v * b1 + g * (1 - b1)), alpha=group["lr"])
        v.mul_(b2).add_(g, alpha=1 - b2)

    def sign(self, c: Tensor) -> Tensor:
        return c.sign()


class AdamW(Sound):
    """Loshchilov and Hutter 2019, with `decoupled_weight_decay=False` Kingma and Ba 2015 with decay in the gradient."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def update(self, p: Tensor, g: Tensor, group: Group) -> None:
        b1, b2 = group["betas"]
        if group["decoupled_weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        else:
            g = g.add(p, alpha=group["weight_decay"])
        t = self.count(p)
        mean = self.slot(p, "mean").mul_(b1).add_(g, alpha=1 - b1)
        square = self.slot(p, "square").mul_(b2).add_(self.squared(g), alpha=1 - b2)
        size = (square / (1 - b2**t)).sqrt_().add_(group["eps"])
        p.addcdiv_(mean, size, value=-group["lr"] / (1 - b1**t))

    def squared(self, g: Tensor) -> Tensor:
        return g.square()

    def count(self, p: Tensor) -> int:
        """The number of this step of the parameter, from 1."""
        step: int = self.state[p].get("step", 0) + 1
        self.state[p]["step"] = step
        return step
