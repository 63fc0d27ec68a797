"""How long a step of each method takes: polyak.torch against the torch optimizers that offer it.

    python benchmarks/family.py [--quick] [--cases b,c] [--threads 1,2] [--methods Lion,QHM]

The peers are pytorch-optimizer, lion-pytorch and schedulefree, each with its foreach path and its loop where it has both, as
far as they are installed: pip install pytorch-optimizer lion-pytorch schedulefree. All take turns, step by step, in an order
that changes; a figure is the median over the rounds. "ratio" is the time of the fastest peer over Polyak's: above 1, Polyak is
faster. GB/s counts each gradient, weight and slot read and each weight and slot written once; the bandwidth beside it is that
of negating an array in place. "guarded" is a step with max_norm and finite="skip", as a multiple of the plain one: one more
read of the gradients.
"""

import argparse
import random
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from itertools import product
from typing import Any

import numba
import torch
from shapes import CASES
from timing import Step, race
from torch_step import bandwidth, parameters

import polyak.torch

LR = 1e-4
# Method -> Polyak's arguments, and for each peer its module, class and arguments for the same recursion.
METHODS: dict[str, tuple[dict[str, Any], list[tuple[str, str, dict[str, Any]]]]] = {
    "QHM": ({"momentum": 0.9, "nu": 0.7}, [("pytorch_optimizer", "QHM", {"momentum": 0.9, "nu": 0.7})]),
    "AggMo": ({"momenta": (0.0, 0.9, 0.99)}, [("pytorch_optimizer", "AggMo", {"betas": (0.0, 0.9, 0.99)})]),
    "Signum": ({"momentum": 0.9}, [("pytorch_optimizer", "SignSGD", {"momentum": 0.9})]),
    "Lion": (
        {"b1": 0.9, "b2": 0.99},
        [("pytorch_optimizer", "Lion", {"betas": (0.9, 0.99)}), ("lion_pytorch", "Lion", {"betas": (0.9, 0.99)})],
    ),
    "LARS": ({"momentum": 0.9, "trust_coefficient": 0.001}, [("pytorch_optimizer", "LARS", {"momentum": 0.9})]),
    "ScheduleFree": ({"momentum": 0.9}, [("schedulefree", "SGDScheduleFree", {"momentum": 0.9})]),
}
SLOTS = {"AggMo": 3}


def peers(method: str, params: list[Any]) -> Iterator[tuple[str, Step]]:
    """A step of each peer that is installed, with and without its foreach path."""
    for module, name, arguments in METHODS[method][1]:
        if find_spec(module) is None:
            continue
        make = getattr(import_module(module), name)
        for label, how in (("foreach", {"foreach": True}), ("loop", {"foreach": False})):
            if "foreach" not in signature(make).parameters:
                label, how = "", {}
            peer = make(params, lr=LR, **arguments, **how)
            if module == "schedulefree":
                peer.train()
            yield f"{module} {label}".strip(), peer.step
            if not how:
                break


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--cases", default="a,b,c,d,e", help="letters, with commas between them")
    parser.add_argument("--threads", default="1,2", help="numbers, with commas between them")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas between them")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 31
    random.seed(0)
    torch.manual_seed(0)
    for threads, case in product(map(int, arguments.threads.split(",")), arguments.cases.split(",")):
        torch.set_num_threads(threads)
        numba.set_num_threads(threads)
        title, shapes = CASES[case]
        params = parameters(shapes)
        size = sum(p.numel() for p in params)
        print(f"\n({case}) {title}, {threads} threads: {size:,} parameters; in place {bandwidth(rounds):.1f} GB/s")
        for method in arguments.methods.split(","):
            make, options = getattr(polyak.torch, method), METHODS[method][0]
            steps = {
                "polyak": make(params, LR, **options).step,
                "guarded": make(params, LR, **options, max_norm=1.0, finite="skip").step,
                **dict(peers(method, params)),
            }
            times = race(steps, rounds, 50 if case == "e" else 1)
            ours, guarded = times.pop("polyak"), times.pop("guarded")
            ratio = f"{min(times.values()) / ours:5.2f}" if times else "no peer"
            traffic = 4 * (3 + 2 * SLOTS.get(method, 1)) * size / ours / 1e9
            others = "  ".join(f"{name} {1e3 * t:.3f}" for name, t in times.items())
            speed = f"ratio {ratio}  {traffic:5.1f} GB/s  guarded {guarded / ours:4.2f}"
            print(f"    {method:12} {1e3 * ours:9.3f} ms  {speed}  {others}", flush=True)


if __name__ == "__main__":
    main()
