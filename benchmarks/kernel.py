"""What the compiled kernel costs beside its step: statistics in the same pass, and the start of a process.

    python benchmarks/kernel.py [--quick]

"statistics" is the time of a step that also takes the sums of squares and the dot product of each tensor, over that of a plain
step; the two take turns. The starts are processes of their own on an empty cache folder and then on the one that was filled:
the time of the first step of a small model, which compiles or loads the code for one thread, and then that of a large one,
for which the code for several is needed too. The constructor's time, which is torch's own (SGD's beside it), is not in them.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from shapes import CASES, Shapes
from timing import race

from polyak.compile import Table, address, kernel
from polyak.rules import heavy_ball
from polyak.update import pipeline

H = {"learning_rate": 1e-4, "momentum": 0.9}

START = """
import time
import torch, polyak.torch
def first_step(size):
    p = torch.zeros(size, requires_grad=True)
    p.grad = torch.ones(size)
    optimizer = polyak.torch.Momentum([p], 0.1, 0.9)
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start
start = time.perf_counter()
torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
print(time.perf_counter() - start, first_step(100), first_step(1_000_000))
"""


def statistics(shapes: Shapes, threads: int, rounds: int) -> float:
    """The time of a step with statistics over that of a plain one."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    rng = np.random.default_rng(0)
    weights, gradients = ([rng.standard_normal(n, np.float32) for n in sizes] for _ in range(2))
    velocities = [np.zeros(n, np.float32) for n in sizes]
    table = Table(sizes, [[address(a) for a in row] for row in (weights, velocities)])
    update, of_gradients = pipeline(heavy_ball()), [address(g) for g in gradients]
    plain, watched = kernel(update, "float32"), kernel(update, "float32", statistics=True)
    times = race(
        {
            "plain": lambda: plain(table, of_gradients, H, threads=threads),
            "statistics": lambda: watched(table, of_gradients, H, threads=threads),
        },
        rounds,
    )
    return times["statistics"] / times["plain"]


def starts(processes: int) -> None:
    """Print the first steps of processes that share a cache folder, empty at first."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(processes):
            run = subprocess.run(  # noqa: S603  (the text above)
                [sys.executable, "-c", START],
                env=os.environ | {"POLYAK_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            constructor, small, large = map(float, run.stdout.split())
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            what = f"{'compiled' if i == 0 else 'cached':9} small {small:5.2f} s  large {large:5.2f} s"
            print(f"{what}  cache {size:,} bytes  (SGD's constructor {constructor:4.2f} s)", flush=True)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    quick = parser.parse_args().quick
    random.seed(0)
    for case in "bca":
        title, shapes = CASES[case]
        for threads in (1, 2):
            print(f"statistics, {title}, {threads} threads: {statistics(shapes, threads, 9 if quick else 31):.3f}", flush=True)
    starts(2 if quick else 4)


if __name__ == "__main__":
    main()
