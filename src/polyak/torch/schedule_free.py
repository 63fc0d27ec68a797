"""ScheduleFree in PyTorch."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Unpack

import torch
from torch import Tensor

from polyak.arguments import Common, check_learning_rate
from polyak.averaged import AverageSwitch, average_of
from polyak.averaging import warmed_up
from polyak.methods import SCHEDULE_FREE_METHOD
from polyak.torch.evaluation import watch
from polyak.torch.optimizer import Optimizer

# In the state of a parameter, what it is trained with while it holds the average.
_ASIDE = "trained"


class ScheduleFree(AverageSwitch, Optimizer):
    """Gradient descent whose average of the weights takes the place of a falling learning rate.

    Three sequences begin at the same weights. At each step

        z = z - lr * g                              g is the gradient at y
        x = (1 - c) * x + c * z                     c is 1 at the first step, 1 / t at step t
        y = (1 - momentum) * z + momentum * x

    The parameters are y. What is to be evaluated and used is x, which they are within `with optimizer.averaged()`. A module in
    eval mode that runs with y is warned of once (but not within torch.compile). The statistics of batch normalisation are those
    of y: let the model see some batches in train mode within the context. `polyak.rules.schedule_free` has the source.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`. A group's steps are counted from when it is added.
        lr: The learning rate, >= 0. It needs no scheduler: weights count in the average as if it had been constant since the
            warm-up.
        momentum: In (0, 1]: how far y leans towards x.
        warmup_steps: The learning rate goes up along a line and is `lr` from the step of this number on. Weights count in
            the average by the square of the learning rate.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`. The
            authors' decay is "coupled".

    Attributes:
        warned: Whether there was the warning; True keeps it from coming.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = ScheduleFree(model.named_parameters(), lr=1.0, warmup_steps=100)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
        >>> with optimizer.averaged():
        ...     prediction = model.eval()(torch.ones(4))
        >>> sorted(optimizer.averages())
        ['bias', 'weight']
    """

    _method = SCHEDULE_FREE_METHOD
    _beside_slots = (_ASIDE,)
    warned = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        *,
        warmup_steps: int = 0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum, "warmup_steps": warmup_steps}, **common)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters by their gradients, as `Momentum.step` does.

        Raises:
            RuntimeError: Within `averaged()`.
        """
        self._before_step()  # before the closure takes gradients
        return super().step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, within `averaged()` or not; see `Momentum.load_state_dict`.

        Of a state that was saved within, the parameters become what they were trained with when a module runs with them in
        train mode, whatever the model was loaded with.

        Raises:
            RuntimeError: Within `averaged()`.
            ValueError: The parameters, their shapes or the options do not fit.
        """
        if self._is_averaged:
            raise RuntimeError("A state cannot be loaded within `with optimizer.averaged()`. Load it before or after.")
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def averages(self) -> dict[str, Tensor]:
        """The averages by name, in new tensors of the parameters' dtypes: what is to be saved for use.

            model.load_state_dict(optimizer.averages(), strict=False)    # strict=False for buffers

        Raises:
            ValueError: The optimizer was made without names.
        """
        if not all("param_names" in group for group in self.param_groups):
            raise ValueError(
                "averages() gives the averages by name, and this optimizer knows none. Make it with model.named_parameters()."
            )
        return {
            name: self._average(p, group)
            for group in self.param_groups
            for name, p in zip(group["param_names"], group["params"], strict=True)
        }

    def sees(self, module: torch.nn.Module) -> None:
        """Called before a module runs: bring back the weights that are trained, or warn that they are evaluated."""
        if self._is_averaged or (self.warned and not module.training):
            return
        states = [self.state[p] for p in module.parameters(recurse=False) if p in self.state]
        aside = any(_ASIDE in state for state in states)
        if module.training and aside:
            self._bring_back()
        if states and not module.training and not aside:
            self.warned = True
            warnings.warn(
                f"{type(module).__name__} runs in eval mode with the weights at which {type(self).__name__} takes gradients. "
                "What is to be evaluated is their average: `with optimizer.averaged(): evaluate(model)`.",
                RuntimeWarning,
                stacklevel=4,
            )

    def _average(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state.get(p, {})
        w: Tensor = state.get(_ASIDE, p).detach()
        if "lead" not in state:  # no step yet
            return w.clone()
        lead: Tensor = state["lead"]
        average: Tensor = average_of(w.to(lead.dtype), lead, self._method.checked(group)["momentum"])
        return average.to(p.dtype)

    def _has_aside(self) -> bool:
        return any(_ASIDE in state for state in self.state.values())

    @torch.no_grad()
    def _put_aside(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if "lead" in self.state.get(p, {}):
                    average = self._average(p, group)
                    self.state[p].setdefault(_ASIDE, p.detach().clone())
                    p.copy_(average)

    @torch.no_grad()
    def _bring_back(self) -> None:
        for p, state in self.state.items():
            if (trained := state.pop(_ASIDE, None)) is not None:
                p.copy_(trained)

    def _of_step(self, group: dict[str, Any]) -> dict[str, float]:
        h = super()._of_step(group)
        lr, warmup_steps, step = group["lr"], group["warmup_steps"], group["count"]
        if warmup_steps > 1:
            h["learning_rate"] = warmed_up(lr, warmup_steps)(step) if step + 1 < warmup_steps else check_learning_rate(lr)
        return h

    def _look_for_changes(self) -> None:
        self._before_step()  # a step that another optimizer began
        super()._look_for_changes()

    def _forget(self) -> None:
        super()._forget()
        watch(self)
