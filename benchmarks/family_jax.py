"""How long a step of each method takes in JAX: polyak.jax against the transformations of optax that offer it.

    python benchmarks/family_jax.py [--quick] [--cases b,c] [--methods lion,muon]

A step is `update` and `optax.apply_updates` under one jit that is given the buffers of weights and state, as in jax_step.py.
All take turns, step by step, in an order that changes; a figure is the median over the rounds. "ratio" is the time of the
fastest peer over Polyak's: above 1, Polyak is faster. GB/s counts each gradient, weight and slot read and each weight and
slot written once; the bandwidth beside it is that of negating an array in place. "guarded" is a step with max_norm and
finite="skip", as a multiple of the plain one. Muon has the matrices of GPT-2 small's blocks or of an MLP instead (--matrices).
"""

import argparse
import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax_step import bandwidth, stepper
from shapes import CASES, GPT2_MATRICES, MLP_MATRICES
from timing import race

import polyak.jax

LR = 1e-4
Optimizers = dict[str, optax.GradientTransformation]
GUARD = {"max_norm": 1.0, "finite": "skip"}
# Method -> what of optax has the same recursion, and how many arrays Polyak keeps beside a weight.
PEERS: dict[str, tuple[Optimizers, int]] = {
    "momentum": ({"optax.sgd": optax.sgd(LR, 0.9)}, 1),
    "qhm": ({}, 1),
    "aggmo": ({}, 3),
    "signum": ({"optax.signum": optax.signum(LR, 0.9)}, 1),
    "lion": ({"optax.lion": optax.lion(LR, weight_decay=0.0)}, 1),
    "lars": ({"optax.lars": optax.lars(LR)}, 1),
    "schedule_free": ({"optax.contrib.schedule_free_sgd": optax.contrib.schedule_free_sgd(LR)}, 1),
}
# The quintic is optax's; ours by default is nearer to orthogonal at the same number of products.
MUON: Optimizers = {
    "optax.contrib.muon": optax.contrib.muon(LR),
    "polyak": polyak.jax.muon(LR),
    "polyak quintic": polyak.jax.muon(LR, polynomial="quintic"),
    "guarded": polyak.jax.muon(LR, **GUARD),
}


def report(label: str, optimizers: Optimizers, shapes: Sequence[tuple[int, ...]], rounds: int, arrays: int = 0) -> None:
    """One line of the table; with the bandwidth if the number of arrays that are read and written is given."""
    grads = [jnp.full(shape, 1e-3) + jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
    size = sum(g.size for g in grads)
    inner = 50 if size < 100_000 else 1
    times = race({name: stepper(o, list(shapes), grads) for name, o in optimizers.items()}, rounds, inner)
    ours, guarded = times.pop("polyak"), times.pop("guarded", None)
    peers = {name: t for name, t in times.items() if name.startswith("optax")}
    line = f"    {label:14} {1e3 * ours:9.3f} ms  ratio {f'{min(peers.values()) / ours:5.2f}' if peers else 'no peer'}"
    line += f"  {4 * arrays * size / ours / 1e9:5.1f} GB/s" if arrays else ""
    line += f"  guarded {guarded / ours:4.2f}" if guarded else ""
    print(line, "".join(f"  {name} {1e3 * t:.3f}" for name, t in times.items()), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--cases", default="a,b,c,d,e", help="letters, with commas between them")
    parser.add_argument("--methods", default=f"{','.join(PEERS)},muon", help="names, with commas between them")
    parser.add_argument("--matrices", default="gpt2,mlp", help="of Muon")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 31
    methods = arguments.methods.split(",")
    random.seed(0)
    print(f"jax {jax.__version__}, optax {optax.__version__}; times in ms")
    for case in filter(None, arguments.cases.split(",")):
        title, shapes = CASES[case]
        print(f"\n({case}) {title}; in place {bandwidth(rounds):.1f} GB/s")
        for method in methods:
            if method not in PEERS:
                continue
            make, (peers, slots) = getattr(polyak.jax, method), PEERS[method]
            optimizers = {"polyak": make(LR), **peers}
            if len(shapes) < 1000:  # XLA compiles 10,000 tensors for a minute, each time
                optimizers["guarded"] = make(LR, **GUARD)
            report(method, optimizers, shapes, rounds, arrays=3 + 2 * slots)
    for name in arguments.matrices.split(",") if "muon" in methods else ():
        matrices = {"gpt2": GPT2_MATRICES, "mlp": MLP_MATRICES}[name]
        print(f"\n{len(matrices)} matrices of {name}")
        report("muon", MUON, matrices, rounds if name == "mlp" else min(rounds, 9))


if __name__ == "__main__":
    main()
