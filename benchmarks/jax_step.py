"""How long a step takes in JAX: polyak.jax.momentum against optax.sgd.

    python benchmarks/jax_step.py [--quick] [--cases a,b]

A step is `update` and `optax.apply_updates` under one jit that is given the buffers of weights and state. The two take turns,
step by step, in an order that changes; a figure is the median over the rounds. "ratio" is the time of optax over Polyak's:
above 1, Polyak is faster. GB/s counts each weight, gradient and velocity read and each weight and velocity written once, 20
bytes a parameter; the bandwidth beside it is that of negating an array in place, 8 bytes an element, in JAX too.
"""

import argparse
import random
from typing import Any

import jax
import jax.numpy as jnp
import optax
from shapes import CASES
from timing import Step, race

from polyak.jax import momentum

LR = 1e-4
CONTESTS: dict[str, dict[str, optax.GradientTransformation]] = {
    "momentum": {"optax": optax.sgd(LR, 0.9), "polyak": momentum(LR, 0.9)},
    "nesterov": {"optax": optax.sgd(LR, 0.9, nesterov=True), "polyak": momentum(LR, 0.9, nesterov=True)},
    "coupled decay": {
        "optax": optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(LR, 0.9)),
        "polyak": momentum(LR, 0.9, weight_decay=1e-4, decay="coupled"),
    },
    "decoupled decay": {
        "optax": optax.chain(optax.trace(0.9), optax.add_decayed_weights(1e-4), optax.scale_by_learning_rate(LR)),
        "polyak": momentum(LR, 0.9, weight_decay=1e-4, decay="decoupled"),
    },
    "schedule": {
        "optax": optax.sgd(optax.cosine_decay_schedule(LR, 1000), 0.9),
        "polyak": momentum(optax.cosine_decay_schedule(LR, 1000), 0.9),
    },
}


def stepper(optimizer: optax.GradientTransformation, shapes: list[tuple[int, ...]], grads: list[jax.Array]) -> Step:
    """A step of weights of its own."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    params = [jnp.ones(shape) for shape in shapes]
    held = [params, optimizer.init(params)]

    def run() -> None:
        held[:] = jax.block_until_ready(compiled(*held, grads))

    return run


def bandwidth(rounds: int) -> float:
    """Of negating an array in place, in GB/s."""
    negate = jax.jit(jnp.negative, donate_argnums=0)
    held = [jnp.ones(64 << 20)]

    def run() -> None:
        held[0] = negate(held[0]).block_until_ready()

    return 8 * (64 << 20) / race({"negate": run}, rounds, 1)["negate"] / 1e9


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--cases", default="a,b,c,d,e", help="letters, with commas between them")
    arguments = parser.parse_args()
    rounds = 9 if arguments.quick else 31
    random.seed(0)
    print(f"jax {jax.__version__}, optax {optax.__version__}; times in ms")
    for case in arguments.cases.split(","):
        title, shapes = CASES[case]
        grads = [jnp.full(shape, 1e-3) for shape in shapes]
        size = sum(g.size for g in grads)
        print(f"\n({case}) {title}: {size:,} parameters; in place {bandwidth(rounds):.1f} GB/s")
        inner = 50 if size < 100_000 else 1
        # XLA compiles the 10,000 tensors for a minute, each time.
        contests = {"momentum": CONTESTS["momentum"]} if len(shapes) > 1000 else CONTESTS
        for name, optimizers in contests.items():
            t = race({who: stepper(o, shapes, grads) for who, o in optimizers.items()}, rounds, inner)
            print(
                f"    {name:16} polyak {1e3 * t['polyak']:9.4f}  optax {1e3 * t['optax']:9.4f}"
                f"  ratio {t['optax'] / t['polyak']:5.2f}  {20 * size / t['polyak'] / 1e9:5.1f} GB/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
