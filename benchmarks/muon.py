"""How long a step of Muon takes: polyak.torch.Muon against torch.optim.Muon, and how orthogonal the steps are.

    python benchmarks/muon.py [--quick] [--layers 12] [--threads 1,2]

The matrices are the 48 of GPT-2 small's blocks (Radford et al. 2019), in PyTorch's order of the dimensions. All contenders take
turns, step by step, in an order that changes; a figure is the median over the rounds. "ratio" is the time of torch.optim.Muon
over Polyak's: above 1, Polyak is faster.

The orthogonality is that of a first step from normally distributed gradients, whose smallest singular values are close to 0:
the least and the greatest singular value of all 4 shapes, and the root mean square of their distance to 1.
"""

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from polyak.rules.orthogonal import band, orthogonalise
from polyak.torch.muon import Muon

D = 768
BLOCK = [(3 * D, D), (D, D), (4 * D, D), (D, 4 * D)]
QUINTIC = (3.4445, -4.7750, 2.0315)
LR = 1e-4


def race(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median time of one step of each, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for step in steps.values():
        step()
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            start = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in times.items()}


def contenders(params: list[Tensor]) -> dict[str, Any]:
    """Optimizers of the same matrices."""
    named = [(f"matrix_{i}", p) for i, p in enumerate(params)]
    return {
        "torch": torch.optim.Muon(params, lr=LR, weight_decay=0.0),
        "polyak quintic": Muon(named, lr=LR, polynomial="quintic"),
        "polyak": Muon(named, lr=LR),
        "polyak bfloat16": Muon(named, lr=LR, product_dtype=torch.bfloat16),
    }


def functions() -> dict[str, Callable[[Tensor], Tensor]]:
    """The orthogonalisation of each, for one matrix."""
    return {
        "torch": partial(_zeropower_via_newtonschulz, ns_coefficients=QUINTIC, ns_steps=5, eps=1e-7),
        "polyak quintic": partial(orthogonalise, polynomial="quintic"),
        "polyak": orthogonalise,
        "polyak bfloat16": lambda g: orthogonalise(g.bfloat16()),
    }


def orthogonality(function: Callable[[Tensor], Tensor], gradients: list[Tensor]) -> str:
    """Least and greatest singular value, and their distance to 1."""
    s = torch.cat([torch.linalg.svdvals(function(g).float()) for g in gradients])
    return f"{s.min():.3f} .. {s.max():.3f}, distance {(s - 1).square().mean().sqrt():.3f}"


def report(title: str, times: dict[str, float], notes: dict[str, str]) -> None:
    """A table with the ratios."""
    print(f"\n{title}")
    for name, t in times.items():
        print(f"    {name:16} {1e3 * t:9.1f} ms   ratio {times['torch'] / t:5.2f}   {notes.get(name, '')}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, 2 layers")
    parser.add_argument("--layers", type=int, default=12, help="each with 4 matrices")
    parser.add_argument("--threads", default="1,2", help="numbers, with commas between them")
    arguments = parser.parse_args()
    layers, rounds = (2, 3) if arguments.quick else (arguments.layers, 9)
    random.seed(0)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    for name in ("quintic", "polar_express"):
        print("{}: singular values from 1e-3 to 1 end in {:.3f} .. {:.3f}".format(name, *band(name, 5)))
    gradients = [torch.randn(shape) for shape in BLOCK]
    notes = {name: orthogonality(function, gradients) for name, function in functions().items()}
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        params = [torch.randn(shape).requires_grad_() for shape in layers * BLOCK]
        for p in params:
            p.grad = torch.randn_like(p)
        steps = {name: optimizer.step for name, optimizer in contenders(params).items()}
        label = f"{threads} thread{'s' * (threads > 1)}"
        report(f"step of {len(params)} matrices, {label}", race(steps, rounds), notes)


if __name__ == "__main__":
    main()
