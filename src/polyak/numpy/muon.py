"""Muon for NumPy arrays."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from polyak.compile import Table, address, kernel, threads
from polyak.matrices import Matrices
from polyak.methods import MUON_METHOD
from polyak.numpy.arrays import Array, checked_params
from polyak.numpy.momentum import Momentum
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer
from polyak.rules.directed import DIRECTED
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import Scale, shape_scale
from polyak.rules.orthogonal import BATCH_BYTES, Polynomial, orthogonalise
from polyak.rules.roles import Report, Role, assign
from polyak.update import pipeline


class Muon(Optimizer):
    """Momentum whose step is, for each weight matrix, the nearest orthogonal matrix; another optimizer for what is no matrix.

    With the gradient G of the loss with respect to a weight W, and a velocity V that starts at 0, each step is

        V = V + (1 - momentum) * (G - V)
        W = W - lr * scale * orthogonalise((1 - momentum) * G + momentum * V)        without nesterov: orthogonalise(V)

    What is an embedding and what an output head is told from names alone; `report()` says what was decided, and why.
    `polyak.rules.muon` has the source, `polyak.rules.orthogonal` the polynomials.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0.
        momentum: In [0, 1): how much of the velocity survives a step.
        nesterov: Look ahead by a step, as above.
        weight_decay: A coefficient >= 0: lr * weight_decay * W is taken from W beside the step, decoupled as in all peers. The
            scale has no part in it. The other optimizer has its own.
        polynomial: "polar_express", or "quintic" as in torch.optim.Muon.
        steps: How many polynomials are taken.
        scale: "spectral" is sqrt(max(1, rows / cols)); "match_rms_adamw" is 0.2 sqrt(max(rows, cols)), with which learning
            rates and decays of AdamW serve.
        roles: "orthogonal" or "other" by patterns of names (as in `fnmatch`); the first that fits decides. What no pattern
            fits is orthogonal if it has two dimensions or more and is not named as an embedding or an output head.
        split: How many matrices a parameter holds along its outputs, by patterns.
        output_axis: The dimension of a parameter's outputs, or several of them, by patterns. It is the last, as in `x @ W`;
            for `W @ x`, {"*": 0}.
        others: Makes the optimizer of the other parameters, one of `polyak.numpy`, from a dict of them. Not called if there
            are none. By default heavy ball, with lr=0.01 and momentum=0.9.
        max_norm: Of the gradients of all parameters together, those of the other optimizer too, as in `Momentum`.
        finite: What becomes of a step with a gradient that is not finite, in whichever parameter.
        maximize: Go up the gradient instead of down. The other optimizer has to be made with the same.
        cautious: Matrices change only where the step goes down the present gradient.
        cautious_decay: The decay of matrices acts only where the step goes its way.

    Attributes:
        others: The optimizer of the other parameters, or None.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, a pattern that decides nothing, no
            parameter to orthogonalise, another optimizer that has a guard of its own or goes the other way.
        TypeError: An argument of another type.

    Example:
        >>> params = {"hidden": np.eye(2), "bias": np.ones(2), "head": np.ones((2, 1))}
        >>> optimizer = Muon(params, lr=0.25, steps=8)
        >>> print(optimizer.report())
        parameter  shape  role        matrices  scale  why
        hidden     2 x 2  orthogonal  2 x 2     1      a matrix
        bias       2      other                        fewer than two dimensions
        head       2 x 1  other                        named as an output head
        >>> optimizer.step(params)
        >>> params["hidden"].round(6) + 0.0
        array([[0.75, 0.  ],
               [0.  , 0.75]])
    """

    _method = MUON_METHOD
    momentum = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.02,
        momentum: Number = 0.95,
        *,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        polynomial: Polynomial = "polar_express",
        steps: int = 5,
        scale: Scale = "spectral",
        roles: Mapping[str, Role] | None = None,
        split: Mapping[str, int] | None = None,
        output_axis: Mapping[str, int | Sequence[int]] | None = None,
        others: Callable[[dict[str, Array]], Optimizer] | None = None,
        max_norm: float | None = None,
        maximize: bool = False,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Literal["error", "skip", "off"] = "off",
    ) -> None:
        heavy_ball(momentum=callable(momentum) or momentum != 0, nesterov=nesterov)
        params = checked_params(params)
        self._assigned = assign(
            {name: w.shape for name, w in params.items()},
            known={},
            axes={},
            roles=roles or {},
            split=split or {},
            output_axis=output_axis or {},
            default_axis=-1,
        )
        super().__init__(
            params,
            lr,
            {"momentum": momentum, "nesterov": nesterov, "polynomial": polynomial, "steps": steps, "scale": scale},
            weight_decay=weight_decay,
            decay="decoupled" if weight_decay else None,
            max_norm=max_norm,
            maximize=maximize,
            cautious=cautious,
            cautious_decay=cautious_decay,
            finite=finite,
        )
        rest = {name: w for name, w in params.items() if self._assigned[name].role == "other"}
        make = others or partial(Momentum, lr=0.01, momentum=0.9, maximize=maximize)
        self.others = self._checked_others(make(rest), rest) if rest else None

    def _checked_others(self, others: Any, rest: Mapping[str, Array]) -> Optimizer:
        """The optimizer of the other parameters, which this one's guard serves."""
        if not isinstance(others, Optimizer) or isinstance(others, Muon):
            raise TypeError(
                "others must make another optimizer of polyak.numpy from a dict of parameters, as "
                f"functools.partial(polyak.numpy.Lion, lr=1e-4) does; it made {others!r}."
            )
        for name, own, nothing in (("max_norm", others._max_norm, None), ("finite", others._finite, "off")):
            if own != nothing:
                raise ValueError(
                    f"`others` was made with {name}={own!r}, which concerns the gradients of all parameters together. Give it "
                    f"to Muon, which has them all: Muon(..., {name}={own!r})."
                )
        if others._maximize is not self._maximize:
            raise ValueError(
                f"Muon has maximize={self._maximize}, and `others` was made with maximize={others._maximize}: one would undo "
                "what the other does. Give both the same."
            )
        if others._params.keys() != rest.keys():
            raise ValueError(f"others must take all parameters that it is given, {list(rest)}; it took {list(others._params)}.")
        others._is_scaled = self._is_scaled
        others._lay_out()
        return others

    def report(self) -> Report:
        """Every parameter with its role, the reason for it, the shape of its matrices and its scale."""
        return Report(tuple(replace(p, scale=self._factor(p.matrices)) if p.matrices else p for p in self._assigned.values()))

    def _factor(self, matrices: Matrices) -> float:
        return shape_scale(self._values["scale"], matrices)

    # What lies where in memory.

    def _make_slots(self) -> None:
        velocity = {name: np.zeros_like(self._params[name], order="C") for name, p in self._assigned.items() if p.matrices}
        self._slots = {"velocity": velocity}
        self._lay_out()

    def _table(self, names: list[str]) -> Table:
        """Of all parameters, for the guard."""
        return Table([self._params[name].size for name in names], [[address(self._params[name]) for name in names]])

    def _batches(self) -> Iterator[tuple[Matrices, np.dtype[Any], list[str]]]:
        """The names of the matrices, those alike together."""
        alike: dict[Any, list[str]] = defaultdict(list)
        for name in self._slots["velocity"]:
            alike[self._assigned[name].matrices, self._params[name].dtype].append(name)
        for (matrices, dtype), names in alike.items():
            count = max(1, BATCH_BYTES // max(1, self._params[names[0]].nbytes))
            for start in range(0, len(names), count):
                yield matrices, dtype, names[start : start + count]

    # The step.

    def _before_step(self) -> None:
        if self.others is not None:
            self.others._before_step()

    def _begin(self) -> dict[str, Any]:
        theirs = self.others._begin() if self.others is not None else {}
        return {**super()._begin(), "others": theirs}

    def _finish(
        self,
        gradients: Mapping[str, Array],
        h: Mapping[str, Any],
        squares: Mapping[str, Any],  # noqa: ARG002  (of no use here)
    ) -> None:
        for matrices, dtype, names in self._batches():
            self._update_alike(matrices, dtype, names, [address(gradients[name]) for name in names], h)
        self._last_learning_rate = h["learning_rate"]
        if self.others is not None:
            self.others._finish(gradients, {**h["others"], "scale": h["scale"]}, {})

    def _update_alike(
        self, matrices: Matrices, dtype: np.dtype[Any], names: list[str], gradients: list[int], h: Mapping[str, Any]
    ) -> None:
        """One step of parameters that are alike, whose gradients are at these addresses."""
        # The rule moves weights of 0 against the step, with the learning rate -1: what it then has is the direction itself.
        directions = np.zeros((len(names), *matrices.shape), dtype)
        velocities = [self._slots["velocity"][name] for name in names]
        momentum = pipeline(self._rule(), scale=self._is_scaled)
        self._run(momentum, [directions, velocities], gradients, {**h, "learning_rate": -1.0})
        with np.errstate(invalid="ignore"):  # what is not finite becomes NaN, and is seen
            orthogonal = orthogonalise(matrices.of(directions), self._values["polynomial"], self._values["steps"])
        options = {"scale": self._is_scaled, "cautious": self._cautious, "cautious_decay": self._cautious_decay}
        directed = pipeline(DIRECTED, self._decay, **options)
        rows = [[self._params[name] for name in names], np.ascontiguousarray(matrices.back(orthogonal))]
        self._run(directed, rows, gradients, {**h, "factor": self._factor(matrices)})

    @staticmethod
    def _run(update: Any, rows: Sequence[Any], gradients: list[int], h: Mapping[str, Any]) -> None:
        """The kernel of an update, on weights and slots."""
        table = Table([w.size for w in rows[0]], [[address(x) for x in row] for row in rows])
        kernel(update, rows[0][0].dtype.name)(table, gradients, h, threads=threads.available())
