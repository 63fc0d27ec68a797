"""The workers: which of them this machine can start, and what they wrote."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from polyak.bits.cases import Array

# The first of those that are installed is what the others are compared with.
TITLES = {
    "numpy": "NumPy",
    "torch": "PyTorch",
    "jax": "JAX",
    "keras-tensorflow": "Keras/TensorFlow",
    "keras-jax": "Keras/JAX",
    "keras-torch": "Keras/PyTorch",
}
# The modules that each needs. NumPy is there where Polyak is.
_NEEDED = {
    "torch": ("torch",),
    "jax": ("jax", "optax"),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-jax": ("keras", "jax"),
    "keras-torch": ("keras", "torch"),
}
_SLOWEST_FIRST = ("keras-tensorflow", "keras-jax", "jax", "keras-torch", "torch", "numpy")

# The contract is about the processor: on an accelerator each framework has its own order of things.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Result:
    """What one framework computed.

    Attributes:
        digests: A number for the state after each step, (cases, steps), uint64; 0 where it was not made.
        last: The last state of each case, (1 + slots, elements), float32.
    """

    digests: npt.NDArray[np.uint64]
    last: list[Array]


class WorkerFailed(RuntimeError):  # noqa: N818  (it says what happened)
    """A framework is installed but did not get through."""


def missing(framework: str) -> list[str]:
    """The modules that a framework needs and this machine does not have."""
    return [module for module in _NEEDED.get(framework, ()) if find_spec(module) is None]


def run(frameworks: Sequence[str], done: Callable[[str], None], steps: Sequence[int] = ()) -> dict[str, Result | WorkerFailed]:
    """Run all cases in each framework, as many frameworks at a time as there are processors.

    Args:
        frameworks: Keys of `TITLES`.
        done: Called with each as it ends.
        steps: How many steps to make of each case, if not all.

    Returns:
        The results in the order of `frameworks`, or why one failed.
    """
    running: set[subprocess.Popen[str]] = set()

    def one(framework: str, folder: str) -> Result | WorkerFailed:
        file = Path(folder) / f"{framework}.npz"
        try:
            return _read(_work(framework, file, running, dict(enumerate(steps))))
        except WorkerFailed as failed:
            return failed
        finally:
            done(framework)

    names = sorted(frameworks, key=_SLOWEST_FIRST.index)
    with tempfile.TemporaryDirectory(prefix="polyak-bits-") as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            found = dict(zip(names, pool.map(lambda name: one(name, folder), names), strict=True))
        except BaseException:  # Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise
    return {name: found[name] for name in frameworks}


def state_after(framework: str, case: int, steps: int) -> Array:
    """The state of one case after so many steps, computed anew."""
    with tempfile.TemporaryDirectory(prefix="polyak-bits-") as folder:
        file = Path(folder) / "state.npz"
        _work(framework, file, set(), {case: steps})
        with np.load(file) as arrays:
            state: Array = arrays[str(case)]
            return state


def _work(framework: str, file: Path, running: set["subprocess.Popen[str]"], steps: Mapping[int, int]) -> Path:
    environment = os.environ | _ENVIRONMENT
    if framework.startswith("keras-"):
        environment["KERAS_BACKEND"] = framework.removeprefix("keras-")
    some = (f"{case}:{count}" for case, count in steps.items())
    words = [sys.executable, "-m", "polyak.bits.worker", framework, str(file), *some]
    with subprocess.Popen(  # noqa: S603  (our own module)
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        running.add(process)
        _, errors = process.communicate()
        running.discard(process)
    if process.returncode:
        raise WorkerFailed(errors.strip().splitlines()[-1] if errors.strip() else f"exit status {process.returncode}")
    return file


def _read(file: Path) -> Result:
    with np.load(file) as arrays:
        digests = arrays["digests"]
        return Result(digests, [arrays[str(i)] for i in range(len(digests))])
