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

from polyak.jax import check_finite, momentum

SPECS = {"w": P("x", "y"), "b": P("y"), "half": P("x"), "scale": P()}
SHAPES = {"w": (8, 6), "b": (6,), "half": (8,), "scale": ()}
OPTIONS = {
    "nesterov": True,
    "weight_decay": 0.01,
    "decay": "decoupled",
    "finite": "error",
    "groups": {"scale": {"momentum": 0.5}},
}
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
    assert all(v.sharding.is_equivalent_to(weights[name].sharding, v.ndim) for name, v in state.slots["velocity"].items())
    for t in range(STEPS):
        weights, state = step(weights, state, place(gradients(t)))
    return weights, state


def clipped(place):
    """The change of the weights, with a learning rate of 1, by gradients that are clipped to a norm of 1."""
    optimizer = momentum(1.0, 0, max_norm=1.0, finite="error")

    @jax.jit
    def change(grads, state):
        updates, state = optimizer.update(grads, state)
        return updates, jnp.sqrt(sum(jnp.sum(jnp.square(u)) for u in updates.values())), state

    bad = gradients(0)
    bad["w"][-1, -1] = np.nan
    _, norm, state = change(place(gradients(0)), optimizer.init(place(params())))
    left_out, _, state = change(place(bad), state)
    assert not any(jnp.any(u) for u in left_out.values())
    try:
        check_finite(state, params())
    except FloatingPointError as error:
        return float(norm), str(error)
    raise AssertionError


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
            norm, error = clipped(place)
            assert abs(norm - 1) < 1e-6  # of float32, from 63 elements
            assert error.endswith(": w (1)."), error
            weights, state = train(place)
            check_finite(state)
            for tree in (weights, state.slots["velocity"]):
                for name, x in tree.items():
                    assert x.sharding.is_equivalent_to(shardings[name], x.ndim), (name, x.sharding)
            whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))((weights, state.slots["velocity"]))
        for kind, tree in zip(("weight", "velocity"), whole, strict=True):
            for name, x in tree.items():
                results[f"{axes}/{kind}/{name}"] = np.asarray(x.addressable_data(0), np.float32)
    if rank == "0":
        np.savez(file, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
