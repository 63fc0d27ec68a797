"""ScheduleFree for NumPy arrays."""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from polyak.arguments import Common
from polyak.averaged import AverageSwitch, average_of
from polyak.averaging import warmed_up
from polyak.methods import SCHEDULE_FREE_METHOD
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class ScheduleFree(AverageSwitch, Optimizer):
    """Gradient descent whose average of the weights takes the place of a falling learning rate.

    Three sequences begin at the same weights. At each step

        z = z - lr * g                              g is the gradient at y
        x = (1 - c) * x + c * z                     c is 1 at the first step, 1 / t at step t
        y = (1 - momentum) * z + momentum * x

    Your arrays hold y. What is to be evaluated and used is x, which they hold within `with optimizer.averaged()`, where a step
    is a RuntimeError; arrays cannot tell what you use them for, so forgetting it goes unseen. `polyak.rules.schedule_free` has
    the source.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0. It needs no schedule but the warm-up.
        momentum: In (0, 1]: how far y leans towards x.
        warmup_steps: The learning rate goes up along a line and is `lr` from the step of this number on. It is a schedule then,
            which cannot be assigned. Weights count in the average by the square of the learning rate.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`. The
            authors' decay is "coupled".

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, a warm-up of a schedule.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0, -2.0])
        >>> optimizer = ScheduleFree({"w": w}, lr=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> with optimizer.averaged():
        ...     print(w)
        [ 1.5  -0.75]
        >>> w
        array([ 1.25 , -0.625])
    """

    _method = SCHEDULE_FREE_METHOD
    momentum = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 1.0,
        momentum: Number = 0.9,
        *,
        warmup_steps: int = 0,
        **common: Unpack[Common],
    ) -> None:
        self._aside: dict[str, Array] = {}
        arguments = {"momentum": momentum, "warmup_steps": warmup_steps}
        super().__init__(params, warmed_up(lr, warmup_steps), arguments, **common)

    def averages(self) -> dict[str, Array]:
        """The averages by name, in new arrays: what is to be saved for use. The momentum is that of the next step."""
        leads = self._slots["lead"]
        return {name: average_of(self._aside.get(name, w), leads[name], self.momentum) for name, w in self._params.items()}

    def _has_aside(self) -> bool:
        return bool(self._aside)

    def _put_aside(self) -> None:
        averages = self.averages()
        self._aside = self._aside or {name: w.copy() for name, w in self._params.items()}
        for name, average in averages.items():
            np.copyto(self._params[name], average)

    def _bring_back(self) -> None:
        for name, w in self._aside.items():
            np.copyto(self._params[name], w)
        self._aside = {}

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which are not within a context."""
        return {name: value for name, value in super().__getstate__().items() if name != "_is_averaged"}
