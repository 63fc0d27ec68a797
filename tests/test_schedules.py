"""Schedules: values, arguments, and the same bits in NumPy, JAX and PyTorch. tests/keras_frontend has TensorFlow."""

import json
import pickle
import subprocess
import sys
from decimal import Decimal, localcontext
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyak.jax
import polyak.numpy
from polyak import schedules
from polyak.schedules import (
    constant,
    cosine,
    demon,
    linear,
    one_cycle,
    piecewise,
    piecewise_linear,
    sutskever,
    warmup_stable_decay,
)
from schedule_cases import CASES, COSINE_CASES, LINE_CASES, MANY, N, assert_same_bits, bits, steps_of


def ulps(schedule, formula, steps):
    expected = np.array([formula(int(t)) for t in steps]).astype(np.float32)
    return np.abs(bits(schedule(steps)) - bits(expected)).max()


@pytest.mark.parametrize("name", [name for name in CASES if "demon" not in name])
def test_within_one_ulp_of_the_formula_in_float64(name):
    """Half of one for the numbers that it is made from, which are rounded to float32, and half for the result."""
    assert ulps(*CASES[name], steps_of(name)) <= 1


@pytest.mark.parametrize("name", ["demon", "demon, many steps"])
def test_demon_is_as_near_to_the_formula_as_numbers_near_1_are(name):
    """Of 1 - c / (left + c): three roundings of numbers of at most 1, one of them to the result, each by 2^-25."""
    schedule, formula = CASES[name]
    steps = steps_of(name)
    expected = np.array([formula(int(t)) for t in steps])
    np.testing.assert_allclose(schedule(steps), expected, rtol=0, atol=4 * 2**-25)
    late = steps >= schedule.steps
    assert late.any()
    assert not schedule(steps[late]).any()


@pytest.mark.parametrize("start", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("steps", [1, 7, 1000, 12_345, 10_000_000])
def test_demon_starts_at_its_start(start, steps):
    assert np.float32(demon(start, steps)(0)) == np.float32(start)


@pytest.mark.parametrize("name", LINE_CASES)
def test_lines_are_next_to_the_exact_value(name):
    """Half an ulp is the last rounding; 0.001 what the rest of the sum has lost (2^-12 of it are rounded before)."""
    schedule, steps = LINE_CASES[name], steps_of(name)[::7]
    ends = [Fraction(float(np.float32(x))) for x in schedule.values]
    for t, value in zip(steps.tolist(), schedule(steps), strict=True):
        i = int(np.searchsorted(schedule.steps, t, side="right"))
        exact = ends[max(i - 1, 0)]
        if 0 < i < len(ends):
            exact += (ends[i] - exact) * Fraction(t - schedule.steps[i - 1], schedule.steps[i] - schedule.steps[i - 1])
        assert abs(Fraction(float(value)) - exact) <= Fraction(float(np.spacing(value))) * Fraction(501, 1000), t


def exact_sine(x):
    """Of a small angle, to 30 digits, by Taylor's series."""
    term, total, k = x, x, 1
    while abs(term) > Decimal("1e-40"):
        term *= -x * x / ((k + 1) * (k + 2))
        total, k = total + term, k + 2
    return total


@pytest.mark.parametrize("name", COSINE_CASES)
def test_waves_are_next_to_the_exact_value(name):
    """As for lines; 1e-40 is for the digits of the reference."""
    schedule = COSINE_CASES[name]
    n = schedule.steps - schedule.warmup
    peak, end = (Decimal(float(np.float32(x))) for x in (schedule.peak, schedule.end))
    pi = Decimal("3.14159265358979323846264338327950288419716939937510")
    steps = steps_of(name)[schedule.warmup :][::5]
    with localcontext(prec=50):
        for t, value in zip(steps.tolist(), schedule(steps), strict=True):
            k = min(t - schedule.warmup, n)
            exact = end + (peak - end) * exact_sine(pi * (n - k) / (2 * n)) ** 2
            ulp = Decimal(float(np.spacing(value)))
            assert abs(Decimal(float(value)) - exact) <= ulp * Decimal("0.501") + Decimal("1e-40"), t


rates = st.floats(1e-6, 10)


@given(rates, st.just(0.0) | rates, st.integers(1, 2**24))
def test_a_line_and_a_wave_begin_and_end_where_they_say(start, end, steps):
    for schedule in (linear(start, end, steps), cosine(start, steps, end=end)):
        at = np.unique(np.array([0, 1, 2, steps // 2, steps - 2, steps - 1, steps, steps + 1, 2**31 - 1]).clip(0))
        values = schedule(at)
        assert values[0] == np.float32(start)
        assert (values[at >= steps] == np.float32(end)).all()
        differences = np.diff(values.astype(float))
        assert (differences >= 0).all() if end > start else (differences <= 0).all()


# What users see at a few steps.


def test_a_boundary_is_the_first_step_with_the_new_value():
    schedule = piecewise((3, 5), (1.0, 0.5, 0.25))
    assert [schedule(t) for t in range(7)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    peer = optax.piecewise_constant_schedule(1.0, {3: 0.5, 5: 0.5})
    assert [schedule(t) for t in range(7)] == [float(peer(t)) for t in range(7)]


def test_cosine_with_warm_up_is_that_of_optax():
    peer = optax.warmup_cosine_decay_schedule(0.0, 0.5, 30, 200, 0.125)
    steps = np.arange(230)
    # optax computes in float32, with a sum of products: some of its ulps of 0.5.
    np.testing.assert_allclose(cosine(0.5, 200, warmup=30, end=0.125)(steps), peer(jnp.asarray(steps)), atol=3e-7)


def test_one_cycle():
    rate, momentum = one_cycle(1.0, 101, momentum=(0.5, 0.75), end=0.0625, start=0.25)
    assert rate == piecewise_linear((0, 45, 91, 101), (0.25, 1.0, 0.25, 0.0625))
    assert momentum == piecewise_linear((0, 45, 91), (0.75, 0.5, 0.75))
    t = np.arange(45)
    assert (np.diff(rate(t)) > 0).all()
    assert (np.diff(momentum(t)) < 0).all()
    assert one_cycle(1.0, 3).learning_rate == piecewise_linear((0, 1, 2, 3), (0.1, 1.0, 0.1, 0.0))
    assert one_cycle(1.0, 50, tail=20).learning_rate.steps == (0, 15, 30, 50)


def test_warm_up_stable_decay_without_parts():
    make = warmup_stable_decay
    assert make(1.0, 10, warmup=0, decay=4) == piecewise_linear((0, 6, 10), (1.0, 1.0, 0.0))
    assert make(1.0, 10, warmup=6, decay=4) == piecewise_linear((0, 6, 10), (0.0, 1.0, 0.0))
    assert make(1.0, 10, warmup=0, decay=10) == linear(1.0, 0.0, 10)


def test_sutskever_ramp():
    assert [sutskever(0.99)(250 * k) for k in (0, 1, 3, 7)] == [0.5, 0.75, 0.875, 0.9375]
    assert sutskever(0.99)(249) == 0.5
    assert sutskever(0.99)(10**9) == float(np.float32(0.99))


# The step in every type, and the same bits.


@pytest.mark.parametrize("name", CASES)
def test_a_number_gives_a_number_and_an_array_an_array(name):
    schedule = CASES[name][0]
    steps = np.array([[0, 3], [2000, 2999]])
    values = schedule(steps)
    assert values.shape == (2, 2)
    for i in np.ndindex(2, 2):
        t = int(steps[i])
        assert type(schedule(t)) is type(schedule(float(t))) is float
        assert schedule(t) == schedule(float(t)) == float(values[i])
        for kind in (np.int32, np.int64, np.float32, np.float64, np.array):
            scalar = schedule(kind(t))
            assert scalar.dtype == np.float32
            assert scalar == values[i]


@pytest.mark.parametrize("name", CASES)
def test_same_bits_in_jax(name):
    schedule, steps = CASES[name][0], steps_of(name)
    expected = schedule(steps)
    for dtype in (jnp.int32, jnp.float32):
        traced = jnp.asarray(steps, dtype)
        assert_same_bits(schedule(traced), expected, f"eager, {dtype}")
        assert_same_bits(jax.jit(schedule)(traced), expected, f"jit, {dtype}")
        # Scalars in a loop, as in a training step: other code than for a vector.
        assert_same_bits(jax.jit(lambda x: jax.lax.map(schedule, x))(traced), expected, f"scalars, {dtype}")
    # Beside other arithmetic, which the compiler may fuse with it.
    fused = jax.jit(lambda x: (schedule(x), schedule(x) * 0.9 + 0.1))(traced)
    assert_same_bits(fused[0], expected, "fused")


@pytest.mark.parametrize("name", CASES)
def test_same_bits_in_torch(name):
    schedule, steps = CASES[name][0], steps_of(name)
    expected = schedule(steps)
    for dtype in (torch.int64, torch.int32, torch.float32):
        value = schedule(torch.as_tensor(steps, dtype=dtype))
        assert isinstance(value, torch.Tensor)
        assert_same_bits(value, expected, dtype)
    for i in (0, 1, 250, 499, -1):
        value = schedule(torch.tensor(steps[i]))
        assert value.shape == ()
        assert value == expected[i]


# The same numbering everywhere: the first update takes the value of step 0.

STAIRS = piecewise((1, 2, 4), (1.0, 0.5, 0.25, 0.125))
STAIRS_OF_MOMENTUM = piecewise((1, 2, 4), (0.5, 0.25, 0.75, 0.5))
# Weights after each step along a gradient of 1, without momentum.
DESCENT = -np.cumsum([1.0, 0.5, 0.25, 0.25, 0.125])


def test_step_numbering_in_jax():
    optimizer = polyak.jax.momentum(STAIRS, 0.0)
    w = jnp.zeros(())
    state = optimizer.init(w)
    step = jax.jit(optimizer.update)
    for expected in DESCENT:
        updates, state = step(jnp.ones(()), state, w)
        w = optax.apply_updates(w, updates)
        assert w == expected


def test_step_numbering_in_numpy():
    w = np.zeros(1)
    optimizer = polyak.numpy.Momentum({"w": w}, lr=STAIRS, momentum=0.0)
    for expected in DESCENT:
        optimizer.step({"w": np.ones(1)})
        assert w == expected


def test_momentum_follows_a_schedule_in_jax():
    optimizer = polyak.jax.momentum(1.0, STAIRS_OF_MOMENTUM)
    state = optimizer.init(jnp.zeros(()))
    velocity = 0.0
    for t in range(5):
        updates, state = jax.jit(optimizer.update)(jnp.ones(()), state)
        velocity = STAIRS_OF_MOMENTUM(t) * velocity + 1
        assert -updates == velocity


# A schedule as a value.

MADE = [
    *(schedule for schedule, _ in CASES.values()),
    constant(0),
    one_cycle(0.1, 100).momentum,
    sutskever(),
]


@pytest.mark.parametrize("schedule", MADE, ids=repr)
def test_copies_are_equal(schedule):
    again = eval(repr(schedule), vars(schedules))  # noqa: S307  (that is what repr promises)
    loaded = pickle.loads(pickle.dumps(schedule))  # noqa: S301
    config = json.loads(json.dumps(schedule.get_config()))
    assert config == schedule.get_config()
    configured = type(schedule).from_config(config)
    for copy in (again, loaded, configured):
        assert copy == schedule
        assert hash(copy) == hash(schedule)
        assert copy(17) == schedule(17)
    assert type(schedule).__module__ == "polyak.schedules"  # which pickles name, wherever the class is defined


def test_others_are_not_equal():
    assert len(set(MADE)) == len(MADE)
    assert linear(0.1, 0.0, 100) != linear(0.1, 0.0, 101)
    assert constant(1) == constant(1.0)
    with pytest.raises(AttributeError):
        cosine(0.1, 10).peak = 0.2


def test_a_numpy_number_of_steps_is_an_int():
    assert repr(linear(np.float32(0.5), 0, np.int64(3))) == "piecewise_linear(steps=(0, 3), values=(0.5, 0.0))"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: constant(-1), ValueError, "value must be 0, or from 1e-15 up and finite in float32; got -1"),
        (lambda: constant(float("nan")), ValueError, "got nan"),
        (lambda: constant(1e39), ValueError, "got 1e\\+39"),
        (lambda: constant(1e-16), ValueError, "from 1e-15 up .* got 1e-16"),
        (lambda: constant("0.1"), TypeError, "value must be a number; got '0.1'"),
        (lambda: linear(0.1, -0.1, 10), ValueError, "end must be"),
        (lambda: linear(0.1, 0.0, 0), ValueError, "steps must be from 1 to 2\\^24 steps .* got 0"),
        (lambda: linear(0.1, 0.0, 2**24 + 1), ValueError, "got 16777217"),
        (lambda: linear(0.1, 0.0, 1e3), TypeError, "steps counts steps, so it must be an int; got 1000.0 .* Write 1000"),
        (lambda: linear(0.1, 0.0, True), TypeError, "got True"),
        (lambda: piecewise((5, 5), (1, 2, 3)), ValueError, "boundaries must increase; got 5 after 5"),
        (lambda: piecewise((0,), (1, 2)), ValueError, r"boundaries\[0\] must be from 1"),
        (lambda: piecewise((5,), (1,)), ValueError, "one value more than boundaries.* 1 values and 1 boundaries"),
        (lambda: piecewise((5,), (1, -2)), ValueError, r"values\[1\] must be"),
        (lambda: piecewise_linear((0, 5), (1,)), ValueError, "a value for each step"),
        (lambda: piecewise_linear((), ()), ValueError, "at least one"),
        (lambda: cosine(0.1, 10, warmup=10), ValueError, "warmup is a part of steps; got warmup=10 of 10"),
        (lambda: cosine(0.1, 10, warmup=-1), ValueError, "warmup must be from 0"),
        (lambda: cosine(0.1, 10, start=0.01), ValueError, "start=0.01 has no effect with warmup=0"),
        (lambda: warmup_stable_decay(1, 10, warmup=0, decay=5, start=0.1), ValueError, "start=0.1 has no effect"),
        (lambda: warmup_stable_decay(1, 10, warmup=6, decay=5), ValueError, "got 6 \\+ 5 > 10"),
        (lambda: warmup_stable_decay(1, 10, warmup=6, decay=0), ValueError, "decay must be from 1"),
        (lambda: one_cycle(1, 2), ValueError, "steps must be from 3"),
        (lambda: one_cycle(1, 10, tail=9), ValueError, "leaves at least 2 to the cycle; got tail=9 of 10"),
        (lambda: one_cycle(1, 10, start=2), ValueError, "got start=2.0, peak=1.0"),
        (lambda: one_cycle(1, 10, end=0.5), ValueError, "end <= start; got start=0.1"),
        (lambda: one_cycle(1, 10, momentum=0.9), TypeError, r"the pair \(lowest, highest\)"),
        (lambda: one_cycle(1, 10, momentum=(0.9, 0.8)), ValueError, r"the pair \(lowest, highest\)"),
        (lambda: one_cycle(1, 10, momentum=(0.9, 1.0)), ValueError, r"momentum\[1\] must be a momentum in \[0, 1\)"),
        (lambda: sutskever(1.0), ValueError, "maximum must be a momentum"),
        (lambda: sutskever(1 - 1e-9), ValueError, "below 1 in float32"),
        (lambda: sutskever(0.4), ValueError, "at least 0.5, where the ramp begins; got 0.4"),
        (lambda: demon(0.0, 10), ValueError, "start must be above 0"),
        (lambda: demon(0.9, 0), ValueError, "steps must be from 1"),
        (lambda: constant(0.1)("3"), TypeError, "A step must be a number, or an array"),
        (lambda: constant(0.1)([1, 2]), TypeError, "such as numpy.arange"),
        (lambda: constant(0.1)(None), TypeError, "got None of type NoneType"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_import_brings_no_framework():
    code = "import sys, polyak.schedules; polyak.schedules.cosine(0.1, 10)(3); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"keras", "tensorflow", "jax", "torch", "numba", "matplotlib"} & set(modules)


def test_tables_stay_small():
    """Of the wave, about the square root of the steps; of an array of values there is none."""
    from polyak.schedules.waves import _tables

    assert sum(table.size for table in _tables(0.1, 0.0, MANY)) < 24 * 2300  # 2 * 9 + 6 numbers for each of sqrt(MANY / 2)
    assert COSINE_CASES["cosine"].steps == N
