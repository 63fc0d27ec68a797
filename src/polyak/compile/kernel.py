"""The compiled rule, and the sum of squares that clipping needs."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from polyak.compile import threads as threading
from polyak.compile.module import Entry, Module
from polyak.compile.source import STATISTICS, squares_source, update_source
from polyak.compile.table import Table
from polyak.update import Update

# From this many elements on, more threads pay. Measured: 128 Ki elements take 49 us on one thread and 48 us on two, 256 Ki take
# 98 and 66, 1 Mi take 497 and 259.
PARALLEL_SIZE = 1 << 18

Values = float | npt.NDArray[Any]  # of a hyperparameter: the same for all tensors, or one for each
Scalars = npt.NDArray[Any]
Sums = npt.NDArray[np.float64]


class Kernel:
    """A loop over the elements of a group, as machine code for one dtype.

    Made by `kernel` and `sum_of_squares`. It compiles at the first call that needs it; the code for one thread and the code
    for several are two pieces.
    """

    def __init__(self, module: Module, dtype: str, hyperparameters: Sequence[str], sums: int) -> None:
        self.dtype = np.dtype(dtype)
        self._module = module
        self._hyperparameters = tuple(hyperparameters)
        self._sums = sums
        self._entries: dict[str, Entry] = {}

    def scalars(self, h: Mapping[str, Values]) -> Scalars:
        """The hyperparameters as the machine code takes them: rounded to its dtype, in the rule's order.

        Returns:
            (1, hyperparameters), or (tensors, hyperparameters) if some of them have a value for each tensor.
        """
        values = [h[name] for name in self._hyperparameters]
        if np.ndarray not in map(type, values):
            return np.array([values], self.dtype)
        return np.stack(np.broadcast_arrays(*values), axis=1).astype(self.dtype)

    def __call__(
        self,
        table: Table,
        gradients: Sequence[int] | npt.NDArray[np.int64],
        h: Mapping[str, Values] | Scalars,
        *,
        threads: int,
    ) -> Sums:
        """Run over all tensors of a table.

        Args:
            table: Where the weights and slots are; they are written in place.
            gradients: Where the gradients are, in the order of the table. They are only read.
            h: The hyperparameters by name, each a number or an array with one for each tensor; or what `scalars` made of them.
            threads: How many threads to use, where the group is so large that they pay.

        Returns:
            The sums, (tensors, columns), the same for any number of threads; without a column, if this kernel takes none.
        """
        scalars = h if isinstance(h, np.ndarray) else self.scalars(h)
        sums = np.zeros((len(table.chunks), self._sums)) if self._sums else table.no_sums
        fixed = (table.addresses, np.asarray(gradients, np.int64), table.chunks, scalars)
        if threads > 1 and table.size >= PARALLEL_SIZE and (n := threading.limit(threads)) > 1:
            threading.start(self._entries.get("parallel") or self._entry("parallel"), n, *fixed, table.bounds(n), sums)
        else:
            (self._entries.get("serial") or self._entry("serial"))(*fixed, 0, len(table.chunks), sums)
        return table.by_tensor(sums) if self._sums else sums

    def _entry(self, which: str) -> Entry:
        with threading.lock:
            if which not in self._entries:
                addresses, numbers, sums = numba.int64[:, ::1], numba.int64[::1], numba.float64[:, ::1]
                fixed = (addresses, numbers, addresses, numba.from_dtype(self.dtype)[:, ::1])
                share = (numbers,) if which == "parallel" else (numba.int64, numba.int64)
                self._entries[which] = self._module.entry(which, (*fixed, *share, sums))
            return self._entries[which]


@cache
def kernel(update: Update, dtype: str, *, statistics: bool = False) -> Kernel:
    """The kernel that updates a group in place.

    Args:
        update: A rule of elements with its pipeline, from `polyak.update.pipeline`.
        dtype: "float32" or "float64": of the weights, gradients, slots and hyperparameters.
        statistics: Also take, in the same pass and without a change to a bit of the weights, the sums named by `STATISTICS`
            for each tensor: the squares of the gradient (as it was given), of the step (the old weight minus the new, decay
            included) and of the weight (before the step), and the gradient times the first slot (after the step; NaN for a
            rule that has none). Runs of `RUN_LENGTH` elements are summed in the dtype, the runs in float64.

    Raises:
        ValueError: A dtype that has no kernel.
    """
    names = update.Hyperparameters._fields
    text = update_source(len(update.rule.slots), names, _checked(dtype), statistics=statistics)
    flags = ("scale", "cautious", "cautious_decay")
    options = [update.decay, *(flag for flag in flags if getattr(update, flag)), "statistics" if statistics else None]
    prefix = "_".join(part for part in (update.rule.name, *options) if part)
    module = Module(prefix, text, update.apply, Hyperparameters=update.Hyperparameters, dtype=np.dtype(dtype).type)
    return Kernel(module, dtype, names, len(STATISTICS) if statistics else 0)


@cache
def sum_of_squares(dtype: str) -> Kernel:
    """The kernel that takes the sum of squares of each gradient, in float64. It writes nothing and reads no hyperparameter."""
    module = Module("squares", squares_source(_checked(dtype)), dtype=np.dtype(dtype).type)
    return Kernel(module, dtype, (), 1)


def per_tensor(
    numbers: Callable[..., dict[str, Values]],
    h: Mapping[str, Values],
    g_squares: npt.ArrayLike,
    w_squares: npt.ArrayLike,
    dimensions: npt.ArrayLike,
) -> dict[str, Values]:
    """The hyperparameters of a rule of tensors, of which some have a value for each tensor.

    Args:
        numbers: `Update.per_tensor` of the rule.
        h: The hyperparameters of all tensors.
        g_squares: For each tensor the sum of squares of its gradient, as `sum_of_squares` takes it.
        w_squares: The same for its weight: `sum_of_squares` takes `Table.addresses[0]` for gradients as well.
        dimensions: How many dimensions each tensor has.
    """
    with np.errstate(all="ignore"):  # what is not finite goes on into the weights, where it is seen
        return numbers(h, np.sqrt(g_squares), np.sqrt(w_squares), np.asarray(dimensions))


def _checked(dtype: str) -> str:
    if dtype not in ("float32", "float64"):
        raise ValueError(f'dtype must be "float32" or "float64"; got {dtype!r}.')
    return dtype
