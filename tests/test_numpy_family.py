"""The other methods of `polyak.numpy`, and the guards that all have."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import family
import polyak.numpy
from polyak.methods import METHODS

EVERY = pytest.mark.parametrize("method", METHODS)


def run(seed: int = 0, shape: tuple[int, ...] = (5, 4)) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), list(rng.standard_normal((20, *shape)))


def make(method: str, params: Any, **options: Any) -> Any:
    return getattr(polyak.numpy, method)(params, **{"lr": 0.1, **family.CASES[method][0], **options})


@pytest.mark.parametrize(("method", "decay"), family.WITH_DECAYS)
def test_follows_the_literature(method: str, decay: Any) -> None:
    w, gradients = run()
    rates = [0.1 / (1 + t) for t in range(20)]
    wanted, velocities = family.expected(method, w, gradients, lr=rates, wd=0.1 if decay else 0.0, decay=decay)
    optimizer = make(method, {"w": w}, lr=rates.__getitem__, weight_decay=0.1 if decay else 0.0, decay=decay)
    for g in gradients:
        optimizer.step({"w": g})
    # Rounding of 20 steps with terms of size 10 at most.
    np.testing.assert_allclose(w, wanted, rtol=0, atol=1e-13)
    for slot, v in zip(optimizer.slots.values(), velocities, strict=True):
        np.testing.assert_allclose(slot["w"], v, rtol=0, atol=1e-13)
    assert optimizer.count == 20


@EVERY
def test_every_number_can_be_assigned_or_follow_a_schedule(method: str) -> None:
    for name in METHODS[method].varying:
        numbers = [0.5, 0.25, 0.75]
        (w, gradients), (other, _), (constant, _) = run(), run(), run()
        assigned, scheduled, fixed = make(method, {"w": w}), make(method, {"w": other}, **{name: numbers.__getitem__}), None
        fixed = make(method, {"w": constant}, **{name: 0.5})
        for t in range(3):
            setattr(assigned, name, numbers[t])
            assert getattr(scheduled, name) == numbers[t]
            for optimizer in (assigned, scheduled, fixed):
                optimizer.step({"w": gradients[t]})
        np.testing.assert_array_equal(w, other)
        assert not np.array_equal(w, constant)
        with pytest.raises(TypeError, match=f"{name} follows a schedule; {name}=0.5 could not take its place"):
            setattr(scheduled, name, 0.5)
        with pytest.raises(ValueError, match=f"{name} must be in"):
            setattr(assigned, name, 1.5)
        with pytest.raises(TypeError, match="callable that does not take the step"):
            make(method, {"w": w}, **{name: lambda: 0.5})


def test_a_schedule_that_leaves_the_range_is_an_error_and_no_step() -> None:
    w, gradients = run()
    before = w.copy()
    optimizer = make("Momentum", {"w": w}, momentum=lambda step: 1.0 + step)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\); got 1.0"):
        optimizer.step({"w": gradients[0]})
    np.testing.assert_array_equal(w, before)
    assert optimizer.count == 0


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_with_a_bad_gradient_is_left_out(method: str, bad: float) -> None:
    (w, gradients), (other, _) = run(), run()
    optimizer, twin = make(method, {"w": w, "b": np.ones(3)}, finite="skip"), make(method, {"w": other, "b": np.ones(3)})
    poisoned = np.array([0.0, bad, 1.0])
    for g in gradients[:3]:
        optimizer.step({"w": g, "b": np.ones(3)})
        twin.step({"w": g, "b": np.ones(3)})
        optimizer.step({"w": g, "b": poisoned})
        twin.count += 1  # such a step counts for what depends on the step
    np.testing.assert_array_equal(w, other)
    for slot, same in zip(optimizer.slots.values(), twin.slots.values(), strict=True):
        np.testing.assert_array_equal(slot["w"], same["w"])
    assert (optimizer.skipped, twin.skipped) == (3, 0)
    assert optimizer.count == 6


def test_an_error_names_the_gradients_that_are_not_finite() -> None:
    params = {name: np.ones(2) for name in "abc"}
    optimizer = make("Momentum", params, finite="error", max_norm=1.0)
    optimizer.step(params)
    norm, before = optimizer.grad_norm, copy.deepcopy(params)
    grads = {"a": np.ones(2), "b": np.array([0, np.nan]), "c": np.array([np.inf, 0])}
    with pytest.raises(FloatingPointError, match=r"At step 1 .* not finite: \['b', 'c'\]. The step was left out"):
        optimizer.step(grads)
    assert optimizer.skipped == 1
    assert optimizer.grad_norm == norm
    for name, w in params.items():
        np.testing.assert_array_equal(w, before[name])
    np.testing.assert_array_equal(optimizer.slots["velocity"]["a"], optimizer.slots["velocity"]["c"])


def test_off_does_not_look() -> None:
    w = np.ones(2)
    optimizer = make("Momentum", {"w": w})
    optimizer.step({"w": np.array([np.nan, 1.0])})
    assert np.isnan(w[0])
    assert optimizer.skipped == 0


def test_large_finite_gradients_of_float32_are_finite() -> None:
    w = np.zeros(2, np.float32)
    make("Momentum", {"w": w}, lr=1e-38, finite="error").step({"w": np.full(2, 3e38, np.float32)})
    assert (w < 0).all()


@EVERY
def test_cautious_options_reach_the_step(method: str) -> None:
    results, decay = [], family.decays(method)[-1]
    for options in ({}, {"cautious": True}, {"cautious_decay": decay == "decoupled"}):
        w, gradients = run()
        optimizer = make(method, {"w": w}, weight_decay=0.1, decay=decay, **options)
        for g in gradients:
            optimizer.step({"w": g})
        results.append(w)
    assert not np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2]) == (decay == "coupled")
    with pytest.raises(ValueError, match="cautious_decay=True has no effect"):
        make(method, {"w": w}, cautious_decay=True)


@EVERY
@pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])  # noqa: S301
def test_copies_have_memory_of_their_own(method: str, through: Any) -> None:
    params, optimizer = {"w": run()[0]}, None
    gradients = run()[1]
    optimizer = make(method, params)
    optimizer.step({"w": gradients[0]})
    before = params["w"].copy()
    other, other_params = through((optimizer, params))
    other.step({"w": gradients[1]})
    np.testing.assert_array_equal(params["w"], before)
    optimizer.step({"w": gradients[1]})
    np.testing.assert_array_equal(other_params["w"], params["w"])


def test_a_momentum_of_0_keeps_no_velocity_until_there_is_one() -> None:
    for method in ("Momentum", "Signum"):
        w, gradients = run()
        optimizer = make(method, {"w": w}, momentum=0.0)
        assert not optimizer.slots
        optimizer.momentum = 0.5
        optimizer.step({"w": gradients[0]})
        assert set(optimizer.slots) == {"velocity"}
        optimizer.momentum = 0.0
        optimizer.step({"w": gradients[1]})
        # Signum's v + (g - v) is g but for two roundings of numbers up to 3.
        np.testing.assert_allclose(optimizer.slots["velocity"]["w"], gradients[1], rtol=0, atol=1e-15)


def test_words_that_no_method_has() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'wight_decay'"):
        make("Lion", {"w": np.ones(2)}, wight_decay=0.1)
