"""Polyak for JAX: optax gradient transformations.

    optimizer = polyak.jax.momentum(0.1, 0.9)

takes the place of `optax.sgd(0.1, 0.9)`.
"""

from polyak.jax.momentum import MomentumState, momentum

__all__ = ["MomentumState", "momentum"]
