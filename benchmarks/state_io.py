"""How fast a state is saved, and in how much memory: polyak.state.save against safetensors.numpy.save_file.

    python benchmarks/state_io.py [--gigabytes 1.0] [--rounds 9] [--folder .]

Both save the same arrays over a file that is there, taking turns; the times are medians, and the ratio is that of save_file
over Polyak's: above 1, Polyak is faster. save_file leaves the numbers with the operating system, so it is timed with an fsync
after it, as Polyak has one before its rename. In a folder in memory (/dev/shm) the disk does not count.

Memory is measured in a process of its own for each front-end: by how much its resident memory grows at most while it saves.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

TENSORS = 16
FRONT_ENDS = ("numpy", "torch", "jax", "keras-tensorflow", "keras-jax", "keras-torch")


def optimizer(front_end: str, size: int) -> tuple[Any, Any]:
    """An optimizer with slots of `size` elements of float32 in 16 tensors, and its parameters."""
    shape = (size // TENSORS,)
    if front_end == "numpy":
        import polyak.numpy

        weights = {f"w{i}": np.zeros(shape, np.float32) for i in range(TENSORS)}
        made: Any = polyak.numpy.Momentum(weights)
        made.step({name: np.full(shape, 0.5, np.float32) for name in weights})
        return made, None
    if front_end == "torch":
        import torch

        import polyak.torch

        params = {f"w{i}": torch.zeros(shape, requires_grad=True) for i in range(TENSORS)}
        made = polyak.torch.Momentum(params.values())
        for p in params.values():
            p.grad = torch.full(shape, 0.5)
        made.step()
        return made, params
    if front_end == "jax":
        import jax.numpy as jnp

        import polyak.jax

        arrays = {f"w{i}": jnp.zeros(shape) for i in range(TENSORS)}
        made = polyak.jax.momentum(0.1)
        return (made, made.update({name: jnp.full(shape, 0.5) for name in arrays}, made.init(arrays))[1]), arrays
    import keras

    import polyak.keras

    variables = {f"w{i}": keras.Variable(np.zeros(shape, np.float32)) for i in range(TENSORS)}
    made = polyak.keras.Momentum()
    made.apply([keras.ops.full(shape, 0.5) for _ in variables], list(variables.values()))
    for variable in made.variables:
        assert keras.ops.all(variable >= 0)  # computed, and not on its way
    return made, variables


def resident(kind: str) -> int:
    """Resident memory of this process in bytes: "VmRSS" at present, "VmHWM" at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{kind}:")[1].split()[0])


def growth(front_end: str, size: int, folder: Path) -> None:
    """Print how many bytes of memory saving takes beyond those of the optimizer."""
    from polyak import state

    made, params = optimizer(front_end, size)
    state.save(folder / "memory", optimizer("numpy", 1024)[0])  # the modules are in memory then, and the file is small again
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    before = resident("VmRSS")
    state.save(folder / "memory", made, params)
    print(resident("VmHWM") - before)
    (folder / "memory").unlink()


def report_memory(size: int, folder: Path) -> None:
    """Print, for each front-end, how much memory saving takes."""
    largest = 4 * size // TENSORS
    for front_end in FRONT_ENDS:
        environment = {**os.environ, "KERAS_BACKEND": front_end.removeprefix("keras-"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--growth", front_end, "--gigabytes", str(4 * size / 1e9), "--folder", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603  (this file)
        grown = int(done.stdout.split()[-1])
        print(f"{front_end:17} grows by {grown / 1e6:6.1f} MB, {grown / largest:5.2f} of a tensor ({largest / 1e6:.0f} MB)")


def report_speed(size: int, folder: Path, rounds: int) -> None:
    """Print how long both take to save the same arrays."""
    from safetensors.numpy import save_file

    from polyak import state

    made, _ = optimizer("numpy", size)
    arrays = {f"velocity/{name}": array for name, array in made.slots["velocity"].items()}

    def theirs() -> None:
        path = folder / "theirs"
        save_file(arrays, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    contenders: dict[str, Callable[[], None]] = {
        "polyak": lambda: state.save(folder / "ours", made),
        "save_file": theirs,
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for r in range(rounds + 1):
        for name in sorted(contenders, reverse=bool(r % 2)):
            start = time.perf_counter()
            contenders[name]()
            if r:  # the first round makes the files
                times[name].append(time.perf_counter() - start)
    for name in ("ours", "theirs"):
        (folder / name).unlink()
    a, b = (median(times[name]) for name in contenders)
    gigabytes = 4 * size / 1e9
    print(
        f"{folder}: polyak {a:.2f} s ({gigabytes / a:.2f} GB/s)  save_file + fsync {b:.2f} s ({gigabytes / b:.2f} GB/s)  "
        f"ratio {b / a:.2f}"
    )


def main() -> None:
    """Measure speed and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of slots")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--growth", choices=FRONT_ENDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = int(arguments.gigabytes * 1e9 / 4) // TENSORS * TENSORS
    if arguments.growth:
        growth(arguments.growth, size, arguments.folder)
        return
    folders = [arguments.folder, *(f for f in [Path("/dev/shm")] if f.is_dir())]  # noqa: S108  (memory, which is the point)
    for folder in folders:
        report_speed(size, folder, arguments.rounds)
    report_memory(size, folders[-1])


if __name__ == "__main__":
    main()
