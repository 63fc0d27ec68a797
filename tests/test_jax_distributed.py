"""Parameters on 8 devices, of one process or of two, get the weights of one device, and slots where the parameters are."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_worker

WORKER = Path(jax_worker.__file__)


def run(file, count):
    """What so many processes write that share 8 devices."""
    port = [] if count == 1 else [free_port()]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // count}"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(file), *port], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)
    with np.load(file) as results:
        return dict(results)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return str(s.getsockname()[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_the_weights_of_one_device(processes, tmp_path):
    results = run(tmp_path / "results.npz", processes)
    weights, state = jax_worker.train(lambda tree: jax.tree.map(jnp.asarray, tree))
    expected = {f"weight/{name}": w for name, w in weights.items()} | {
        f"velocity/{name}": v for name, v in state.slots["velocity"].items()
    }
    assert len(results) == 2 * len(expected)
    for key, found in results.items():
        # The update is element by element, so where an element is makes no difference to a bit of it.
        assert found.tobytes() == np.asarray(expected[key.split("/", 1)[1]], np.float32).tobytes(), key
