"""The nearest orthogonal matrix by Newton-Schulz: products of matrices only, no decomposition.

A matrix G = U diag(s) V^T has the polar factor U V^T: of all matrices with orthonormal rows (or columns, if it is tall) the
nearest to G. An odd polynomial of a matrix, a X + b (X X^T) X + c (X X^T)^2 X, leaves U and V alone and maps each singular
value s to p(s) = a s + b s^3 + c s^5. After division by the Frobenius norm all of them lie in [0, 1]; a few such polynomials,
one after the other, bring all those that were not tiny close to 1.

    polynomial        a, b, c of step i                      singular values after 5 steps, of those from 1e-3 to 1
    "quintic"         3.4445, -4.7750, 2.0315 in each        0.47 to 1.20
    "polar_express"   the best for what step i - 1 leaves    0.85 to 1.12

`band` computes the last column for any number of steps. More steps do not bring the quintic closer to 1 (it was made for a
steep slope at 0, and 1 is no fixed point of it); the other one they do: 6 steps end within 0.5 %.

Sources:
    "quintic": K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: an optimizer for hidden layers
    in neural networks", 2024, https://kellerjordan.github.io/posts/muon/.
    "polar_express": N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express: optimal matrix sign methods and their
    application to the Muon algorithm", 2025, arXiv:2505.16932. The coefficients are found here by its recipe, and are those of
    its table.
    The small Gram matrix, with a fresh start now and then: J. Zhang, N. Amsel, B. Chen, T. Dao, "Gram Newton-Schulz", 2026,
    https://dao-lab.ai/blog/2026/gram-newton-schulz.
"""

from functools import lru_cache
from typing import Literal

import numpy as np

from polyak.matrices import add_product, frobenius, identity, peak, transposed
from polyak.ops import Array, where

# With so many, even singular values of 1e-16 come to 1.
_MOST_STEPS = 100

# Matrices of one shape are given to `orthogonalise` together up to this size, so that the room for a step does not grow with
# the model.
BATCH_BYTES = 64 << 20

Polynomial = Literal["quintic", "polar_express"]
Coefficients = tuple[float, float, float]

POLYNOMIALS = ("quintic", "polar_express")

_QUINTIC: Coefficients = (3.4445, -4.7750, 2.0315)

# The parameters of "polar_express", as published. Singular values from LOWEST up are brought to 1; each polynomial is the best
# on [CUSHION u, u] at least, where u is the largest singular value, for one that is the best on a longer interval lowers some
# that were near u already; and is then taken of x / SAFETY, since above u it grows fast and rounding can lead there. The last
# one has nothing after it that could grow.
LOWEST = 1e-3
_CUSHION = 0.02407327424182761
_SAFETY = 1.01

# A Gram matrix holds the squares of the singular values, and rounding adds errors as large as those of the largest. What was
# added to a small one grows with it, and is not seen by the matrix itself; so the Gram matrix is computed anew after so many
# steps. With 2, in float32 and bfloat16, the distance to the result in exact arithmetic is that of iterating on the matrix
# itself; 3 give up to 100 times that, and without end matrices of low rank give infinities: in float32 after 12 steps, in
# bfloat16 after 5.
_STRETCH = 2

# From this ratio of the sides on the Gram matrix has fewer products. For m x n, m <= n, s steps in a row and in units of 2 m^3:
# the matrix itself takes s (2 n/m + 1), the Gram matrix 2 n/m + 4 s - 3.
_LONG = 1.5


def orthogonalise(G: Array, polynomial: Polynomial = "polar_express", steps: int = 5) -> Array:
    """The nearest matrix with orthonormal rows or columns, as near as the polynomial brings it.

    Every m x n matrix is divided by its Frobenius norm and then iterated on, for m <= n:

        A = X X^T        X <- a X + (b A + c A^2) X

    and for m > n with A = X^T X on the other side. For a long matrix the products that the X of several steps are multiplied
    with, Q <- (a I + b A + c A^2) Q, are collected on the short side, where A <- P A P follows from P = a I + b A + c A^2; X
    itself is then multiplied once. The result does not depend on the scale of G, however small or large: 1e-30 G and
    1e30 G have the same. Zero gives zero. A matrix with a NaN or an infinity gives NaN, and does so for itself alone.

    Args:
        G: Matrices of one shape: (..., m, n) with any number of batch dimensions. NumPy, PyTorch, JAX or TensorFlow; in the
            last with known lengths. It is only read.
        polynomial: "quintic" or "polar_express".
        steps: How many polynomials, at least 1. More of them are of use to "polar_express" only.

    Returns:
        Matrices in the shape and the dtype of G, in which all products are computed. The singular values lie in the `band`
        of the polynomial, apart from rounding: about 1e-4 of float32, some hundredths of bfloat16, in which singular
        values below some hundredths of the largest are lost altogether.

    Raises:
        ValueError: An unknown polynomial, steps below 1, or an array with fewer than two dimensions.

    Example:
        >>> import numpy as np
        >>> orthogonalise(np.array([[3.0, 0.0], [0.0, -1e-2]]), steps=8).round(6) + 0.0
        array([[ 1.,  0.],
               [ 0., -1.]])
    """
    each = coefficients(polynomial, steps)
    if len(G.shape) < 2:
        raise ValueError(f"Only matrices have an orthogonal one beside them; got an array of shape {tuple(G.shape)}.")
    if 0 in G.shape:
        return G
    m, n = G.shape[-2:]
    wide = m <= n
    iterate = _by_gram_matrix if max(m, n) > _LONG * min(m, n) else _by_matrix
    X = _normalised(G)
    for start in range(0, steps, _STRETCH):
        X = iterate(X, each[start : start + _STRETCH], wide)
    return X


def _normalised(G: Array) -> Array:
    """Each matrix divided by its Frobenius norm; in two divisions, so that no square overflows or vanishes."""
    for size in (peak, frobenius):
        s = size(G)
        G = G / where(s == 0, 1, s)
    return G


def _gram(X: Array, wide: bool) -> Array:
    """The Gram matrix of the short side."""
    return X @ transposed(X) if wide else transposed(X) @ X


def _by_matrix(X: Array, each: tuple[Coefficients, ...], wide: bool) -> Array:
    """One polynomial of X after the other."""
    for a, b, c in each:
        A = _gram(X, wide)
        B = add_product(b, A, c * A, A)
        X = add_product(a, X, B, X) if wide else add_product(a, X, X, B)
    return X


def _by_gram_matrix(X: Array, each: tuple[Coefficients, ...], wide: bool) -> Array:
    """The same polynomials of the Gram matrix, and their product with X at the end. All of them commute."""
    A = _gram(X, wide)
    Q = None
    for i, (a, b, c) in enumerate(each):
        B = add_product(b, A, c * A, A)  # P = a I + B
        Q = a * identity(A) + B if Q is None else add_product(a, Q, B, Q)
        if i + 1 < len(each):
            PA = add_product(a, A, B, A)
            A = add_product(a, PA, PA, B)
    return Q @ X if wide else X @ Q


@lru_cache(maxsize=None, typed=True)  # typed: True is no number of steps
def coefficients(polynomial: Polynomial, steps: int) -> tuple[Coefficients, ...]:
    """The a, b and c of each step.

    Raises:
        ValueError: An unknown polynomial, or steps below 1.
        TypeError: Steps that are no integer.

    Example:
        >>> coefficients("quintic", 2)
        ((3.4445, -4.775, 2.0315), (3.4445, -4.775, 2.0315))
    """
    if polynomial not in POLYNOMIALS:
        raise ValueError(f"polynomial must be one of {', '.join(map(repr, POLYNOMIALS))}; got {polynomial!r}.")
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps must be an integer; got {steps!r} of type {type(steps).__name__}.")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}. 5 is usual.")
    if steps > _MOST_STEPS:
        raise ValueError(f"steps must be at most {_MOST_STEPS}; got {steps}. 5 is usual.")
    if polynomial == "quintic":
        return (_QUINTIC,) * steps
    *first, last = _greedy(steps)
    return (*((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in first), last)


def band(polynomial: Polynomial, steps: int, lowest: float = LOWEST) -> tuple[float, float]:
    """The least and the greatest that singular values from `lowest` to 1 become, in exact arithmetic.

    The singular values are those of the matrix divided by its Frobenius norm.

    Example:
        >>> [round(s, 3) for s in band("polar_express", 5)]
        [0.852, 1.124]
    """
    low, high = lowest, 1.0
    for a, b, c in coefficients(polynomial, steps):  # the image of an interval is an interval
        # Where the derivative a + 3 b x^2 + 5 c x^4 is 0; all these polynomials have two such places, or a double one.
        root = max(0.0, 9 * b * b - 20 * a * c) ** 0.5
        turns = (((-3 * b + sign * root) / (10 * c)) ** 0.5 for sign in (-1, 1))
        values = [a * x + b * x**3 + c * x**5 for x in (low, high, *(x for x in turns if low < x < high))]
        low, high = min(values), max(values)
    return low, high


def _greedy(steps: int) -> list[Coefficients]:
    """The polynomials of theorem 3.1 of the Polar Express: each the best for the interval that those before it leave."""
    low, high = LOWEST, 1.0
    found = []
    for _ in range(steps):
        lowest = max(low, _CUSHION * high)
        a, b, c = _best(lowest, high)
        if low < lowest:  # centred on 1 for the interval that there is
            at_low, at_high = (a * x + b * x**3 + c * x**5 for x in (low, high))
            a, b, c = (2 * k / (at_low + at_high) for k in (a, b, c))
        found.append((a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return found


def _best(low: float, high: float) -> Coefficients:
    """The odd polynomial of degree 5 that is nearest to 1 on [low, high], by Remez' exchange of its four extremes."""
    if low > (1 - 5e-6) * high:  # the equations below become singular; this is their limit
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    x = np.linspace(low, high, 4)
    for _ in range(5):  # each squares the distance, which is below 0.01 after two
        equations = np.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1)
        a, b, c, _error = map(float, np.linalg.solve(equations, np.ones(4)))
        x[1:3] = np.sqrt((-3 * b + np.array([-1, 1]) * np.sqrt(9 * b * b - 20 * a * c)) / (10 * c))
    return a, b, c
