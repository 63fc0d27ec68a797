"""A rule applied to lists of tensors: those in host memory by the kernel, all others in torch operations.

`polyak.torch.Momentum` and the Keras front-end on PyTorch use this alike:

    group = Group(pipeline(heavy_ball()))
    step = group.read(weights, gradients, [velocities])
    step.apply({"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.0})
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from polyak.compile import Table, kernel, per_tensor, sum_of_squares
from polyak.torch import views
from polyak.torch.distributed import Number, Shards, Squares, each_whole, summed
from polyak.torch.views import beside, compute_dtype, dense_gradient, is_packed, is_sharded, local, real
from polyak.update import Update

Row = Sequence[Tensor]  # one tensor for each parameter
Values = Number | npt.NDArray[Any] | list[Number]  # of a hyperparameter: the same for all tensors, or one for each
Addresses = npt.NDArray[np.int64]

# Called once a tensor and step: from Python, each takes about 0.06 us.
_address = Tensor.data_ptr
_is_contiguous = Tensor.is_contiguous
_nbytes = attrgetter("nbytes")

_KERNELS = {torch.float32: "float32", torch.float64: "float64"}


class Group:
    """The tensors that one update is applied to, with the same hyperparameters.

    What the kernel is told about them is kept from step to step and checked at each: a tensor that moved, or that has become
    another one, is found by its address.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._addresses: list[list[int]] = []
        self._parts: list[_Host | _Elsewhere] = []
        self._sharded = False

    def read(self, weights: Row, gradients: Row, slots: Sequence[Row]) -> "Step":
        """Take the tensors of this step.

        Args:
            weights: The weights, of any floating dtype and on any device, complex ones and DTensors too.
            gradients: Their gradients, in the same order and of the same shapes (torch sees to that for `p.grad`); sparse ones
                too. They are only read.
            slots: For each slot of the rule, in its order, the tensors of the weights' shapes.
        """
        rows = [weights, *slots]
        if self._sharded:
            rows = _local(rows)
        addresses = [list(map(_address, row)) for row in rows]
        if addresses != self._addresses:
            self._sharded = any(map(is_sharded, weights))
            rows = _local([weights, *slots])
            self._addresses = []  # should the next line fail, nothing is known
            self._parts = _parts(self._update, rows)
            self._addresses = [list(map(_address, row)) for row in rows]
        if self._sharded:
            with torch.no_grad():
                gradients = [dense_gradient(g, w) for g, w in zip(gradients, weights, strict=True)]
        work = [(part, rows, part.prepare(gradients, rows[0])) for part in self._parts]
        return Step(self._update, work, weights, self._sharded)


class Step:
    """Tensors that were read, and their gradients as the arithmetic takes them.

    Attributes:
        weights: The weights, as they were given.
    """

    __slots__ = ("_sharded", "_squares", "_update", "_work", "weights")

    def __init__(self, update: Update, work: list[tuple[Any, list[Row], Any]], weights: Row, sharded: bool) -> None:
        self.weights = weights
        self._update = update
        self._work = work
        self._sharded = sharded
        self._squares: list[list[Number]] | None = None

    @property
    def on_host(self) -> bool:
        """Whether any of the tensors is in host memory, where numbers are read without waiting."""
        return any(part.on_host for part, _, _ in self._work)

    def sum_of_squares(self) -> Squares:
        """Of the gradients, as far as this process holds them: in float64, one number for each way of being sharded."""
        if not self._sharded:
            return {None: summed(list(map(summed, self._gradient_squares())))}
        by_shards: dict[Shards, list[Number]] = defaultdict(list)
        for w, square in zip(self.weights, self.squares(), strict=True):
            by_shards[_shards(w)].append(square)
        return {shards: summed(squares) for shards, squares in by_shards.items()}

    def squares(self) -> list[Number]:
        """Of each gradient the sum of squares, as far as this process holds it."""
        return self._in_order(self._gradient_squares())

    def apply(self, h: Mapping[str, Number], passes: Tensor | None = None) -> None:
        """Update weights and slots in place.

        Args:
            h: The values of the rule's hyperparameters. Those of tensors that are not in host memory may be tensors without
                dimensions.
            passes: For such tensors, whether they change at all; a tensor without dimensions.
        """
        each = self._per_tensor(h) if self._update.per_tensor else [h] * len(self._work)
        for (part, rows, gradients), own in zip(self._work, each, strict=True):
            part.update(rows, gradients, own, passes)

    def _per_tensor(self, h: Mapping[str, Number]) -> list[Mapping[str, Values]]:
        """For each part the hyperparameters that its tensors have for themselves."""
        numbers: Any = self._update.per_tensor
        weight_squares = self._read([part.weight_squares(rows) for part, rows, _ in self._work])
        g, w = (self._of_whole_tensors(squares) for squares in (self._gradient_squares(), weight_squares))
        dimensions = [t.ndim for t in self.weights]
        if not self.on_host:
            one_by_one = [numbers(h, a.sqrt(), b.sqrt(), n) for a, b, n in zip(g, w, dimensions, strict=True)]  # type: ignore[union-attr]  # all are tensors
            return [{name: [one_by_one[i][name] for i in part.indices] for name in h} for part, _, _ in self._work]
        each = per_tensor(numbers, h, g, w, dimensions)  # type: ignore[arg-type]  # none is a tensor
        return [
            {name: x[part.indices] if isinstance(x, np.ndarray) else x for name, x in each.items()} for part, _, _ in self._work
        ]

    def _gradient_squares(self) -> list[list[Number]]:
        """For each part the sums of squares of its gradients, which are read for them once."""
        if self._squares is None:
            self._squares = self._read([part.sums_of_squares(gradients) for part, _, gradients in self._work])
        return self._squares

    def _read(self, squares: list[list[Number]]) -> list[list[Number]]:
        """As numbers, where some of them are anyway."""
        if not any(Tensor in map(type, of_part) for of_part in squares) or not self.on_host:
            return squares
        return [[x.item() if isinstance(x, Tensor) else x for x in of_part] for of_part in squares]

    def _of_whole_tensors(self, squares: list[list[Number]]) -> list[Number]:
        """From the sums of squares of each part, those of the tensors, in their order; of sharded ones over all shards."""
        in_order = self._in_order(squares)
        return each_whole(list(map(_shards, self.weights)), in_order) if self._sharded else in_order

    def _in_order(self, squares: list[list[Number]]) -> list[Number]:
        """From the numbers of each part, those of the tensors in their order."""
        indices = [i for part, _, _ in self._work for i in part.indices]
        by_index = dict(zip(indices, (x for of_part in squares for x in of_part), strict=True))
        return [by_index[i] for i in range(len(by_index))]


def _shards(w: Any) -> Shards:
    return (w.device_mesh, w.placements) if is_sharded(w) else None


class _Host:
    """Tensors of one dtype in host memory, each packed, for the kernel."""

    on_host = True

    def __init__(self, update: Update, dtype: str, indices: Sequence[int], rows: Sequence[Row]) -> None:
        self.indices = indices
        own = [[row[i] for i in indices] for row in rows]
        self._weights = own[0]
        self._all = len(indices) == len(rows[0])
        self._strides = None if all(map(_is_contiguous, own[0])) else [w.stride() for w in own[0]]
        self._nbytes = list(map(_nbytes, own[0]))
        self._last: tuple[list[int], Addresses] = [], np.empty(0, np.int64)  # the gradients' addresses, as list and array
        self._table = Table([w.numel() for w in own[0]], [list(map(_address, row)) for row in own])
        self._kernel = kernel(update, dtype)
        self._squares = sum_of_squares(dtype)
        self._no_scalars = self._squares.scalars({})
        self._h: Mapping[str, Values] | None = None

    def prepare(self, gradients: Row, weights: Row) -> tuple[Row, Addresses]:  # noqa: ARG002  (see _Elsewhere)
        """The gradients, each in the order of memory of its weight, and their addresses."""
        own = gradients if self._all else [gradients[i] for i in self.indices]
        try:
            addresses = list(map(_address, own))
            packed = self._are_packed(own)
            known, array = self._last
            if packed and addresses == known:
                return own, array
            fit = packed and list(map(_nbytes, own)) == self._nbytes
        except RuntimeError:  # a sparse tensor has none of these
            fit = False
        if not fit:
            with torch.no_grad():
                own = [beside(dense_gradient(g, w), w) for g, w in zip(own, self._weights, strict=True)]
            return own, np.array(list(map(_address, own)), np.int64)
        array = np.array(addresses, np.int64)
        self._last = addresses, array
        return own, array

    def _are_packed(self, gradients: Row) -> bool:
        """Whether each gradient is in the order of memory of its weight."""
        if self._strides is None:
            return all(map(_is_contiguous, gradients))
        return [g.stride() for g in gradients] == self._strides

    def sums_of_squares(self, gradients: tuple[Row, Addresses]) -> list[float]:
        return self._sums(gradients[1])

    def weight_squares(self, rows: Sequence[Row]) -> list[float]:  # noqa: ARG002  (see _Elsewhere)
        return self._sums(self._table.addresses[0])

    def _sums(self, addresses: Addresses) -> list[float]:
        sums = self._squares(self._table, addresses, self._no_scalars, threads=torch.get_num_threads())
        return sums[:, 0].tolist()  # type: ignore[no-any-return]

    def update(self, rows: Any, gradients: tuple[Row, Addresses], h: Mapping[str, Values], passes: None) -> None:  # noqa: ARG002
        if h is not self._h:
            numbers: Any = h  # none is a tensor
            self._h, self._scalars = h, self._kernel.scalars(numbers)
        self._kernel(self._table, gradients[1], self._scalars, threads=torch.get_num_threads())
        increment_version(self._weights)  # so that a backward pass that still needs the old weight says so


class _Elsewhere:
    """All other tensors: half precision, complex, not packed, on another device."""

    def __init__(self, update: Update, indices: Sequence[int], rows: Sequence[Row]) -> None:
        self.indices = indices
        self.on_host = any(views.in_host_memory(rows[0][i]) for i in indices)
        self._update = update

    @torch.no_grad()
    def prepare(self, gradients: Row, weights: Row) -> list[Tensor]:
        """The gradients in the dtype of the arithmetic."""
        pairs = [(dense_gradient(gradients[i], weights[i]), weights[i]) for i in self.indices]
        return [real(g.to(compute_dtype(w.dtype))) for g, w in pairs]

    @torch.no_grad()
    def sums_of_squares(self, gradients: list[Tensor]) -> list[Tensor]:
        # Apple's GPUs have no float64.
        norms = [torch.linalg.vector_norm(g, dtype=None if g.device.type == "mps" else torch.float64) for g in gradients]
        return [norm * norm for norm in norms]

    def weight_squares(self, rows: Sequence[Row]) -> list[Tensor]:
        return self.sums_of_squares([real(rows[0][i]) for i in self.indices])

    @torch.no_grad()
    def update(self, rows: Sequence[Row], gradients: list[Tensor], h: Mapping[str, Values], passes: Tensor | None) -> None:
        n = len(gradients)
        values = [h[name] for name in self._update.Hyperparameters._fields]
        columns: list[Any] = [x if isinstance(x, np.ndarray | list) else repeat(x, n) for x in values]
        for i, g, *numbers in zip(self.indices, gradients, *columns, strict=True):
            # In the dtype of the arithmetic: that of a scale would win over a gradient without dimensions.
            scalars = self._update.Hyperparameters(*(x.to(g) if isinstance(x, Tensor) else float(x) for x in numbers))
            stored = [real(row[i]) for row in rows]
            w, *slots = old = [t.to(g.dtype) for t in stored]
            w_new, slots_new = self._update.apply(g, w, tuple(slots), scalars)
            new = [w_new, *slots_new]
            if passes is not None:
                new = [torch.where(passes.to(g.device), x, y) for x, y in zip(new, old, strict=True)]
            for t, x in zip(stored, new, strict=True):
                t.copy_(x)


@torch.no_grad()
def _local(rows: Sequence[Row]) -> list[Row]:
    """The parts of the tensors that this process holds."""
    return [list(map(local, row)) for row in rows]


def _parts(update: Update, rows: Sequence[Row]) -> list[_Host | _Elsewhere]:
    """Who updates which of the tensors."""
    by_kernel: dict[str | None, list[int]] = defaultdict(list)
    for i, tensors in enumerate(zip(*rows, strict=True)):
        by_kernel[_kernel_for(*tensors)].append(i)
    return [_Host(update, dtype, of, rows) if dtype else _Elsewhere(update, of, rows) for dtype, of in by_kernel.items()]


def _kernel_for(w: Tensor, *slots: Tensor) -> str | None:
    """The dtype of the kernel that can update this weight, if one can."""
    plain = all(
        type(t) in (Tensor, torch.nn.Parameter)
        and t.layout == torch.strided
        and views.in_host_memory(t)
        and (t.dtype, t.stride(), t.shape) == (w.dtype, w.stride(), w.shape)
        and not t.is_neg()
        for t in (w, *slots)
    )
    return _KERNELS.get(w.dtype) if plain and is_packed(w) else None
