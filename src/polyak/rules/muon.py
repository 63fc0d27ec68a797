"""Muon: momentum, then for each matrix the nearest orthogonal one in place of the gradient's average.

    symbol   argument         meaning
    G        gradient         of the loss with respect to the weight W, seen as matrices
    lr       learning_rate    size of the step
    m        momentum         in [0, 1): how much of the velocity survives a step
    V        slot "velocity"  the average of past gradients; 0 before the first step
    f        scale            a number for the shape, see `SCALES`

    V <- V + (1 - m) (G - V)        step = lr f orthogonalise(V)

and with nesterov=True step = lr f orthogonalise(m V + (1 - m) G), with the new V. An orthogonal matrix has no size of its own:
whatever the scale of the gradients, all directions of the step are equally long, and lr is the change of W in the spectral
norm.

This holds for matrices that map one hidden layer to another. Embeddings (whose rows are looked up one by one), output heads,
vectors and scalars take another rule; `polyak.rules.roles` says which is which, and `Matrices` how an array of more dimensions
is seen as matrices.

Sources: K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: an optimizer for hidden layers in
neural networks", 2024, https://kellerjordan.github.io/posts/muon/; J. Bernstein, L. Newhouse, "Old optimizer, new norm: an
anthology", 2024, arXiv:2409.20325, for the step as the steepest descent in the spectral norm.

Departures from the peers: none from torch.optim.Muon in the recursion, if polynomial="quintic". optax.contrib.muon divides V by
1 - m^t, which nothing depends on without nesterov; with it, the gradient weighs less in its first steps.
"""

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from polyak.matrices import Matrices, cast, reshaped
from polyak.ops import Array
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.orthogonal import Polynomial, coefficients, orthogonalise
from polyak.rules.rule import Rule, Slots

Scale = Literal["spectral", "match_rms_adamw"]

SCALES = {
    # The step has the spectral norm sqrt(rows / cols), so that outputs change alike for all shapes; 1 for wide matrices. As
    # Jordan et al. have it; adjust_lr_fn="original" in torch.optim.Muon.
    "spectral": lambda rows, cols: math.sqrt(max(1, rows / cols)),
    # The elements have a root mean square of 0.2, as those of Adam's steps do, so that its learning rates and decays serve.
    # J. Liu et al., "Muon is scalable for LLM training", 2025, arXiv:2502.16982, section 2.2, and torch.optim.Muon.
    "match_rms_adamw": lambda rows, cols: 0.2 * math.sqrt(max(rows, cols)),
}


class _Unit(NamedTuple):
    """The hyperparameters with which the step of momentum is its direction."""

    momentum: Any
    learning_rate: float = 1.0


# Cached, so that the same arguments give the same rule, and what is compiled for it serves again.
@lru_cache(maxsize=None, typed=True)  # typed: True is no number of steps
def muon(
    matrices: Matrices,
    *,
    nesterov: bool = True,
    polynomial: Polynomial = "polar_express",
    steps: int = 5,
    scale: Scale = "spectral",
    product_dtype: str | None = None,
) -> Rule:
    """The rule for arrays of one shape. It needs whole arrays, unlike an element rule, and takes several of them at once.

    Args:
        matrices: How each array is seen as matrices.
        nesterov: As above.
        polynomial: As in `orthogonalise`.
        steps: Likewise.
        scale: A key of `SCALES`.
        product_dtype: The dtype of the products of matrices, by its name; None for that of the arrays.

    Example:
        >>> import numpy as np
        >>> from polyak.update import pipeline
        >>> update = pipeline(muon(Matrices((2, 2)), nesterov=False, steps=8))
        >>> g, w = np.array([[2.0, 0.0], [0.0, 0.5]]), np.ones((2, 2))
        >>> w, _ = update.apply(g, w, (np.zeros((2, 2)),), update.Hyperparameters(learning_rate=0.25, momentum=0.5))
        >>> w.round(6)
        array([[0.75, 1.  ],
               [1.  , 0.75]])
    """
    coefficients(polynomial, steps)  # for its errors
    momentum = heavy_ball(velocity="average", nesterov=nesterov).step
    factor = shape_scale(scale, matrices)

    def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        direction, slots = momentum(g, w, slots, _Unit(h.momentum))
        several = direction.shape
        count = math.prod(several[: -len(matrices.shape)])
        of = matrices.of(reshaped(direction, (count, *matrices.shape)))
        orthogonal = orthogonalise(cast(of, product_dtype) if product_dtype else of, polynomial, steps)
        back = reshaped(matrices.back(cast(orthogonal, direction.dtype) if product_dtype else orthogonal), several)
        return h.learning_rate * (factor * back), slots

    return Rule("muon", step, ("velocity",), ("learning_rate", "momentum"), whole=True)


def shape_scale(scale: Scale, matrices: Matrices) -> float:
    """The factor of the learning rate for matrices of this shape; see `SCALES`.

    Example:
        >>> shape_scale("spectral", Matrices((3072, 768))), shape_scale("match_rms_adamw", Matrices((100, 64)))
        (2.0, 2.0)
    """
    return SCALES[check_scale(scale)](matrices.rows, matrices.cols) if matrices.cols else 1.0


def check_scale(value: Any) -> Scale:
    """The name of a scale."""
    if value not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}; got {value!r}.")
    scale: Scale = value
    return scale
