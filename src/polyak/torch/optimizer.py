"""What the PyTorch front-ends of all methods have in common: groups, state and the step of a `torch.optim.Optimizer`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from operator import is_, itemgetter
from typing import Any, Literal

import torch
from torch import Tensor

from polyak.arguments import Finite, check_cautious, check_decay, not_finite
from polyak.methods import Method
from polyak.torch.guard import ELSEWHERE, TAKEN, Guard, Verdict, Work
from polyak.torch.loading import key_of, matched
from polyak.torch.options import COMMON, chosen, of_all_groups
from polyak.torch.running import Running
from polyak.torch.tensors import Group
from polyak.torch.views import compute_dtype, dense_gradient
from polyak.update import Update

Planned = list[tuple[Work, Mapping[str, float]]]  # what a step does, with the hyperparameters of each part


class Optimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that applies a method. A subclass names the method and takes its arguments.

    Args:
        params: Parameters, named parameters, or dicts with "params" and options of their own for a group.
        lr: The learning rate.
        arguments: The method's own arguments by name.
        weight_decay, decay, max_norm, maximize, cautious, cautious_decay, finite: As in `Momentum`.
    """

    _method: Method
    _given: tuple[Planned, Verdict] | None = None  # the next step, where another optimizer has judged it
    _beside_slots: tuple[str, ...] = ()  # what the state of a parameter may hold beside the rule's slots
    _decay: Literal["coupled", "decoupled"] | None = None  # the kind of decay, of a method that has only one

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
        common = (weight_decay, decay or self._decay, max_norm, maximize, cautious, cautious_decay, finite)
        super().__init__(params, {"lr": lr, **arguments, **dict(zip(COMMON, common, strict=True)), "count": 0})
        if not any(group["weight_decay"] for group in self.param_groups):
            check_decay(0.0, decay)
            check_cautious(False, any(group["cautious_decay"] for group in self.param_groups), None)
        self._guard = Guard()
        self._forget()

    # What is kept between steps.

    def _forget(self) -> None:
        """Begin the next step as the first."""
        self._guard.norm = None
        self._running: list[Running] = []
        self._options: list[tuple[Any, ...]] = []
        self._options_of = itemgetter("lr", *self._method.arguments, *COMMON)
        self._has_tensors = False
        self._bound: float | None = None
        self._finite: Finite = "off"
        self._states: list[Any] = []
        self._last_learning_rates: list[float] = []  # of the last step since this was made or loaded

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles."""
        return {**super().__getstate__(), "_guard": self._guard}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of copies, pickles and loaded states."""
        super().__setstate__(state)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; see `torch.optim.Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        try:
            self._choose(self.param_groups[-1])
            of_all_groups(self._own_groups())
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
        self._take(state_dict)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _take(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state over, or stay as it was after an error."""
        state, groups = matched(state_dict, self.param_groups, self._method, self._beside_slots)
        for group in groups:
            self._choose(group)
        self.__setstate__({"state": defaultdict(dict, state), "param_groups": groups})

    # What the guard has seen.

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients together at the last step, before it was limited; None without `max_norm`."""
        norm = self._guard.norm
        return None if norm is None else float(norm)

    @property
    def skipped(self) -> int:
        """How many steps were left out because a gradient was not finite; 0 with `finite="off"`.

        Raises:
            FloatingPointError: As `check_finite`.
        """
        self.check_finite()
        return self._guard.skipped

    def check_finite(self) -> None:
        """Report steps that were left out since this was last called; `skipped` and `state_dict` call it too.

        Of parameters in host memory `step` reports at once. Of others it does not know, since it waits for no device.

        Raises:
            FloatingPointError: With `finite="error"`, if there were some: names the parameters whose gradients were not finite.
        """
        self._guard.report(name for name, _ in self._named())

    def state_dict(self) -> dict[str, Any]:
        """The state and the options, to be saved; see `torch.optim.Optimizer.state_dict`.

        Raises:
            FloatingPointError: As `check_finite`.
        """
        self.check_finite()
        return super().state_dict()

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
        given, self._given = self._given, None
        if given:
            self._apply(*given)
            return
        self._look_for_changes()
        work = self._plan()
        if (verdict := self._judged(work)) is not None:
            self._apply(work, verdict)

    def _plan(self) -> Planned:
        """What a step does, which is counted."""
        work: Planned = []
        for i, group in enumerate(self._own_groups()):
            if self._method.of_step:  # then there is something new at each step
                self._running[i].hyperparameters = self._running[i].hyperparameters | self._of_step(group)
            if step := self._read(i, group):
                work.append((step, self._running[i].hyperparameters))
            group["count"] += 1
        return work

    def _of_step(self, group: dict[str, Any]) -> dict[str, float]:
        """Those of the hyperparameters that follow from the number of the step."""
        return self._method.at_step(group["count"], group)

    def _judged(self, work: Planned) -> Verdict | None:
        """What the guard says of a step; None if it is left out.

        Raises:
            FloatingPointError: It is left out, and that is an error.
        """
        if self._bound is None and self._finite == "off":
            return TAKEN
        step = self.param_groups[0]["count"] - 1
        of_all, params = [each for each, _ in work], (p for group in self.param_groups for p in group["params"])
        verdict = self._guard.look(of_all, self._bound, self._finite, step, params)
        if verdict is None and self._finite == "error":
            names = [name for name, p in self._named() if p.grad is not None and not dense_gradient(p.grad, p).isfinite().all()]
            raise FloatingPointError(not_finite(names or [ELSEWHERE], step))
        return verdict

    def _apply(self, work: Planned, verdict: Verdict) -> None:
        for step, h in work:
            if verdict is TAKEN:
                step.apply(h)
            else:
                step.apply({**h, "scale": verdict.scale * h["scale"]}, verdict.passes)
        self._last_learning_rates = [running.hyperparameters["learning_rate"] for running in self._running]

    def _own_groups(self) -> list[dict[str, Any]]:
        """The groups that this optimizer updates itself."""
        return self.param_groups

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
        groups = self._own_groups()
        options = [self._options_of(group) for group in groups]
        if options != self._options or self._has_tensors or len(self._running) != len(options):
            self._bound, self._finite = of_all_groups(self._own_groups())
            self._running = [self._run(group, old) for group, old in zip_longest(groups, self._running)]
            self._has_tensors = any(isinstance(value, Tensor) for values in options for value in values)
            self._options = options

    def _run(self, group: dict[str, Any], old: Running | None) -> Running:
        """What is kept of a group whose options may have changed."""
        update, hyperparameters = self._choose(group)
        if old is None or old.update is not update:
            return Running(update, hyperparameters, self._tensors(group, update), [], [])
        return replace(old, hyperparameters=hyperparameters)

    def _tensors(self, group: dict[str, Any], update: Update) -> Any:  # noqa: ARG002  (a subclass needs the group)
        """What reads the tensors of a group."""
        return Group(update)

    def _read(self, i: int, group: dict[str, Any]) -> Work | None:
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
            return running.group.read(weights, gradients, [])  # type: ignore[no-any-return]  # see Running
        try:
            slots = running.slots()
        except KeyError:  # taken out by somebody, so that it begins at zero again
            self._remember(running, weights)
            slots = running.slots()
        return running.group.read(weights, gradients, slots)  # type: ignore[no-any-return]  # see Running

    def _remember(self, running: Running, weights: list[Tensor]) -> None:
        running.weights, running.states = list(weights), [self._state_of(p, running.update) for p in weights]
        self._states = list(self.state.values())

    def _choose(self, group: dict[str, Any]) -> tuple[Update, dict[str, float]]:
        """The rule and the values for a group's options as they are now, or an error that says what is wrong with them."""
        # A momentum that a scheduler brings to 0 for a while still moves the velocity: it then is the last gradient.
        return chosen(self._method, group, remembers=any(self.state.get(p) for p in group["params"]))

    def _state_of(self, p: Tensor, update: Update) -> dict[str, Tensor]:
        """The state of a parameter; its slots begin at zero when they are first needed."""
        if not update.rule.slots:
            return {}
        state: dict[str, Tensor] = self.state[p]
        for key in map(key_of, update.rule.slots):
            if key not in state:
                state[key] = torch.zeros_like(p, dtype=compute_dtype(p.dtype), requires_grad=False)
        return state
