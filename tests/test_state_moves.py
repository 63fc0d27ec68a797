"""The proof that state moves: 50 steps here, 50 there, and the bits of 100 in one place, for each pair of front-ends.

In each case the halves that all front-ends save are the same, each is loaded by another one, and each one loads one. Which one
changes from case to case, so that each pair of them meets, though not in each case.
"""

import os
import platform
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from polyak.state.file import opened
from state_cases import CASES, FRAMEWORKS, NEAR, origins

WORKER = Path(__file__).with_name("state_worker.py")
# Without a fused multiply-add the frameworks round differently, and each goes on in its own way.
pytestmark = pytest.mark.skipif(
    platform.machine() == "x86_64" and Path("/proc/cpuinfo").exists() and " fma " not in Path("/proc/cpuinfo").read_text(),
    reason="the processor has no fused multiply-add",
)

MOVES = [(case, origin, target) for case in CASES for target, origin in origins(case).items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the workers wrote. They run at the same time; each waits for what the others save."""
    folder = tmp_path_factory.mktemp("moves")
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    workers = {
        framework: subprocess.Popen(
            [sys.executable, WORKER, framework, folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for framework in FRAMEWORKS
    }
    said = {}
    try:
        while len(said) < len(workers):
            for framework, worker in workers.items():
                if framework in said:
                    continue
                try:
                    said[framework], _ = worker.communicate(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                if worker.returncode:
                    (folder / "stop").touch()
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
            worker.stdout.close()
    failed = [f"{framework}:\n{said[framework]}" for framework, worker in workers.items() if worker.returncode]
    assert not failed, "\n".join(failed)
    return folder


def result(folder, framework, case, kind):
    """Everything that a worker wrote of a run: the weights, the slots and the count of steps."""
    with np.load(folder / f"{framework}.{case}.{kind}.npz") as weights:
        found = {f"weight/{name}": w for name, w in weights.items()}
    with opened(folder / f"{framework}.{case}.{kind}.state") as state:
        found |= {name: state.array(name) for name in state.contents.tensors}
        return found, state.contents


def bits(x):
    """The bytes, in the shape: of zeros, the sign counts too."""
    return np.ascontiguousarray(x)[..., None].view(np.uint8)


def assert_same(case, one, other):
    """Two results are the same: weights, slots, hyperparameters and the count of steps."""
    (found, contents), (expected, own) = one, other
    assert any(np.any(x) for name, x in found.items() if name.startswith(("velocity", "lead")))
    assert found.keys() == expected.keys()
    for name in expected:
        if case in NEAR:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=NEAR[case], err_msg=name, strict=True)
        else:
            np.testing.assert_array_equal(bits(found[name]), bits(expected[name]), err_msg=name, strict=True)
    assert len(contents.groups) == (2 if case == "Muon" else 1)
    for group, own_group in zip(contents.groups, own.groups, strict=True):
        assert group.hyperparameters == pytest.approx(own_group.hyperparameters, rel=1e-7)  # Keras keeps them in float32
    assert contents.count == own.count


@pytest.mark.parametrize("kind", ["half", "whole"])
@pytest.mark.parametrize("case", CASES)
def test_each_saves_the_same(folder, case, kind):
    """So that what one can load of another, and what comes of it, it can of each."""
    first, *others = (result(folder, framework, case, kind) for framework in origins(case))
    assert first[1].count == {"half": 50, "whole": 100}[kind]
    for other in others:
        assert_same(case, other, first)


@pytest.mark.parametrize(("case", "origin", "target"), MOVES)
def test_state_moves(folder, case, origin, target):
    """What began in `origin` and went on in `target` is what each of them computes alone."""
    moved = result(folder, target, case, origin)
    for framework in (origin, target):
        assert_same(case, moved, result(folder, framework, case, "whole"))


def test_each_pair_of_them_meets():
    assert {(origin, target) for _, origin, target in MOVES} == set(permutations(FRAMEWORKS, 2))
    for case in CASES:
        assert origins(case).keys() == set(origins(case).values())
