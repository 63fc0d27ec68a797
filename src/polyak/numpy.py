"""Momentum for NumPy arrays: for people who write their own gradients, and the simplest front-end to read.

params = {"w": np.zeros((3, 2)), "b": np.zeros(2)}
optimizer = polyak.numpy.Momentum(params, lr=0.1)
optimizer.step({"w": grad_w, "b": grad_b})      # params now hold the new weights
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from polyak.arguments import check_dampening, check_decay, check_learning_rate, check_max_norm, check_momentum
from polyak.compile import Table, address, kernel, sum_of_squares, threads
from polyak.rules import heavy_ball
from polyak.update import clip_scale, pipeline

__all__ = ["Momentum"]

Array = npt.NDArray[Any]


class Momentum:
    """Gradient descent with momentum, on arrays that are updated in place.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - lr * v

    Args:
        params: The weights by name: float32 or float64 arrays of any shape. They are updated in place, so keep using them.
        lr: The learning rate, a number >= 0. `optimizer.lr = x` holds from the next step on.
        momentum: In [0, 1): how much of the velocity survives a step. Assignable like `lr`. With 0 this is gradient descent,
            and there is no velocity.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
        dampening: In [0, 1): the part of each gradient, from the first on, that is kept out of the velocity.
        weight_decay: A coefficient >= 0, together with `decay`.
        decay: "coupled" adds weight_decay * w to the gradient; "decoupled" takes lr * weight_decay * w from the weight.
        max_norm: The gradients are scaled so that the norm of all of them together is at most this; see `grad_norm`.
        maximize: Go up the gradient instead of down.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, an array that cannot be updated.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0])
        >>> optimizer = Momentum({"w": w}, lr=0.25, momentum=0.5)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> optimizer.step({"w": w})
        >>> w, optimizer.slots["velocity"]["w"]
        (array([1.75]), array([5.]))
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: float = 0.01,
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
        self._params = _checked_params(params)
        self._lr = check_learning_rate(lr)
        self._momentum = check_momentum(momentum)
        self._weight_decay, self._decay = check_decay(weight_decay, decay)
        self._max_norm = check_max_norm(max_norm)
        self._maximize = maximize
        self._options = {"nesterov": nesterov, "velocity": velocity, "dampening": check_dampening(dampening)}
        self._slots: dict[str, dict[str, Array]] = {}
        self.grad_norm: float | None = None
        """The norm of all gradients of the last step together, before it was limited; None without `max_norm`."""
        self._make_rule()

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_learning_rate(value)

    @property
    def momentum(self) -> float:
        """The momentum of the next step."""
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum = check_momentum(value)
        if value and not self._slots:
            self._make_rule()

    @property
    def slots(self) -> Mapping[str, Mapping[str, Array]]:
        """The state: for each slot of the rule, the arrays by the names of the parameters."""
        return MappingProxyType({slot: MappingProxyType(arrays) for slot, arrays in self._slots.items()})

    def _make_rule(self) -> None:
        """Choose the rule, make its slots, and lay out the tables that the kernels read, one for each dtype."""
        rule = heavy_ball(momentum=self._momentum != 0, **self._options)  # type: ignore[arg-type]
        self._slots = {slot: {name: np.zeros_like(w, order="C") for name, w in self._params.items()} for slot in rule.slots}
        self._update = pipeline(rule, self._decay, scale=self._maximize or self._max_norm is not None)
        self._names: dict[str, list[str]] = {}
        for name, w in self._params.items():
            self._names.setdefault(w.dtype.name, []).append(name)
        self._tables = {dtype: self._table(names) for dtype, names in self._names.items()}

    def _table(self, names: list[str]) -> Table:
        rows = [self._params, *self._slots.values()]
        return Table([self._params[name].size for name in names], [[address(row[name]) for name in names] for row in rows])

    def step(self, grads: Mapping[str, Array]) -> None:
        """Update the parameters in place.

        Args:
            grads: The gradient of each parameter by its name, in the parameter's shape and dtype. They are only read.

        Raises:
            ValueError: Other names than those of the parameters, or a gradient of another shape.
            TypeError: A gradient of another dtype, or that is no array.
        """
        contiguous = self._checked_grads(grads)
        gradients = {dtype: [address(contiguous[name]) for name in names] for dtype, names in self._names.items()}
        h = {"learning_rate": self._lr, "momentum": self._momentum, "dampening": self._options["dampening"]}
        h |= {"weight_decay": self._weight_decay, "scale": -1.0 if self._maximize else 1.0}
        if self._max_norm is not None:
            self.grad_norm = self._norm(gradients)
            h["scale"] *= clip_scale(self.grad_norm, self._max_norm)  # type: ignore[operator]
        for dtype, table in self._tables.items():
            kernel(self._update, dtype)(table, gradients[dtype], h, threads=threads.available())  # type: ignore[arg-type]

    def _norm(self, gradients: Mapping[str, list[int]]) -> float:
        n = threads.available()
        sums = [sum_of_squares(dtype)(table, gradients[dtype], {}, threads=n) for dtype, table in self._tables.items()]
        return math.sqrt(math.fsum(float(each.sum()) for each in sums))

    def _checked_grads(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        """The gradients in the order of memory, or an error that says what is wrong with them."""
        if grads.keys() != self._params.keys():
            missing, unknown = sorted(self._params.keys() - grads.keys()), sorted(grads.keys() - self._params.keys())
            raise ValueError(
                f"grads must have the names of params: missing {missing}, unknown {unknown}. A parameter that is not to be "
                "trained belongs in no optimizer."
            )
        contiguous = {}
        for name, w in self._params.items():
            g = np.asarray(grads[name]) if isinstance(grads[name], np.generic) else grads[name]  # a sum
            if not isinstance(g, np.ndarray) or g.dtype != w.dtype:
                got = g.dtype if isinstance(g, np.ndarray) else type(g).__name__
                raise TypeError(f"The gradient of {name!r} must be an array of {w.dtype}, as the parameter is; got {got}.")
            if g.shape != w.shape:
                raise ValueError(f"The gradient of {name!r} has shape {g.shape}; the parameter has shape {w.shape}.")
            contiguous[name] = np.ascontiguousarray(g)
        return contiguous


def _checked_params(params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters, or an error that says why one of them cannot be updated in place."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params must map names to arrays, as in {{'w': w, 'b': b}}; got {type(params).__name__}.")
    for name, w in params.items():
        if not isinstance(w, np.ndarray):
            raise TypeError(f"params[{name!r}] must be a NumPy array; got {type(w).__name__}.")
        if w.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"params[{name!r}] must be of float32 or float64; got {w.dtype}. Convert it: w = w.astype(np.float32)."
            )
        if not w.flags.writeable:
            raise ValueError(f"params[{name!r}] is read-only and cannot be updated in place. Take a copy: w = w.copy().")
        if not w.flags.c_contiguous:
            raise ValueError(
                f"params[{name!r}] is a view with strides {w.strides}; parameters must lie contiguously in memory. Give the "
                "array that it is a view of, or np.ascontiguousarray(w) and use that from here on."
            )
    by_place = sorted((address(w), address(w) + w.nbytes, name) for name, w in params.items() if w.size)
    for (_, end, a), (start, _, b) in pairwise(by_place):
        if start < end:
            raise ValueError(f"params[{a!r}] and params[{b!r}] share memory, and would be updated twice. Give each array once.")
    return dict(params)
