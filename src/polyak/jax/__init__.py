"""Polyak for JAX: optax gradient transformations.

    optimizer = polyak.jax.momentum(0.1, 0.9)

takes the place of `optax.sgd(0.1, 0.9)`.
"""

from polyak.jax.aggmo import aggmo
from polyak.jax.lars import lars
from polyak.jax.lion import lion
from polyak.jax.momentum import momentum
from polyak.jax.muon import muon
from polyak.jax.qhm import qhm
from polyak.jax.reporting import check_finite
from polyak.jax.schedule_free import averaged, schedule_free
from polyak.jax.signum import signum
from polyak.jax.transformation import State

__all__ = ["State", "aggmo", "averaged", "check_finite", "lars", "lion", "momentum", "muon", "qhm", "schedule_free", "signum"]
