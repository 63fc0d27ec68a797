"""What looks at all gradients together: the bound of their norm, and whether all of them are finite."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from polyak.ops import Array
from polyak.update import clip_scale


class Guard:
    """One look at the gradients of a step.

    Args:
        leaves: The gradients.
        count: The number of steps before, which is not negative.
        max_norm: The bound of their norm, or None.
        watch: Whether a step is left out in which one of them is not finite.

    Attributes:
        is_bounded: Whether there is a bound.
        scale: What the gradients have to be multiplied by, a scalar; 1.0 without a bound.
        passes: Whether the step is taken, a boolean scalar; None if every step is.
        zero: A scalar that is 0, which no compiler can tell; see `polyak.jax.guarded`.
    """

    def __init__(self, leaves: Sequence[Array], count: jax.Array, max_norm: Any, *, watch: bool) -> None:
        self.is_bounded = max_norm is not None
        self.scale: Any = 1.0
        self.zero = jnp.minimum(count, 0)
        self.passes = self._finite = None
        if max_norm is None and not watch:
            return
        squares = _stacked([_sum_of_squares(g) for g in leaves], jnp.float32)
        if watch:
            self._finite = _finite(leaves, squares)
            self.passes = self._finite.all()
        if max_norm is not None:
            norm = jnp.sqrt(squares.sum())
            self.scale = clip_scale(norm, max_norm)
            if self.passes is not None:
                self.scale = jnp.where(self.passes, self.scale, 1)  # 0 times it must be 0

    def skipped(self, before: Any) -> Any:
        """The number of steps that were left out, with this one."""
        return before if self.passes is None else before + ~self.passes

    def nonfinite(self, before: Any) -> Any:
        """For each parameter, the number of steps in which its gradient was not finite, with this one."""
        return before if before is None or self._finite is None else before + ~self._finite


def norm(x: Array) -> jax.Array:
    """The Euclidean norm of an array, in float32 at least; also of one whose squares are too small or too large."""
    squares = _sum_of_squares(x)

    def rescaled() -> jax.Array:
        peak = jnp.abs(x).max(initial=0).astype(squares.dtype)
        return peak * jnp.sqrt(_sum_of_squares(x / jnp.where(peak == 0, 1, peak)))

    # Between these bounds squares that vanish are of no account. Else the array is looked at again.
    is_accurate = (squares > 1e-20) & (squares < jnp.inf)
    return jax.lax.cond(is_accurate, lambda: jnp.sqrt(squares), rescaled)  # type: ignore[no-any-return]  # cond has no types


def _stacked(scalars: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """A vector; of no scalars too."""
    return jnp.stack(scalars) if scalars else jnp.zeros(0, dtype)


def _sum_of_squares(g: Array) -> jax.Array:
    """Of the absolute values, in float32 at least."""
    x = jnp.asarray(g, jnp.promote_types(jnp.result_type(g), jnp.float32))
    return jnp.sum(x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x)


def _finite(leaves: Sequence[Array], squares: jax.Array) -> jax.Array:
    """Which gradients are finite, as their sums of squares tell: those are the fastest to compute, and may be needed anyway.

    A sum that overflowed tells nothing. Only then are the gradients looked at again.
    """

    def look() -> jax.Array:
        return _stacked([jnp.isfinite(g).all() for g in leaves], jnp.bool_)

    all_are = jnp.isfinite(squares).all()
    return jax.lax.cond(all_are, lambda: jnp.ones(len(leaves), jnp.bool_), look)  # type: ignore[no-any-return]  # as above
