"""What the NumPy front-ends of all methods have in common: storage, hyperparameters, the step."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from polyak.arguments import (
    check_cautious,
    check_decay,
    check_finite,
    check_learning_rate,
    check_max_norm,
    check_takes_step,
    not_finite,
)
from polyak.compile import Table, address, kernel, per_tensor, sum_of_squares, threads
from polyak.methods import Check, Method
from polyak.numpy.arrays import Array, checked_grads, checked_params
from polyak.rules import Rule
from polyak.update import clip_scale, pipeline

Number = float | Callable[[int], float]


class Hyperparameter:
    """A number of the next step: it can be assigned, unless it follows a schedule."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> "Hyperparameter": ...
    @overload
    def __get__(self, optimizer: "Optimizer", owner: type) -> float: ...
    def __get__(self, optimizer: "Optimizer | None", owner: type) -> "Hyperparameter | float":
        return self if optimizer is None else optimizer._now(self._name)

    def __set__(self, optimizer: "Optimizer", value: float) -> None:
        optimizer._assign(self._name, value)


class Optimizer:
    """An optimizer that applies a method to arrays. A subclass names the method and takes its arguments.

    Args:
        params: The weights by name.
        lr: A number, or a function of the step.
        arguments: The method's own arguments by name.
        weight_decay, decay, max_norm, maximize, cautious, cautious_decay, finite: As in `Momentum`.
    """

    lr = Hyperparameter()

    _method: Method

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Any,
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
        self._params = checked_params(params)
        given = {"lr": lr, **arguments}
        self._values = {name: self._checked(name, value) for name, value in given.items()}
        self._weight_decay, self._decay = check_decay(weight_decay, decay)
        self._max_norm = check_max_norm(max_norm)
        self._maximize = maximize
        self._is_scaled = maximize or self._max_norm is not None
        check_cautious(cautious, cautious_decay, decay)
        self._cautious, self._cautious_decay = cautious, cautious_decay
        self._finite = check_finite(finite)
        self._last_learning_rate: float | None = None  # of the last step that was made
        self.count = 0
        """How many steps were made or left out: the step that schedules are given, 0 at the first."""
        self.skipped = 0
        """How many steps were left out because a gradient was not finite; 0 with `finite="off"`."""
        self.grad_norm: float | None = None
        """The norm of all gradients of the last step together, before it was limited; None without `max_norm`."""
        self._slots: dict[str, dict[str, Array]] = {}
        self._make_slots()

    # Hyperparameters.

    @property
    def _checks(self) -> dict[str, Check]:
        return {"lr": check_learning_rate, **self._method.varying, **self._method.constants}

    def _checked(self, name: str, value: Any) -> Any:
        """A number that was checked, a schedule, or an option as it is."""
        if callable(value) and (name == "lr" or name in self._method.varying):
            check_takes_step(name, value)
            return value
        return self._checks[name](value) if name in self._checks else value

    def _now(self, name: str) -> Any:
        """The value at the next step."""
        value = self._values[name]
        return self._checks[name](value(self.count)) if callable(value) else value

    def _assign(self, name: str, value: Any) -> None:
        if callable(self._values[name]):
            raise TypeError(
                f"{name} follows a schedule; {name}={value!r} could not take its place. Make the optimizer with a number for "
                f"{name} to assign to it."
            )
        self._values[name] = self._checks[name](value)
        if not self._slots:  # a momentum of 0 needed none
            self._make_slots()

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The method's arguments by name, of those that change from step to step the values of the next step."""
        return {name: self._now(name) for name in self._method.arguments}

    @property
    def slots(self) -> Mapping[str, Mapping[str, Array]]:
        """The state: for each slot of the rule, the arrays by the names of the parameters."""
        return MappingProxyType({slot: MappingProxyType(arrays) for slot, arrays in self._slots.items()})

    # The step.

    def _rule(self) -> Rule:
        """The rule for the present arguments. What has slots keeps them: with a momentum of 0 the velocity is the gradient."""
        arguments = {name: self._values[name] for name in self._method.arguments}
        return self._method.choose(**{**arguments, **dict.fromkeys(self._method.varying if self._slots else ())})

    def _make_slots(self) -> None:
        """Make the slots of the rule."""
        self._slots = {
            slot: {name: np.zeros_like(w, order="C") for name, w in self._params.items()} for slot in self._rule().slots
        }
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the update, and a table for each dtype, which says where in memory the arrays are."""
        self._update = pipeline(
            self._rule(),
            self._decay,
            scale=self._is_scaled,
            cautious=self._cautious,
            cautious_decay=self._cautious_decay,
        )
        self._names: dict[str, list[str]] = {}
        for name, w in self._params.items():
            self._names.setdefault(w.dtype.name, []).append(name)
        self._tables = {dtype: self._table(names) for dtype, names in self._names.items()}

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_update", "_names", "_tables")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of copies and pickles, whose arrays are elsewhere in memory."""
        self.__dict__.update(state)
        self._lay_out()

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
            FloatingPointError: With `finite="error"`, a gradient that is not finite. The step is left out.
        """
        self._before_step()
        contiguous = checked_grads(self._params, grads)
        h = self._begin()
        squares: dict[str, npt.NDArray[np.float64]] = {}
        h["scale"] = -1.0 if self._maximize else 1.0
        if self._max_norm is not None or self._finite != "off":
            squares = self._squares(self._addresses(contiguous))
            norm = math.sqrt(math.fsum(x for of_dtype in squares.values() for x in of_dtype.tolist()))
            if self._finite != "off" and not math.isfinite(norm):
                self._skip(squares)
                return
            if self._max_norm is not None:
                self.grad_norm = norm
                h["scale"] *= clip_scale(norm, self._max_norm)
        self._finish(contiguous, h, squares)

    def _before_step(self) -> None:
        """Refuse a step, if there is a reason."""

    def _begin(self) -> dict[str, Any]:
        """Count a step, which may yet be left out, and take its hyperparameters."""
        arguments = self.arguments
        own = {**self._method.numbers(arguments), **self._method.at_step(self.count, arguments)}
        h = {"learning_rate": self.lr, **own, "weight_decay": self._weight_decay}
        self.count += 1
        return h

    def _finish(self, gradients: Mapping[str, Array], h: Mapping[str, Any], squares: Mapping[str, Any]) -> None:
        """Make the step that `_begin` began.

        Args:
            gradients: In the order of memory.
            h: The hyperparameters, with the scale of the gradients.
            squares: For each dtype the sums of squares of the gradients, where they are known already.
        """
        addresses = self._addresses(gradients)
        numbers = self._update.per_tensor
        each = self._per_tensor(numbers, h, squares or self._squares(addresses)) if numbers else dict.fromkeys(self._tables, h)
        for dtype, table in self._tables.items():
            kernel(self._update, dtype)(table, addresses[dtype], each[dtype], threads=threads.available())
        self._last_learning_rate = h["learning_rate"]

    def _addresses(self, gradients: Mapping[str, Array]) -> dict[str, list[int]]:
        return {dtype: [address(gradients[name]) for name in names] for dtype, names in self._names.items()}

    def _squares(self, addresses: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
        """For each dtype, the sum of the squares of each array."""
        n = threads.available()
        tables = self._tables.items()
        return {dtype: sum_of_squares(dtype)(table, addresses[dtype], {}, threads=n)[:, 0] for dtype, table in tables}

    def _per_tensor(self, numbers: Any, h: Mapping[str, float], squares: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """For each dtype, the hyperparameters of each array, by the sums of squares of their gradients."""
        weights = self._squares({dtype: table.addresses[0] for dtype, table in self._tables.items()})
        dimensions = {dtype: [self._params[name].ndim for name in names] for dtype, names in self._names.items()}
        return {dtype: per_tensor(numbers, h, squares[dtype], weights[dtype], dimensions[dtype]) for dtype in self._tables}

    def _skip(self, squares: Mapping[str, npt.NDArray[np.float64]]) -> None:
        self.skipped += 1
        if self._finite == "error":
            of_names = {name: x for dtype in squares for name, x in zip(self._names[dtype], squares[dtype], strict=True)}
            names = [name for name in self._params if not math.isfinite(of_names[name])]
            raise FloatingPointError(not_finite(names, self.count - 1))
