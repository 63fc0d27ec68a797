"""Float32 arithmetic of which no compiler can change a bit.

XLA fuses `a * b + c` into one rounding; NumPy and PyTorch round twice. They agree where the product needs no rounding. Here
every product is exact: its factors have 12 significant bits each, and float32 holds 24. So numbers are written as sums of
`pieces` of 12 bits. Sums are rounded by every framework in the same way, and what the large ones lose is added at the end, so
that the result is nearly always the float32 that is next to the exact value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.ops import Array

BITS = 12
_SMALLEST = np.finfo(np.float32).tiny


def float32(x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Float64 numbers rounded to float32, without subnormal numbers, which XLA counts as 0 and NumPy does not."""
    rounded = np.asarray(x, np.float64).astype(np.float32)
    return np.where(np.abs(rounded) < _SMALLEST, np.float32(0), rounded)


def pieces(x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Three numbers of 12 significant bits each, along a new last axis, largest first: their sum is x within 2^-36 x."""
    rest = np.asarray(x, np.float64)
    found = []
    for _ in range(3):
        mantissa, exponent = np.frexp(rest)
        piece = np.ldexp(np.rint(np.ldexp(mantissa, BITS)), exponent - BITS)
        found.append(float32(piece))
        rest = rest - piece
    return np.stack(found, axis=-1)


def product(x: Sequence[Array], y: Sequence[Array]) -> tuple[Array, Array]:
    """The product of two numbers in `pieces`: the largest part, exact, and the rest."""
    return x[0] * y[0], (x[0] * y[2] + x[2] * y[0] + x[1] * y[1]) + (x[0] * y[1] + x[1] * y[0])


def exact_sum(terms: Sequence[Array], rest: Array) -> Array:
    """The sum of `terms` and of a `rest` that is small beside them, rounded once but for what `rest` has lost before.

    Each rounding error is found by the "2Sum" of D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2,
    which is additions and subtractions alone.
    """
    total: Any = terms[0]
    for x in terms[1:]:
        s = total + x
        z = s - total
        rest = rest + ((total - (s - z)) + (x - z))
        total = s
    return total + rest
