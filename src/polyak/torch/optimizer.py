"""What the PyTorch front-ends of all methods have in common: groups, state and the step of a `torch.optim.Optimizer`."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import is_, itemgetter
from typing import Any, Literal

import torch
from torch import Tensor

from polyak.arguments import check_cautious, check_decay, check_finite, check_learning_rate, check_max_norm, not_finite
from polyak.methods import Method
from polyak.torch.distributed import total
from polyak.torch.loading import key_of, matched
from polyak.torch.tensors import Group, Step
from polyak.torch.views import compute_dtype, dense_gradient
from polyak.update import Update, clip_scale, pipeline

# Every group has the arguments of its method, and these.
COMMON = ("weight_decay", "decay", "max_norm", "maximize", "cautious", "cautious_decay", "finite")


@dataclass
class _Running:
    """What is kept of a parameter group from step to step."""

    update: Update
    hyperparameters: dict[str, float]
    group: Group
    weights: list[Tensor]  # those that had a gradient
    states: list[dict[str, Tensor]]

    def slots(self) -> list[list[Tensor]]:
        """For each slot of the rule the tensors of these weights."""
        keys = [key_of(slot) for slot in self.update.rule.slots]
        return [[state[key] for state in self.states] for key in keys]


class Optimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that applies a method. A subclass names the method and takes its arguments.

    Args:
        params: Parameters, named parameters, or dicts with "params" and options of their own for a group.
        lr: The learning rate.
        arguments: The method's own arguments by name.
        weight_decay, decay, max_norm, maximize, cautious, cautious_decay, finite: As in `Momentum`.
    """

    _method: Method
    _beside_slots: tuple[str, ...] = ()  # what the state of a parameter may hold beside the rule's slots

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        arguments: Mapping[str, Any],
        *,
        weight_decay: float = 0.0,
        decay: Literal["coupled", "decoupled"] | None = None,
        max_norm: float | None = None,
        maximize: bool = False,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Literal["error", "skip", "off"] = "off",
    ) -> None:
        common = (weight_decay, decay, max_norm, maximize, cautious, cautious_decay, finite)
        super().__init__(params, {"lr": lr, **arguments, **dict(zip(COMMON, common, strict=True)), "count": 0})
        if not any(group["weight_decay"] for group in self.param_groups):
            check_decay(0.0, decay)
        self.skipped = 0
        """How many steps were left out because a gradient was not finite; 0 with `finite="off"`."""
        self._forget()

    # What is kept between steps.

    def _forget(self) -> None:
        """Begin the next step as the first."""
        self.grad_norm: float | None = None
        self._running: list[_Running] = []
        self._options: list[tuple[Any, ...]] = []
        step = ("count",) if self._method.of_step else ()  # then there is something new at each step
        self._options_of = itemgetter("lr", *self._method.arguments, *COMMON, *step)
        self._has_tensors = False
        self._bound: float | None = None
        self._finite = "off"
        self._states: list[Any] = []
        self._last_learning_rates: list[float] = []  # of the last step since this was made or loaded

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles."""
        return {**super().__getstate__(), "skipped": self.skipped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of copies, pickles and loaded states."""
        super().__setstate__(state)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; see `torch.optim.Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        try:
            self._choose(self.param_groups[-1])
            self._of_all_groups()
        except (ValueError, TypeError):
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of such an optimizer returned; `Momentum` loads that of torch.optim.SGD too.

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
        state, groups = matched(state_dict, self.param_groups, self._method, self._beside_slots)
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
            torch.compiler.disable(self._step)()  # type: ignore[no-untyped-call]  # torch's, without types
        else:
            self._step()
        return loss

    def _step(self) -> None:
        self._look_for_changes()
        work = []
        for i, group in enumerate(self.param_groups):
            if step := self._read(i, group):
                work.append((step, self._running[i].hyperparameters))
            group["count"] += 1
        if self._bound is not None or self._finite != "off":
            norm = math.sqrt(total([step.sum_of_squares() for step, _ in work]))
            if self._finite != "off" and not math.isfinite(norm):
                self._skip()
                return
            if self._bound is not None:
                self.grad_norm = norm
                scale = clip_scale(norm, self._bound)
                work = [(step, {**h, "scale": scale * h["scale"]}) for step, h in work]
        for step, h in work:
            step.apply(h)
        self._last_learning_rates = [running.hyperparameters["learning_rate"] for running in self._running]

    def _skip(self) -> None:
        self.skipped += 1
        if self._finite == "error":
            names = [name for name, p in self._named() if p.grad is not None and not dense_gradient(p.grad, p).isfinite().all()]
            raise FloatingPointError(not_finite(names, self.param_groups[0]["count"] - 1))

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters with their names or, where they have none, their places and shapes."""
        for i, group in enumerate(self.param_groups):
            for k, p in enumerate(group["params"]):
                named = "param_names" in group
                yield group["param_names"][k] if named else f"group {i}, parameter {k} of shape {tuple(p.shape)}", p

    def _look_for_changes(self) -> None:
        """See what another may have changed since the last step: options, groups, the state."""
        states = self.state.values()
        if len(states) != len(self._states) or not all(map(is_, states, self._states)):
            self._running = []
        options = [self._options_of(group) for group in self.param_groups]
        if options != self._options or self._has_tensors or len(self._running) != len(options):
            self._bound, self._finite = self._of_all_groups()
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
            slots = running.slots()
        except KeyError:  # taken out by somebody, so that it begins at zero again
            self._remember(running, weights)
            slots = running.slots()
        return running.group.read(weights, gradients, slots)

    def _remember(self, running: _Running, weights: list[Tensor]) -> None:
        running.weights, running.states = list(weights), [self._state_of(p, running.update) for p in weights]
        self._states = list(self.state.values())

    def _choose(self, group: dict[str, Any]) -> tuple[Update, dict[str, float]]:
        """The rule and the values for a group's options as they are now, or an error that says what is wrong with them."""
        arguments = self._method.checked(group)
        # A momentum that a scheduler brings to 0 for a while still moves the velocity: it then is the last gradient.
        remembers = any(self.state.get(p) for p in group["params"])
        rule = self._method.choose(**{**arguments, **dict.fromkeys(self._method.varying if remembers else ())})
        weight_decay = group["weight_decay"]
        weight_decay, decay = check_decay(weight_decay, group["decay"] if weight_decay else None)
        careful = group["cautious_decay"] and bool(weight_decay)  # a group may have no decay to be cautious with
        check_cautious(group["cautious"], careful, decay)
        by_signs = self._method.signs or group["cautious"] or careful
        if by_signs and (shapes := [tuple(p.shape) for p in group["params"] if p.is_complex()]):
            who = self._method.name if self._method.signs else "A cautious option"
            raise TypeError(
                f"{who} goes by signs, which complex numbers do not have; parameters of shapes {shapes} are complex."
            )
        check_finite(group["finite"])
        scaled = group["maximize"] or check_max_norm(group["max_norm"]) is not None
        update = pipeline(rule, decay, scale=scaled, cautious=group["cautious"], cautious_decay=careful)
        return update, {
            "learning_rate": check_learning_rate(group["lr"]),
            **self._method.numbers(arguments),
            **self._method.at_step(group["count"], arguments),
            "weight_decay": weight_decay,
            "scale": -1.0 if group["maximize"] else 1.0,
        }

    def _state_of(self, p: Tensor, update: Update) -> dict[str, Tensor]:
        """The state of a parameter; its slots begin at zero when they are first needed."""
        if not update.rule.slots:
            return {}
        state: dict[str, Tensor] = self.state[p]
        for key in map(key_of, update.rule.slots):
            if key not in state:
                state[key] = torch.zeros_like(p, dtype=compute_dtype(p.dtype), requires_grad=False)
        return state

    def _of_all_groups(self) -> tuple[float | None, str]:
        """The bound of the norm and what becomes of gradients that are not finite, which are one for all groups."""
        for name, of_all in (("max_norm", "bounds the norm of"), ("finite", "looks at")):
            given = [group[name] for group in self.param_groups]
            if any(value != given[0] for value in given):
                raise ValueError(
                    f"{name} {of_all} the gradients of all groups together, so it must be the same in all of them; got {given}."
                )
        group = self.param_groups[0]
        return group["max_norm"], group["finite"]
