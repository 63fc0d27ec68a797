"""Muon with parameters on 4 devices; `test_jax_muon.py` starts it, and reads what it writes: python jax_muon_worker.py FILE."""

import sys

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from polyak.jax import muon

SHAPES = {"a": (8, 4), "b": (8, 4), "kernel": (2, 2, 4, 8), "bias": (8,), "head": (4, 8)}
SPECS = {"a": P("x", "y"), "b": P(None, "x"), "kernel": P(None, None, "x", "y"), "bias": P("x"), "head": P("y")}


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def train(place):
    """The last parameters and velocities. `place` puts a tree on devices."""
    optimizer = muon(0.02, steps=1, weight_decay=0.5, max_norm=1.0, finite="error")

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = place(arrays(0))
    state = jax.jit(optimizer.init)(params)
    for t in range(2):
        params, state = step(params, state, place(arrays(1 + t)))
    return params, state.slots["velocity"]


def main(file):
    assert jax.device_count() == 4
    results = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))

        def place(tree, mesh=mesh):
            return {name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in tree.items()}

        with jax.set_mesh(mesh):
            params, velocities = train(place)
        expected = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
        for name, w in params.items():
            assert w.sharding.is_equivalent_to(expected[name], w.ndim), (name, w.sharding)
            results[f"{kind.name}/{name}"] = np.asarray(w)
        for name in ("a", "b", "kernel"):
            v = velocities[name]
            assert v.sharding.is_equivalent_to(expected[name], v.ndim), (name, v.sharding)
    np.savez(file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
