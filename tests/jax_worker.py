"""Training on several devices; `test_jax_distributed.py` starts it and reads what it writes.

python jax_worker.py sharded FILE             one process with 8 devices
python jax_worker.py RANK FILE PORT           one of two processes with 4 devices each; rank 0 writes
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from polyak.jax import momentum

SPECS = {"w": P("x", "y"), "b": P("y"), "half": P("x"), "scale": P()}
SHAPES = {"w": (8, 6), "b": (6,), "half": (8,), "scale": ()}
OPTIONS = {"nesterov": True, "weight_decay": 0.01, "decay": "decoupled"}
STEPS = 10


def params():
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return values | {"half": values["half"].astype(jnp.bfloat16)}


def gradients(t):
    rng = np.random.default_rng(1 + t)
    return {
        name: rng.standard_normal(shape).astype(w.dtype)
        for (name, shape), w in zip(SHAPES.items(), params().values(), strict=True)
    }


def train(place):
    """The last parameters and state. `place` puts a tree on devices."""
    optimizer = momentum(optax.linear_schedule(0.1, 0.0, STEPS), 0.9, **OPTIONS)

    @jax.jit
    def step(weights, state, grads):
        updates, state = optimizer.update(grads, state, weights)
        return optax.apply_updates(weights, updates), state

    weights = place(params())
    state = jax.jit(optimizer.init)(weights)
    assert all(v.sharding.is_equivalent_to(weights[name].sharding, v.ndim) for name, v in state.velocity.items())
    for t in range(STEPS):
        weights, state = step(weights, state, place(gradients(t)))
    return weights, state


def main(rank, file, port=None):
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
    assert jax.device_count() == 8
    results = {}
    for axes in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(axes, axes))
        shardings = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}

        def place(tree, shardings=shardings):
            # Every process makes all values and keeps its own part of them.
            return {
                name: jax.make_array_from_callback(np.shape(x), shardings[name], np.asarray(x).__getitem__)
                for name, x in tree.items()
            }

        with jax.set_mesh(mesh):
            weights, state = train(place)
            for tree in (weights, state.velocity):
                for name, x in tree.items():
                    assert x.sharding.is_equivalent_to(shardings[name], x.ndim), (name, x.sharding)
            whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))((weights, state.velocity))
        for kind, tree in zip(("weight", "velocity"), whole, strict=True):
            for name, x in tree.items():
                results[f"{axes}/{kind}/{name}"] = np.asarray(x.addressable_data(0), np.float32)
    if rank == "0":
        np.savez(file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
