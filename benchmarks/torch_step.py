"""How long a step takes: polyak.torch.Momentum against torch.optim.SGD, and polyak.numpy.Momentum against NumPy in place.

    python benchmarks/torch_step.py [--quick] [--cases a,b] [--threads 1,2]

All contenders of a line take turns, step by step, in an order that changes; a figure is the median over the rounds. "ratio"
is the time of the fastest peer over Polyak's: above 1, Polyak is faster. GB/s counts each weight, gradient and velocity read
and each weight and velocity written once, 20 bytes a parameter; the bandwidth beside it is that of negating an array in
place, 8 bytes an element.
"""

import argparse
import random
from itertools import product
from typing import Any

import numba
import numpy as np
import torch
from shapes import CASES, Shapes
from timing import Step, race
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

import polyak.numpy
import polyak.torch

PEERS: dict[str, dict[str, Any]] = {"default": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
LR = 1e-4


def parameters(shapes: Shapes) -> list[Tensor]:
    """Weights with gradients that stay as they are."""
    params = [torch.randn(shape).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def momentum(params: list[Tensor], **options: Any) -> dict[str, Step]:
    """A plain step of each contender on the same parameters."""
    steps: dict[str, Step] = {
        name: torch.optim.SGD(params, LR, momentum=0.9, **options, **how).step for name, how in PEERS.items()
    }
    return steps | {"polyak": polyak.torch.Momentum(params, LR, 0.9, **options).step}


def nesterov(params: list[Tensor]) -> dict[str, Step]:
    """The same with Nesterov's step."""
    return momentum(params, nesterov=True)


def clip_and_decay(params: list[Tensor]) -> dict[str, Step]:
    """A bound on the global norm, and coupled weight decay."""

    def clipped(step: Step) -> Step:
        return lambda: (clip_grad_norm_(params, 1.0, foreach=True), step())

    steps = {
        name: clipped(torch.optim.SGD(params, LR, momentum=0.9, weight_decay=1e-4, **how).step) for name, how in PEERS.items()
    }
    options: dict[str, Any] = {"weight_decay": 1e-4, "decay": "coupled", "max_norm": 1.0}
    return steps | {"polyak": polyak.torch.Momentum(params, LR, 0.9, **options).step}


def numpy(params: list[Tensor]) -> dict[str, Step]:
    """NumPy as one would write it with care: in place, with one array to compute in."""
    weights = {str(i): p.detach().numpy() for i, p in enumerate(params)}
    gradients = {str(i): p.grad.numpy() for i, p in enumerate(params) if p.grad is not None}
    velocities = {name: np.zeros_like(w) for name, w in weights.items()}
    room = np.empty(max(w.size for w in weights.values()), np.float32)
    lr, m = np.float32(LR), np.float32(0.9)

    def in_place() -> None:
        for name, w in weights.items():
            v, step = velocities[name], room[: w.size].reshape(w.shape)
            np.multiply(v, m, out=v)
            np.add(v, gradients[name], out=v)
            np.multiply(v, lr, out=step)
            np.subtract(w, step, out=w)

    optimizer = polyak.numpy.Momentum(weights, LR, 0.9)
    return {"numpy": in_place, "polyak": lambda: optimizer.step(gradients)}


def bandwidth(rounds: int) -> float:
    """Of negating an array in place, in GB/s."""
    x = torch.randn(64 << 20)
    return 8 * x.numel() / race({"neg": lambda: torch.neg(x, out=x)}, rounds, 1)["neg"] / 1e9


def report(label: str, steps: dict[str, Step], size: int, rounds: int, inner: int) -> None:
    """One line of the table."""
    times = race(steps, rounds, inner)
    ours = times.pop("polyak")
    fastest = min(times.values())
    peers = "  ".join(f"{name} {1e3 * t:9.4f}" for name, t in times.items())
    print(f"{label:44} polyak {1e3 * ours:9.4f} ms  {peers}  ratio {fastest / ours:5.2f}  {20 * size / ours / 1e9:5.1f} GB/s")


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--cases", default="a,b,c,d,e", help="letters, with commas between them")
    parser.add_argument("--threads", default="1,2", help="numbers, with commas between them")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 31
    random.seed(0)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, numba {numba.__version__}, numpy {np.__version__}; times in ms")
    for threads, case in product(map(int, arguments.threads.split(",")), arguments.cases.split(",")):
        torch.set_num_threads(threads)
        numba.set_num_threads(threads)
        title, shapes = CASES[case]
        params = parameters(shapes)
        size = sum(p.numel() for p in params)
        inner = 50 if case == "e" else 1
        label = f"({case}) {title}, {threads} thread{'s' * (threads > 1)}"
        print(f"\n{label}: {size:,} parameters; in place {bandwidth(rounds):.1f} GB/s")
        for contest in (momentum, nesterov, clip_and_decay, numpy):
            if contest is numpy and case in "de":
                continue
            report(f"    {contest.__name__}", contest(params), size, rounds, inner)


if __name__ == "__main__":
    main()
