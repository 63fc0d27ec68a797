"""The kernels: the rules' bits, any shape, any number of threads, and a cache that neither grows nor breaks."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.compile import CHUNK, Table, address, kernel, sum_of_squares
from polyak.compile.kernel import PARALLEL_SIZE
from polyak.compile.source import STATISTICS
from polyak.ops import fma
from polyak.rules import RULES, Rule
from polyak.update import Update, pipeline

H = {
    "learning_rate": 0.013,
    "momentum": 0.9,
    "dampening": 0.25,
    "weight_decay": 0.004,
    "scale": 0.5,
    "nu": 0.7,
    "b1": 0.9,
    "b2": 0.99,
}
H |= {"average": 0.3, "share": 1 / 3, "momentum_0": 0.0, "momentum_1": 0.9, "momentum_2": 0.99}
DECAYS = (None, "coupled", "decoupled")


class Arrays:
    """Weights, gradients and slots of some lengths, and the table of where they are."""

    def __init__(self, lengths: list[int], slots: int, dtype: str = "float32", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.w, self.g, *self.v = ([rng.standard_normal(n).astype(dtype) for n in lengths] for _ in range(2 + slots))
        self.table = Table(lengths, [[address(a) for a in row] for row in (self.w, *self.v)])
        self.gradients = [address(a) for a in self.g]

    def run(self, update: Update, threads: int = 1, **options: Any) -> Any:
        return kernel(update, self.w[0].dtype.name, **options)(self.table, self.gradients, H, threads=threads)

    def bits(self) -> list[bytes]:
        return [a.tobytes() for row in (self.w, self.g, *self.v) for a in row]


def three_slots(g: Any, w: Any, slots: Any, h: Any) -> Any:  # noqa: ARG001
    a, b, c = slots
    a, b, c = fma(h.momentum, a, g), fma(h.momentum, b, a), fma(h.momentum, c, b)
    return h.learning_rate * c, (a, b, c)


THREE = Rule("three", three_slots, ("a", "b", "c"), ("learning_rate", "momentum"))


# Every rule with every decay, and some with what the pipeline has beside that: to compile one takes most of a second.
PIPELINES = [(name, {"decay": decay}) for name, decay in product(RULES, DECAYS)]
PIPELINES += product(
    ("gradient", "step_nesterov", "aggmo_3", "lion"),
    (
        {"cautious": True, "scale": True},
        {"decay": "coupled", "cautious": True},
        {"decay": "decoupled", "cautious_decay": True},
        {"decay": "decoupled", "cautious": True, "cautious_decay": True},
    ),
)


@pytest.mark.parametrize(("name", "options"), PIPELINES, ids=str)
def test_same_bits_as_xla(name: str, options: Any) -> None:
    import jax

    update = pipeline(RULES[name], **options)
    h = update.Hyperparameters(*(np.float32(H[key]) for key in update.Hyperparameters._fields))
    xla = jax.jit(update.apply)
    arrays = Arrays([1003], len(update.rule.slots))
    w, slots = arrays.w[0].copy(), tuple(v[0].copy() for v in arrays.v)
    rng = np.random.default_rng(1)
    for _ in range(50):
        arrays.g[0][:] = rng.standard_normal(1003)
        arrays.run(update)
        w, slots = xla(arrays.g[0].copy(), w, slots, h)  # a copy: XLA may read it after the call
    assert [arrays.w[0].tobytes()] + [v[0].tobytes() for v in arrays.v] == [np.asarray(a).tobytes() for a in (w, *slots)]


# What is written for a rule and for a decay is the same text in float32, where all of them are compared bit for bit.
@pytest.mark.parametrize(
    ("name", "decay"), [*((name, "coupled") for name in RULES), ("gradient", None), ("gradient", "decoupled")]
)
def test_float64_is_the_rule(name: str, decay: Any) -> None:
    update = pipeline(RULES[name], decay)
    arrays = Arrays([5, 3], len(update.rule.slots), "float64")
    expected = [
        update.apply(g, w, slots, update.Hyperparameters(*(H[key] for key in update.Hyperparameters._fields)))
        for g, w, *slots in zip(arrays.g, arrays.w, *arrays.v, strict=True)
    ]
    arrays.run(update)
    for i, (w, slots) in enumerate(expected):
        # One fused product instead of two roundings, at each of at most 5 sums of terms of size 1 to 3.
        np.testing.assert_allclose(arrays.w[i], w, rtol=0, atol=5 * 2.0**-51)
        np.testing.assert_allclose([v[i] for v in arrays.v], list(slots), rtol=0, atol=5 * 2.0**-51)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(
        st.sampled_from([0, 1, 2, 15, 16, 17, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]), min_size=1, max_size=6
    ),
    seed=st.integers(0, 99),
)
def test_tensors_do_not_meet(lengths: list[int], seed: int) -> None:
    """Many tensors in one call are the same as each in its own, on one thread and on several; gradients stay as they are."""
    update = pipeline(RULES["gradient"], "coupled")
    together, alone = Arrays(lengths, 1, seed=seed), Arrays(lengths, 1, seed=seed)
    gradients = [g.copy() for g in together.g]
    together.run(update, threads=2)
    for i, n in enumerate(lengths):
        kernel(update, "float32")(
            Table([n], [[address(alone.w[i])], [address(alone.v[0][i])]]), [address(alone.g[i])], H, threads=1
        )
    assert together.bits() == alone.bits()
    assert all(np.array_equal(a, b) for a, b in zip(together.g, gradients, strict=True))


def test_any_number_of_slots() -> None:
    update = pipeline(THREE)
    arrays = Arrays([7], 3, "float64")
    h = update.Hyperparameters(H["learning_rate"], H["momentum"])
    w, slots = update.apply(arrays.g[0], arrays.w[0], tuple(v[0] for v in arrays.v), h)
    arrays.run(update)
    # As above: fused products instead of two roundings.
    np.testing.assert_allclose([arrays.w[0], *(v[0] for v in arrays.v)], [w, *slots], rtol=0, atol=8 * 2.0**-52)


def test_ieee_values() -> None:
    """NaN, infinities, signed zeros and denormals, which a looser compiler would drop."""
    update = pipeline(RULES["descent"])
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45], np.float32)
    w, g = special.copy(), np.zeros_like(special)
    kernel(update, "float32")(Table([7], [[address(w)]]), [address(g)], {"learning_rate": 1.0}, threads=1)
    assert w.tobytes() == (special - np.float32(1) * g).tobytes()
    w, g = np.zeros(7, np.float32), special.copy()
    kernel(update, "float32")(Table([7], [[address(w)]]), [address(g)], {"learning_rate": 1.0}, threads=1)
    np.testing.assert_array_equal(w, np.zeros(7, np.float32) - special)
    assert np.signbit(w).tolist()[5:] == [True, False]
    assert w[5] == np.float32(-1e-45)


def test_scale_of_one_changes_no_bit() -> None:
    for name, rule in RULES.items():
        plain, scaled = Arrays([1003], len(rule.slots)), Arrays([1003], len(rule.slots))
        plain.run(pipeline(rule, "coupled"))
        kernel(pipeline(rule, "coupled", scale=True), "float32")(scaled.table, scaled.gradients, {**H, "scale": 1.0}, threads=1)
        assert plain.bits() == scaled.bits(), name


LENGTHS = [3 * CHUNK + 17, 0, 1, CHUNK - 1, 100, 2 * CHUNK]  # enough for several threads
assert sum(LENGTHS) > PARALLEL_SIZE


@pytest.mark.parametrize(("name", "decay"), [("average_nesterov", "decoupled"), ("step", "coupled"), ("descent", None)])
def test_statistics_change_no_bit(name: str, decay: Any) -> None:
    update = pipeline(RULES[name], decay)
    plain, watched = Arrays(LENGTHS, len(update.rule.slots)), Arrays(LENGTHS, len(update.rule.slots))
    before = [w.astype(np.float64) for w in watched.w]
    plain.run(update)
    sums = watched.run(update, statistics=True)
    assert plain.bits() == watched.bits()
    assert sums.shape == (len(LENGTHS), len(STATISTICS))
    for i, row in enumerate(sums):
        g, w = watched.g[i].astype(np.float64), before[i]
        s = w - watched.w[i]
        v = watched.v[0][i] if watched.v else np.full(g.shape, np.nan)
        # Runs of 4096 elements are summed in float32, in at least 8 lanes: 512 roundings of each, of 6e-8, mostly cancelling.
        np.testing.assert_allclose(row[:3], [g @ g, s @ s, w @ w], rtol=2e-6)
        np.testing.assert_allclose(row[3], np.dot(g, v), rtol=0, atol=2e-6 * np.sum(np.abs(g * v)) if watched.v else 0)


def test_sum_of_squares() -> None:
    for dtype in ("float32", "float64"):
        arrays = Arrays(LENGTHS, 0, dtype)
        arrays.g[2][:] = 1e20  # the square is beyond float32
        sums = sum_of_squares(dtype)(Table(LENGTHS, []), arrays.gradients, {}, threads=2)
        expected = [[np.sum(g.astype(np.float64) ** 2)] for g in arrays.g]
        np.testing.assert_allclose(sums, expected, rtol=1e-12)  # another order of float64 sums


def test_an_unsupported_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="float16"):
        kernel(pipeline(RULES["gradient"]), "float16")


def test_threads_divide_the_elements() -> None:
    table = Table([CHUNK // 4] * 40 + [30 * CHUNK], [])
    share = np.add.reduceat(table.chunks[:, 2], table.bounds(4)[:-1])
    assert table.bounds(4).tolist() == sorted(table.bounds(4))
    assert share.sum() == 40 * CHUNK
    assert max(share) - min(share) <= 2 * CHUNK


def script(text: str, **environment: str) -> str:
    """Run a program in a process of its own, after the imports that all of them need."""
    start = f"""
        import os, sys, threading, time
        import numpy as np, numba
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_compile import *
        update = pipeline(RULES["gradient"])
    """
    code = textwrap.dedent(start) + textwrap.dedent(text)
    # The warning is the platform's word about forking with threads, which is what is tested here.
    command = [sys.executable, "-W", "error", "-W", "ignore:.*use of fork:DeprecationWarning", "-c", code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_any_number_of_threads_same_bits() -> None:
    out = script(
        """
        import hashlib
        for n in (1, 2, 3, 4):
            arrays = Arrays(LENGTHS, 1)
            sums = arrays.run(update, threads=n, statistics=True)
            squares = sum_of_squares("float32")(arrays.table, arrays.gradients, {}, threads=n)
            arrays.run(update, threads=n)
            print(hashlib.sha256(b"".join(arrays.bits() + [sums.tobytes(), squares.tobytes()])).hexdigest())
        """,
        NUMBA_NUM_THREADS="4",
    )
    lines = out.split()
    assert len(lines) == 4
    assert len(set(lines)) == 1


# The layers that Numba brings; its own default is the first that can be loaded.
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_python_threads_and_forked_children(layer: str) -> None:
    if layer == "omp":
        pytest.importorskip("numba.np.ufunc.omppool", reason="OpenMP's library is not on this machine")
    out = script(
        """
        serial = Arrays(LENGTHS, 1)
        for _ in range(20): serial.run(update)
        many = [Arrays(LENGTHS, 1) for _ in range(6)]
        def train(arrays):
            for _ in range(20): arrays.run(update, threads=2)
        workers = [threading.Thread(target=train, args=(arrays,)) for arrays in many]
        for worker in workers: worker.start()
        for _ in range(3):  # while the threads are at it
            child = os.fork()
            if child == 0:
                mine = Arrays(LENGTHS, 1)
                train(mine)
                os._exit(0 if mine.bits() == serial.bits() else 3)
            assert os.waitpid(child, 0)[1] == 0
        for worker in workers: worker.join()
        assert all(arrays.bits() == serial.bits() for arrays in many)
        print(numba.threading_layer())
        """,
        NUMBA_THREADING_LAYER=layer,
        NUMBA_NUM_THREADS="2",
    )
    assert out.split() == [layer]


def test_the_users_number_of_threads_stays() -> None:
    before = numba.get_num_threads()
    Arrays(LENGTHS, 1).run(pipeline(RULES["gradient"]), threads=2)
    assert numba.get_num_threads() == before


FIRST_STEP = """
    arrays = Arrays(LENGTHS, 1)
    arrays.run(update), arrays.run(update, threads=2)
    print(sum(entry.stats.cache_hits.total() for entry in kernel(update, "float32")._entries.values()))
"""


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as a first process leaves it. Who changes it takes a copy."""
    folder = tmp_path_factory.mktemp("filled")
    assert script(FIRST_STEP, POLYAK_CACHE_DIR=str(folder)).split() == ["0"]
    return folder


def test_a_second_process_takes_the_first_ones_code(filled: Path) -> None:
    first = files(filled)
    assert any(name.startswith("gradient_") for name in first)
    assert script(FIRST_STEP, POLYAK_CACHE_DIR=str(filled)).split() == ["2"]
    assert files(filled) == first  # it does not grow


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """Several processes that all find it empty: each runs, and none leaves anything half-written."""
    results: list[str] = []
    workers = [
        threading.Thread(target=lambda: results.append(script(FIRST_STEP, POLYAK_CACHE_DIR=str(tmp_path)))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 3
    assert not [name for name in files(tmp_path) if ".tmp" in name]


def fill_with_rubbish(folder: Path) -> None:
    for path in [*folder.rglob("*.nbc")]:
        path.write_bytes(b"rubbish")


def make_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


@pytest.mark.parametrize("spoil", [fill_with_rubbish, make_a_file])
def test_a_broken_cache_is_done_without(filled: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    # Numba takes what was compiled from a source of the same time only.
    folder = shutil.copytree(filled, tmp_path / "cache", copy_function=shutil.copy2)
    spoil(folder)
    assert script(FIRST_STEP, POLYAK_CACHE_DIR=str(folder)).split() == ["0"]


def test_a_rule_from_a_shell_runs_uncached(tmp_path: Path) -> None:
    out = script(
        """
        rule = {}
        exec("def step(g, w, slots, h): return h.learning_rate * g, slots", rule)
        arrays = Arrays([10], 0)
        arrays.run(pipeline(Rule("typed", rule["step"], (), ("learning_rate",))))
        print(os.listdir(os.environ["POLYAK_CACHE_DIR"]))
        """,
        POLYAK_CACHE_DIR=str(tmp_path),
    )
    assert out.strip() == "[]"
