"""`polyak.torch.Momentum`: the rule as a `torch.optim.Optimizer`."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import is_, itemgetter
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from polyak.arguments import check_dampening, check_decay, check_learning_rate, check_max_norm, check_momentum
from polyak.rules import heavy_ball
from polyak.torch.distributed import total
from polyak.torch.loading import SLOT, matched
from polyak.torch.tensors import Group, Step
from polyak.torch.views import compute_dtype
from polyak.update import Update, clip_scale, pipeline

_OPTIONS = ("lr", "momentum", "nesterov", "velocity", "dampening", "weight_decay", "decay", "maximize", "max_norm")
_options_of = itemgetter(*_OPTIONS)


@dataclass
class _Running:
    """What is kept of a parameter group from step to step."""

    update: Update
    hyperparameters: dict[str, float]
    group: Group
    weights: list[Tensor]  # those that had a gradient
    states: list[dict[str, Tensor]]


class Momentum(Optimizer):
    """Gradient descent with momentum.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - lr * v

    It takes the place of torch.optim.SGD, whose state_dict it loads. Weights of float32 and float64 in host memory are updated
    in one pass by compiled code; all others by the same rule in torch operations. For float16 and bfloat16 the velocity is
    float32 and so is the arithmetic. Gradients are never written to; parameters without one are left alone.

    Args:
        params: Parameters, named parameters, or dicts with "params" and options of their own for a group. Every option below
            but `max_norm` may differ between groups, and is read anew at each step, so that schedulers may change it.
        lr: The learning rate, >= 0; a number or a tensor without dimensions.
        momentum: In [0, 1): how much of the velocity survives a step. With 0 this is gradient descent, without a velocity.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
            "gradient": v = m v + (1 - dampening) g, w = w - lr v. As in torch.optim.SGD.
            "step": v = m v + lr (1 - dampening) g, w = w - v. Past steps keep the learning rate that they were taken with.
            "average": v = v + (1 - m) (g - v), w = w - lr v. An average of gradients.
        dampening: In [0, 1): the part of each gradient that is kept out of the velocity. From the first gradient on, of which
            torch.optim.SGD takes the whole.
        weight_decay: A coefficient >= 0, together with `decay`. A group may set it to 0.
        decay: "coupled" adds weight_decay * w to the gradient, as torch.optim.SGD does with its weight_decay. "decoupled"
            takes lr * weight_decay * w from the weight beside the step, as AdamW does.
        max_norm: The gradients are scaled so that the norm of all of them together, over all groups and all shards, is at most
            this. `grad_norm` tells what it was. A norm that is not finite is not hidden: see `polyak.update.clip_scale`.
        maximize: Go up the gradient instead of down.

    Attributes:
        grad_norm: The norm of all gradients together at the last step, before it was limited; None without `max_norm`.

    Raises:
        ValueError: A number out of its range, weight_decay without decay, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = Momentum(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        momentum: float = 0.9,
        *,
        nesterov: bool = False,
        velocity: Literal["gradient", "step", "average"] = "gradient",
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        decay: Literal["coupled", "decoupled"] | None = None,
        max_norm: float | None = None,
        maximize: bool = False,
    ) -> None:
        values = (lr, momentum, nesterov, velocity, dampening, weight_decay, decay, maximize, max_norm)
        super().__init__(params, dict(zip(_OPTIONS, values, strict=True)))
        if not any(group["weight_decay"] for group in self.param_groups):
            check_decay(0.0, decay)
        self._forget()

    # What is kept between steps.

    def _forget(self) -> None:
        """Begin the next step as the first."""
        self.grad_norm: float | None = None
        self._running: list[_Running] = []
        self._options: list[tuple[Any, ...]] = []
        self._has_tensors = False
        self._bound: float | None = None
        self._states: list[Any] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of copies, pickles and loaded states."""
        super().__setstate__(state)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; see `torch.optim.Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        try:
            self._choose(self.param_groups[-1])
            _max_norm(self.param_groups)
        except (ValueError, TypeError):
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of this optimizer, or of torch.optim.SGD, returned.

        The saved options take the place of this optimizer's, as in every torch optimizer; those that SGD does not have stay.
        Where both have named parameters, the state is found by name, whatever the order. No slot changes its dtype.

        Args:
            state_dict: It is copied, not kept.

        Raises:
            ValueError: The parameters, their shapes or the options do not fit; all parameters that do not are listed.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        state, groups = matched(state_dict, self.param_groups)
        for group in groups:
            self._choose(group)
        self.__setstate__({"state": defaultdict(dict, state), "param_groups": groups})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    # The step.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters by their gradients.

        Args:
            closure: Computes the loss and the gradients anew, and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():  # the kernel is compiled already, and torch cannot trace it
            torch.compiler.disable(self._step)()  # type: ignore[no-untyped-call]
        else:
            self._step()
        return loss

    def _step(self) -> None:
        self._look_for_changes()
        work = []
        for i, group in enumerate(self.param_groups):
            if step := self._read(i, group):
                work.append((step, self._running[i].hyperparameters))
        if self._bound is not None:
            self.grad_norm = math.sqrt(total([step.sum_of_squares() for step, _ in work]))
            scale = clip_scale(self.grad_norm, self._bound)
            work = [(step, {**h, "scale": scale * h["scale"]}) for step, h in work]
        for step, h in work:
            step.apply(h)

    def _look_for_changes(self) -> None:
        """See what another may have changed since the last step: options, groups, the state."""
        states = self.state.values()
        if len(states) != len(self._states) or not all(map(is_, states, self._states)):
            self._running = []
        options = [_options_of(group) for group in self.param_groups]
        if options != self._options or self._has_tensors or len(self._running) != len(options):
            self._bound = _max_norm(self.param_groups)
            self._running = [self._run(group, old) for group, old in zip_longest(self.param_groups, self._running)]
            self._has_tensors = any(isinstance(value, Tensor) for values in options for value in values)
            self._options = options

    def _run(self, group: dict[str, Any], old: _Running | None) -> _Running:
        """What is kept of a group whose options may have changed."""
        update, hyperparameters = self._choose(group)
        if old is None or old.update is not update:
            return _Running(update, hyperparameters, Group(update), [], [])
        return replace(old, hyperparameters=hyperparameters)

    def _read(self, i: int, group: dict[str, Any]) -> Step | None:
        """The tensors of a group that take part in this step."""
        weights = group["params"]
        gradients = [g for p in weights if (g := p.grad) is not None]
        if len(gradients) < len(weights):
            weights = [p for p in weights if p.grad is not None]
            if not weights:
                return None
        running = self._running[i]
        if len(weights) != len(running.weights) or not all(map(is_, weights, running.weights)):
            self._remember(running, weights)
        if not running.update.rule.slots:
            return running.group.read(weights, gradients, [])
        try:
            slots = [state[SLOT] for state in running.states]
        except KeyError:  # taken out by somebody, so that it begins at zero again
            self._remember(running, weights)
            slots = [state[SLOT] for state in running.states]
        return running.group.read(weights, gradients, [slots])

    def _remember(self, running: _Running, weights: list[Tensor]) -> None:
        running.weights, running.states = list(weights), [self._state_of(p, running.update) for p in weights]
        self._states = list(self.state.values())

    def _choose(self, group: dict[str, Any]) -> tuple[Update, dict[str, float]]:
        """The rule and the values for a group's options as they are now, or an error that says what is wrong with them."""
        momentum = check_momentum(group["momentum"])
        dampening = check_dampening(group["dampening"])
        # A momentum that a scheduler brings to 0 for a while still moves the velocity: it then is the last gradient.
        remembers = momentum != 0 or any(SLOT in self.state.get(p, ()) for p in group["params"])
        rule = heavy_ball(momentum=remembers, velocity=group["velocity"], nesterov=group["nesterov"], dampening=dampening)
        weight_decay = group["weight_decay"]
        weight_decay, decay = check_decay(weight_decay, group["decay"] if weight_decay else None)
        scaled = group["maximize"] or check_max_norm(group["max_norm"]) is not None
        return pipeline(rule, decay, scale=bool(scaled)), {
            "learning_rate": check_learning_rate(group["lr"]),
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "scale": -1.0 if group["maximize"] else 1.0,
        }

    def _state_of(self, p: Tensor, update: Update) -> dict[str, Tensor]:
        """The state of a parameter; its slot begins at zero when it is first needed."""
        if not update.rule.slots:
            return {}
        state: dict[str, Tensor] = self.state[p]
        if SLOT not in state:
            state[SLOT] = torch.zeros_like(p, dtype=compute_dtype(p.dtype), requires_grad=False)
        return state


def _max_norm(groups: list[dict[str, Any]]) -> float | None:
    """The bound, which is one for all groups."""
    bound: float | None = groups[0]["max_norm"]
    if any(group["max_norm"] != bound for group in groups):
        raise ValueError(
            f"max_norm bounds the norm of the gradients of all groups together, so it must be the same in all of them; got "
            f"{[group['max_norm'] for group in groups]}."
        )
    return bound
