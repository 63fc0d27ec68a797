"""ScheduleFree: what it computes from the step, and `polyak.numpy.ScheduleFree`."""

import copy
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import polyak.numpy
import textbook
from polyak.averaged import average_of
from polyak.averaging import Averaging, warmed_up
from polyak.rules import RULES
from polyak.schedules import constant
from polyak.state.frontends import adapter

WARMUPS = [0, 1, 2, 7, 100, 3000]


@pytest.mark.parametrize("warmup", WARMUPS)
def test_the_closed_form_is_the_authors_sum(warmup: int) -> None:
    wanted = textbook.average_weights(warmup, 4000)
    found = [Averaging(warmup)(t) for t in range(4000)]
    # Before the end of the warm-up a rounding of each factor, of the product and of the quotient: 4 of 2^-24. After it, one of
    # the constant, of the sum and of the quotient.
    np.testing.assert_allclose(found, [float(c) for c in wanted], rtol=4 * 2**-24, atol=0)
    assert found[0] == 1
    assert max(found[1:]) < 1


@pytest.mark.parametrize("warmup", [0, 2**20])
def test_many_steps_stay_in_range(warmup: int) -> None:
    found = Averaging(warmup)(np.array([2**20, 2**24, 2**31 - 2]))
    assert ((found > 0) & (found < 3e-6)).all()


def test_the_warm_up_is_the_authors_line() -> None:
    rates = [warmed_up(0.25, 7)(t) for t in range(10)]
    # Each is the float32 next to the exact value.
    np.testing.assert_allclose(rates, [0.25 * min(1, (t + 1) / 7) for t in range(10)], rtol=2**-24)
    assert rates[6:] == [0.25] * 4
    assert warmed_up(0.3, 0) == warmed_up(0.3, 1) == 0.3


def test_x_is_the_weighted_mean_of_z_in_fractions() -> None:
    """Three sequences over a run with a warm-up, none of which is in memory as it is."""
    b, lr, warmup = Fraction(7, 8), Fraction(1, 2), 3
    y, lead = Fraction(5), (Fraction(0),)
    z, weights, seen = y, [], []
    for t, c in enumerate(textbook.average_weights(warmup, 8)):
        rate = lr * min(Fraction(t + 1, warmup), Fraction(1))
        g = 3 * y + t
        h: Any = type("h", (), {"learning_rate": rate, "momentum": b, "average": c})
        step, lead = RULES["schedule_free"].step(g, y, lead, h)
        y, z = y - step, z - rate * g
        seen.append(z)
        weights.append(rate**2)
        x = sum(w * z for w, z in zip(weights, seen, strict=True)) / sum(weights)
        assert y + lead[0] == z
        assert y == (1 - b) * z + b * x
        assert average_of(y, lead[0], b) == x


def make(w: Any, **options: Any) -> Any:
    return polyak.numpy.ScheduleFree({"w": w}, **{"lr": 0.5, **options})


def train(optimizer: Any, w: Any, first: int, last: int) -> None:
    for t in range(first, last):
        optimizer.step({"w": (w - np.arange(w.size).reshape(w.shape) + t % 3).astype(w.dtype)})


def test_with_a_warm_up_it_is_the_recursion() -> None:
    w = np.ones(3)
    rates = [0.5 * min(1, (t + 1) / 4) for t in range(12)]
    gradients = list(np.random.default_rng(0).standard_normal((12, 3)))
    weights = [float(c) for c in textbook.average_weights(4, 12)]
    wanted, lead = textbook.train("schedule_free", w.copy(), gradients, lr=rates, m=0.8, c=weights)
    optimizer = make(w, momentum=0.8, warmup_steps=4)
    for g in gradients:
        optimizer.step({"w": g})
    # The schedules are float32: 2^-24 of 12 steps of size 1.
    np.testing.assert_allclose(w, wanted[-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(optimizer.slots["lead"]["w"], lead, rtol=0, atol=1e-6)


def test_weights_are_the_average_within_the_context_and_the_same_bits_after_it() -> None:
    w = np.ones((2, 3), np.float32)
    optimizer = make(w)
    train(optimizer, w, 0, 5)
    before, average = w.copy(), optimizer.averages()["w"]
    with optimizer.averaged():
        np.testing.assert_array_equal(w, average)
        assert not np.array_equal(w, before)
        np.testing.assert_array_equal(optimizer.averages()["w"], average)
    np.testing.assert_array_equal(w, before)
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    np.testing.assert_array_equal(w, before)


def test_before_the_first_step_all_are_one() -> None:
    w = np.ones(3)
    with make(w).averaged():
        np.testing.assert_array_equal(w, np.ones(3))


def test_no_step_and_no_second_context_within() -> None:
    w = np.ones(3)
    optimizer = make(w)
    train(optimizer, w, 0, 3)
    before = w.copy()
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match=r"A step within `with optimizer.averaged\(\)`"):
            train(optimizer, w, 3, 4)
        with pytest.raises(RuntimeError, match="cannot be nested"), optimizer.averaged():
            pass
        with pytest.raises(RuntimeError, match=r"those that are trained would be in no file\. State is saved"):
            adapter(optimizer)
        assert not np.array_equal(w, before)
    np.testing.assert_array_equal(w, before)
    assert optimizer.count == 3


@pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])  # noqa: S301
def test_a_copy_made_within_the_context_trains_on(through: Any) -> None:
    w = np.ones(3)
    optimizer = make(w, warmup_steps=4)
    train(optimizer, w, 0, 5)
    with optimizer.averaged():
        average = w.copy()
        other, v = through((optimizer, w))
    with other.averaged():  # for the second time
        np.testing.assert_array_equal(v, average)
    np.testing.assert_array_equal(v, w)
    with optimizer.averaged():
        other, v = through((optimizer, w))
    np.testing.assert_array_equal(v, average)
    g = np.arange(3.0)
    with pytest.raises(RuntimeError, match=r"`with optimizer.averaged\(\): pass` brings back those that are trained"):
        other.step({"w": g})
    with other.averaged():
        pass
    optimizer.step({"w": g})
    other.step({"w": g})
    np.testing.assert_array_equal(v, w)
    np.testing.assert_array_equal(other.slots["lead"]["w"], optimizer.slots["lead"]["w"])


def test_it_gets_nearer_to_the_minimum_of_a_noisy_quadratic_than_a_constant_learning_rate() -> None:
    """That is what it is for: the noise of gradients averages out."""
    noise = np.random.default_rng(0).standard_normal((2000, 50))
    x, w = np.full(50, 5.0), np.full(50, 5.0)
    free, descent = make(x, lr=0.5), polyak.numpy.Momentum({"w": w}, lr=0.5, momentum=0.0)
    for n in noise:
        free.step({"w": x + n})
        descent.step({"w": w + n})
    # Descent stays sqrt(lr / (2 - lr)) = 0.58 off; the mean of t gradients' noise is about 1 / sqrt(2000) = 0.02.
    assert np.linalg.norm(w) / 50**0.5 > 0.4
    assert np.linalg.norm(free.averages()["w"]) / 50**0.5 < 0.05


@pytest.mark.parametrize("value", [0, -0.1, 1.1, np.nan])
def test_momentum_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"momentum must be in \(0, 1\]; got"):
        make(np.ones(2), momentum=value)


def test_momentum_1_trains_the_average_itself() -> None:
    w = np.ones(3)
    optimizer = make(w, momentum=1.0)
    train(optimizer, w, 0, 5)
    np.testing.assert_array_equal(optimizer.averages()["w"], w)
    assert not np.array_equal(w, np.ones(3))


def test_warm_ups_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="warmup_steps=5 makes a schedule of the learning rate"):
        make(np.ones(2), lr=constant(0.1), warmup_steps=5)
    with pytest.raises(TypeError, match=r"warmup_steps counts steps, so it must be an int; got 5\.0"):
        make(np.ones(2), warmup_steps=5.0)
    with pytest.raises(ValueError, match="warmup_steps must be from 0 to 2"):
        make(np.ones(2), warmup_steps=-1)
    with pytest.raises(ValueError, match=r"learning_rate must be finite and at least 0; got -1"):
        make(np.ones(2), lr=-1, warmup_steps=5)
    with pytest.raises(TypeError, match="lr follows a schedule"):
        make(np.ones(2), warmup_steps=5).lr = 0.1
    optimizer = make(np.ones(2))
    optimizer.lr = 0.1
    assert optimizer.lr == 0.1
