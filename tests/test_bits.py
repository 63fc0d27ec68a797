"""The contract of the same bits: every rule and option, decay and schedule, in every framework; and its command.

Each framework runs in a process of its own, once for all tests here. NumPy makes all that `polyak bits` makes. The others make
1,000 steps of every rule and option, and of one rule with every decay and schedule. In the other runs, where decays and
schedules meet the other rules, they make 100: what is rounded otherwise parts hundreds of elements within a few steps.
"""

from dataclasses import replace

import numpy as np
import pytest

from polyak.bits import compare, frontends, processor
from polyak.bits import run as running
from polyak.bits.cases import CASES, STEPS
from polyak.bits.compare import differing, error, first_difference
from polyak.bits.run import TITLES, Result, WorkerFailed, missing
from polyak.bits.table import table
from polyak.bits.worker import digest
from polyak.cli import dispatch
from polyak.methods import METHODS
from polyak.numpy import Momentum
from polyak.rules import RULES
from polyak.rules.aggmo import aggmo

ONE = next(i for i, case in enumerate(CASES) if str(case) == "gradient, constant")
# How far the frameworks beside NumPy go. A piecewise schedule changes after 300 steps for the first time.
STEPS_OF = [STEPS if case.schedule == "piecewise" or case.variant == "gradient" else 100 for case in CASES]
VARIANTS = len({case.variant for case in CASES})
OTHERS = [name for name in TITLES if name != "numpy"]
needs_fma = pytest.mark.skipif(processor.missing_flag() is not None, reason="no fused multiply-add: nothing is claimed")


@pytest.fixture(scope="module")
def outcomes():
    ended = []
    found = running.run(["numpy"], ended.append)
    assert found["numpy"].digests.all()
    found |= running.run([name for name in OTHERS if not missing(name)], ended.append, STEPS_OF)
    assert sorted(ended) == sorted(found)
    # What is compared is what both made.
    made = np.arange(STEPS) < np.array(STEPS_OF)[:, None]
    found["numpy"] = replace(found["numpy"], digests=np.where(made, found["numpy"].digests, 0))
    return found


@needs_fma
@pytest.mark.parametrize("framework", OTHERS)
def test_the_same_bits_after_every_step(framework, outcomes):
    if missing(framework):
        pytest.skip(f"not installed: {missing(framework)}")
    pair = ("numpy", framework)
    for name in pair:
        assert isinstance(outcomes[name], Result), outcomes[name]
    parted = differing(*(outcomes[name] for name in pair))
    assert [np.count_nonzero(row) for row in outcomes[framework].digests] == STEPS_OF
    assert not parted, f"{len(parted)} runs differ. {first_difference(parted[0], pair, outcomes)}"


@needs_fma
def test_close_to_float64(outcomes):
    # A thousand roundings of a weight to 24 bits, each off by 2.5e-8 of it in the root mean square, add up to 8e-7. Steps along
    # a sign are all of one size, so that many of their roundings are the same one and add up in proportion to their number.
    for i, case in enumerate(CASES):
        assert error(i, outcomes["numpy"]) < (1e-5 if "sign" in case.variant or case.method == "Lion" else 1e-6), case


def test_every_rule_option_decay_and_schedule_is_there(outcomes):
    assert {case.update.rule for case in CASES} == set(RULES.values()) - {aggmo(1)}
    assert {case.method for case in CASES} == set(METHODS) - {"LARS"}  # whose norms have no bits that all frameworks share
    for rule in RULES.values():
        cases = [case for case in CASES if case.update.rule is rule]
        if rule is not aggmo(1):
            assert {case.decay for case in cases} == {None, "coupled", "decoupled"}
            assert {case.schedule for case in cases} == {"constant", "piecewise", "linear"}
            assert all(case.numbers for case in cases) == ("momentum" in rule.hyperparameters or "b1" in rule.hyperparameters)
    assert any(case.update.cautious for case in CASES)
    assert any(case.update.cautious_decay for case in CASES)
    # And each is another computation than all others: no option is without effect.
    states = {outcomes["numpy"].digests[i].tobytes() for i in range(len(CASES))}
    assert len(states) == len(CASES)
    assert outcomes["numpy"].digests.shape == (len(CASES), STEPS)


def test_a_decay_below_the_last_bit_of_the_weight_adds_up():
    """lr * wd is 1e-8, of which w - lr * wd * w would keep nothing in float32; the steps carry it."""
    rng = np.random.default_rng(0)
    w = rng.uniform(1, 2, 1000).astype(np.float32)
    before, moved = w.astype(np.float64), np.zeros(1000)
    optimizer = Momentum({"w": w}, 0.01, 0.0, weight_decay=1e-6, decay="decoupled")
    for g in rng.normal(size=(1000, 1000)).astype(np.float32) * np.float32(1e-3):
        optimizer.step({"w": g})
        moved += np.float64(np.float32(0.01)) * g
    lost = (before - moved - w).mean()
    # A million roundings of w, each by up to 2^-24 and with its own sign: sqrt(1e6) * 2^-24 / sqrt(3) / 1000 = 3e-8 of 1.5e-5.
    assert lost == pytest.approx((before * (1 - (1 - 1e-8) ** 1000)).mean(), rel=0.02)


def test_numbers_change_when_the_schedule_says_so():
    piecewise = next(c for c in CASES if c.schedule == "piecewise" and c.numbers)
    assert piecewise.changes == [0, 300, 500, 700, 1000]
    for case in CASES:
        assert (len(set(case.learning_rates)) == 1) == (case.schedule == "constant")
        assert case.learning_rates.dtype == np.float32


# What it says when bits differ.


@pytest.fixture
def one_bit(monkeypatch):
    """Results of a framework that is NumPy but for the last bit of one element of the velocity from step 3 of one case on."""

    def wrong(case):
        for t, state in enumerate(frontends.numpy(case)):
            if t >= 2:
                state.view(np.uint32)[1, 5] ^= 1
            yield state

    runs = {"numpy": list(frontends.numpy(CASES[ONE])), "jax": list(wrong(CASES[ONE]))}
    monkeypatch.setattr(compare, "state_after", lambda name, case, steps: runs[name][steps - 1] if case == ONE else None)

    def result(states):
        digests = np.zeros((len(CASES), STEPS), np.uint64)
        digests[ONE] = [digest(s) for s in states]
        return Result(digests, [compare.in_float64(c) if i < ONE else states[-1] for i, c in enumerate(CASES[: ONE + 1])])

    return {name: result(states) for name, states in runs.items()}


def test_the_first_difference_is_named(one_bit):
    assert differing(one_bit["numpy"], one_bit["jax"]) == [ONE]
    found = first_difference(ONE, ("numpy", "jax"), one_bit)
    assert (found.case, found.step, found.where) == (CASES[ONE], 3, "velocity of w[5]")
    ours, theirs = (int(text[-9:-1], 16) for text in found.bits)
    assert ours ^ theirs == 1
    assert "run gradient, constant, after step 3, velocity of w[5]" in str(found)


def test_elements_are_named():
    assert [compare._name(CASES[ONE], row, i) for row, i in ((0, 0), (0, 257), (1, 256))] == ["w[0]", "b", "velocity of w[256]"]


# The command.


def stub(monkeypatch, outcomes, absent=()):
    monkeypatch.setattr(running, "run", lambda frameworks, _: {name: outcomes[name] for name in frameworks})
    monkeypatch.setattr(running, "find_spec", lambda name: None if name in absent or name not in outcomes else object())
    monkeypatch.setattr(running, "_NEEDED", {name: (name,) for name in OTHERS})


def test_the_table_of_this_machine(outcomes, monkeypatch, capsys):
    stub(monkeypatch, outcomes)
    code = dispatch(["bits"])
    lines = capsys.readouterr().out.splitlines()
    if processor.missing_flag() is None:
        assert code == 0
        assert sum(line.count("equal") for line in lines[2:-1]) == VARIANTS * sum(not missing(name) for name in OTHERS)
    for name in OTHERS:
        assert (TITLES[name] in lines[1]) == (not missing(name))


def test_what_is_not_installed_is_not_claimed(outcomes, monkeypatch, capsys):
    stub(monkeypatch, outcomes, absent=("jax", "keras-jax"))
    monkeypatch.setattr(processor, "missing_flag", lambda: "fma")
    dispatch(["bits"])
    out = capsys.readouterr().out
    assert "JAX: nothing is claimed, for it is not installed (jax)." in out
    assert "Keras/JAX: nothing is claimed, for it is not installed (keras-jax)." in out
    assert "JAX" not in out.splitlines()[1]
    assert "Nothing is claimed for this processor, which has no fused multiply-add (flag fma)." in out


def test_a_difference_is_exit_1(one_bit, monkeypatch, capsys):
    monkeypatch.setattr("polyak.bits.table.error", lambda *_: 0.0)
    stub(monkeypatch, one_bit)
    assert dispatch(["bits"]) == 1
    out = capsys.readouterr().out
    assert "1 differ" in out
    assert "JAX and NumPy differ in 1 of 64 runs. First in the run gradient, constant, after step 3, velocity of w[5]: " in out


def test_a_framework_that_fails_is_one_line_and_exit_1(outcomes, monkeypatch, capsys):
    stub(monkeypatch, {"numpy": outcomes["numpy"], "torch": WorkerFailed("ImportError: no such symbol")})
    assert dispatch(["bits"]) == 1
    assert "PyTorch failed: ImportError: no such symbol\n" in capsys.readouterr().out


def test_a_worker_that_fails_says_why():
    with pytest.raises(WorkerFailed, match="KeyError: 'theano'"):
        running.state_after("theano", 0, 1)


def test_words_that_it_does_not_know(capsys):
    assert dispatch(["bits", "numpy"]) == 2
    assert capsys.readouterr().err.startswith("polyak: ")


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", {"fma": True}, None),
        ("AMD64", {"avx": True}, "fma"),
        ("x86_64", {"fma": False}, "fma"),
        ("aarch64", {}, None),
    ],
)
def test_the_flag_of_the_processor(machine, features, expected, monkeypatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor.binding, "get_host_cpu_features", lambda: features)
    assert processor.missing_flag() == expected


def test_a_table_of_one_framework_alone(outcomes):
    lines = list(table({"numpy": outcomes["numpy"]}))
    assert len(lines) == VARIANTS + 3
    assert all("equal" not in line for line in lines)
