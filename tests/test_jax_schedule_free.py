"""`polyak.jax.schedule_free`, and the average that `polyak.jax.averaged` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import polyak.jax
import polyak.numpy
from polyak.averaging import Averaging
from polyak.jax import averaged, schedule_free
from test_jax import GRADIENTS, START, train


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
def test_what_depends_on_the_step_has_the_same_bits_everywhere(warmup):
    steps = np.arange(300)
    found = jax.jit(Averaging(warmup))(jnp.asarray(steps))
    np.testing.assert_array_equal(found, [Averaging(warmup)(int(t)) for t in steps])
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_same_as_numpy(warmup):
    w = {name: x.astype(np.float32) for name, x in START.items()}
    gradients = [{name: g.astype(np.float32) for name, g in of_step.items()} for of_step in GRADIENTS]
    optimizer = schedule_free(0.3, 0.8, warmup_steps=warmup)
    params, state = train(optimizer, w, gradients)
    there = {name: x.copy() for name, x in w.items()}
    other = polyak.numpy.ScheduleFree(there, 0.3, 0.8, warmup_steps=warmup)
    for g in gradients:
        other.step(g)
    averages = averaged(optimizer, state, params)
    for name in w:
        np.testing.assert_array_equal(params[name], there[name])
        np.testing.assert_array_equal(state.slots["lead"][name], other.slots["lead"][name])
        # A product and a difference, fused or not: one rounding of numbers up to 4.
        np.testing.assert_allclose(averages[name], other.averages()[name], rtol=0, atol=2**-22)


def test_the_average_within_other_states_in_compiled_code_and_by_group():
    optimizer = schedule_free(0.5, 0.5, groups={"b": {"momentum": 1.0, "learning_rate": 0.25}})
    chained = optax.chain(optax.clip_by_global_norm(1e9), optimizer)
    params = {"w": jnp.array([4.0]), "b": jnp.array([4.0])}
    state = chained.init(params)
    for _ in range(2):
        updates, state = chained.update(params, state, params)
        params = optax.apply_updates(params, updates)
    # w: z = 4, 2, 1, x = 4, 2, 1.5 and y = 1.25. b trains its average: z = 4, 3, 2.25 and y = x = 4, 3, 2.625.
    np.testing.assert_array_equal(params["w"], [1.25])
    np.testing.assert_array_equal(params["b"], [2.625])
    for average in (averaged(optimizer, state, params), jax.jit(lambda s, p: averaged(optimizer, s, p))(state, params)):
        np.testing.assert_array_equal(average["w"], [1.5])
        np.testing.assert_array_equal(average["b"], [2.625])


def test_groups_warm_up_too():
    optimizer = schedule_free(0.5, warmup_steps=2, groups={"b": {"learning_rate": 0.25}})
    params = {"w": jnp.array([4.0]), "b": jnp.array([4.0])}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["w"], [-1.0])
    np.testing.assert_array_equal(updates["b"], [-0.5])


def test_half_precision_and_other_slots():
    w = jnp.array([4.0], jnp.bfloat16)
    optimizer = schedule_free(0.5, 0.5, slot_dtype=jnp.bfloat16)
    state = optimizer.init(w)
    for _ in range(2):
        updates, state = optimizer.update(w, state, w)
        w = optax.apply_updates(w, updates)
    assert state.slots["lead"].dtype == jnp.bfloat16
    average = averaged(optimizer, state, w)
    assert average.dtype == jnp.bfloat16
    np.testing.assert_array_equal(average.astype(jnp.float32), [1.5])


def test_complex_parameters():
    w = jnp.array([4.0 + 4.0j])
    optimizer = schedule_free(0.5, 0.5)
    params, state = train(optimizer, w, [w, w / 2])
    # z = 2 + 2j, then 1 + 1j.
    np.testing.assert_array_equal(averaged(optimizer, state, params), [1.5 + 1.5j])


def test_injected_numbers():
    whole = optax.inject_hyperparams(schedule_free, static_args=("warmup_steps",))(0.5, 0.5)
    w = jnp.array([4.0])
    state = whole.init(w)
    updates, state = whole.update(w, state, w)
    np.testing.assert_array_equal(updates, [-2.0])
    with pytest.raises(TypeError, match='give static_args="warmup_steps"'):
        optax.inject_hyperparams(schedule_free)(0.5).init(w)


def test_wrong_arguments():
    w = jnp.ones(2)
    with pytest.raises(ValueError, match=r"momentum must be in \(0, 1\]; got 0"):
        schedule_free(momentum=0)
    with pytest.raises(ValueError, match="warmup_steps=5 makes a schedule of the learning rate"):
        schedule_free(optax.constant_schedule(0.1), warmup_steps=5)
    with pytest.raises(ValueError, match="makes a schedule of the learning rate"):
        schedule_free(0.1, warmup_steps=5, groups={"b": {"learning_rate": optax.constant_schedule(0.1)}})
    with pytest.raises(TypeError, match="groups must be a dict"):
        schedule_free(groups=[("b", {})])
    other = polyak.jax.momentum(0.1)
    with pytest.raises(TypeError, match=r"the transformation that polyak.jax.schedule_free returned"):
        averaged(other, other.init(w), w)
    with pytest.raises(ValueError, match="there are 0"):
        averaged(schedule_free(), other.init(w), w)
