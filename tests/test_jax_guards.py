"""`polyak.jax`: gradients that are not finite, and the bound of their norm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import polyak.jax
from polyak.jax import aggmo, check_finite, lion, momentum, qhm, signum
from test_jax import train

RNG = np.random.default_rng(1)
# Zeros of both signs, and lengths that leave a rest behind the widest vectors.
START = {"w": np.array([-0.0, 0.0, *RNG.standard_normal(99)], np.float32), "b": np.array([-0.0], np.float32)}
GRADIENTS = [{name: RNG.standard_normal(w.shape).astype(np.float32) for name, w in START.items()} for _ in range(12)]
OPTIMIZERS = [
    (momentum, {}),
    (momentum, {"momentum": 0.0}),
    (momentum, {"nesterov": True}),
    (momentum, {"velocity": "step"}),
    (momentum, {"velocity": "step", "nesterov": True}),
    (momentum, {"velocity": "average", "nesterov": True}),
    (qhm, {}),
    (aggmo, {}),
    (signum, {}),
    (lion, {}),
]
PIPELINES = [
    {},
    {"weight_decay": 0.01, "decay": "coupled"},
    {"weight_decay": 0.01, "decay": "decoupled", "cautious": True, "cautious_decay": True},
    {"max_norm": 5.0},
]


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def spoiled(gradients, value, name="w"):
    """The gradients with one bad element."""
    bad = gradients[name].copy()
    bad[-1] = value
    return gradients | {name: bad}


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
@pytest.mark.parametrize(("function", "options"), OPTIMIZERS, ids=str)
def test_a_guard_changes_no_bit_and_a_step_left_out_none_either(function, options, pipeline):
    off, before = train(function(0.1, **options, **pipeline), START, GRADIENTS)
    guarded = function(0.1, **options, **pipeline, finite="error")
    # All numbers here are constant, so that with steps left out in between the others are the same.
    bad = [spoiled(GRADIENTS[0], np.nan), spoiled(GRADIENTS[1], np.inf, "b"), spoiled(GRADIENTS[2], -np.inf)]
    on, after = train(guarded, START, [bad[0], *GRADIENTS[:6], *bad[1:], *GRADIENTS[6:]])
    assert (bits(on), bits(after.slots)) == (bits(off), bits(before.slots))
    assert (int(after.skipped), after.nonfinite.tolist(), int(after.count)) == (3, [1, 2], 15)  # b, w


@pytest.mark.parametrize(("function", "options"), [(momentum, {"nesterov": True}), (qhm, {})], ids=str)
def test_with_a_bound_and_decay_a_guard_changes_last_bits_at_most(function, options):
    # XLA chooses which of scale * g and weight_decay * w it rounds before it adds them: 12 steps of such a rounding.
    pipeline = {"weight_decay": 0.01, "decay": "coupled", "max_norm": 5.0}
    off, on = (train(function(0.1, **options, **pipeline, **guard), START, GRADIENTS)[0] for guard in ({}, {"finite": "error"}))
    for name, w in on.items():
        np.testing.assert_allclose(w, off[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
def test_no_bit_of_a_weight_moves_with_a_step_that_is_left_out(decay, jit):
    params = {
        "w": np.array([-0.0, 0.0, 1e-45, -1.0, np.inf, -np.inf], np.float32),
        "half": jnp.array([-0.0, 2.0], jnp.bfloat16),
    }
    gradients = {"w": np.full(6, np.nan, np.float32), "half": jnp.ones(2, jnp.bfloat16)}
    optimizer = momentum(0.1, weight_decay=0.1, decay=decay, finite="skip")
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    assert all(np.signbit(np.asarray(u, np.float32)).all() and not np.asarray(u, np.float32).any() for u in updates.values())
    new, state = train(optimizer, params, [gradients], jit)
    w, old = np.asarray(new["w"]), params["w"]
    normal = old != np.float32(1e-45)  # XLA counts it as 0
    assert w[normal].tobytes() == old[normal].tobytes()
    assert bits(new["half"]) == bits(params["half"])
    assert not any(np.asarray(v).any() for v in state.slots["velocity"].values())
    assert state.nonfinite is None


def test_without_a_guard_the_velocity_is_poisoned():
    params, state = train(momentum(0.1), START, [spoiled(GRADIENTS[0], np.nan), *GRADIENTS])
    assert np.isnan(params["w"][-1])
    assert (state.skipped, state.nonfinite) == (None, None)


def test_schedules_count_the_steps_that_are_left_out():
    optimizer = momentum(lambda t: jnp.array([1.0, 10.0, 100.0])[t], 0, finite="skip")
    one, nan = jnp.ones(1), jnp.full(1, jnp.nan)
    params, _ = train(optimizer, jnp.zeros(1), [one, nan, one])
    np.testing.assert_array_equal(params, -101.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_gradients_are_finite(dtype):
    """Their squares are not."""
    params, state = train(momentum(1e-30, 0, finite="error"), jnp.zeros(2, dtype), [jnp.full(2, 1e30, dtype)])
    assert int(state.skipped) == 0
    np.testing.assert_allclose(np.float32(params), -1.0, rtol=2**-7)  # bfloat16 has 8 bits


def test_half_precision_and_slots_in_it():
    options = {"slot_dtype": jnp.bfloat16}
    w, gradients = jnp.asarray(START["w"], jnp.bfloat16), [jnp.asarray(g["w"], jnp.bfloat16) for g in GRADIENTS]
    bad = jnp.full_like(w, jnp.inf)
    off, before = train(qhm(0.1, **options), w, gradients)
    on, after = train(qhm(0.1, finite="skip", **options), w, [gradients[0], bad, *gradients[1:]])
    assert (bits(on), bits(after.slots)) == (bits(off), bits(before.slots))


def test_each_model_of_a_vmap_has_its_own_guard():
    optimizer = momentum(0.5, 0.5, finite="error")

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    w = {"a": jnp.ones((3, 2)), "b": jnp.ones(3)}
    state = jax.vmap(optimizer.init)(w)
    params, state = jax.jit(jax.vmap(step))(w, state, w | {"b": jnp.array([1.0, jnp.nan, 1.0])})
    np.testing.assert_array_equal(params["a"][:, 0], [0.5, 1.0, 0.5])
    np.testing.assert_array_equal(state.skipped, [0, 1, 0])
    with pytest.raises(FloatingPointError, match=r"1 of 3 updates was left out, .*: b \(1\)\."):
        check_finite(state)


def test_in_a_scan():
    optimizer = lion(0.5, finite="skip")

    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    gradients = jnp.array([[1.0], [jnp.nan], [1.0]])
    (params, state), _ = jax.jit(lambda w: jax.lax.scan(step, (w, optimizer.init(w)), gradients))(jnp.zeros(1))
    np.testing.assert_array_equal(params, -1.0)
    assert int(state.skipped) == 1


def test_the_slots_stay_in_place_and_the_gradients_are_read_once_more():
    """A guard that made XLA copy the velocity, or compute it twice, would take more than twice the time."""
    optimizer = momentum(0.1, finite="error", max_norm=1.0)

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    w = jnp.ones(100_000)
    text = jax.jit(step, donate_argnums=(0, 1)).lower(w, optimizer.init(w), w).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    large = re.findall(r"= f32\[100000\]\S* (\w+)\((.*?)\)", entry)
    assert sorted(kind for kind, _ in large) == ["fusion", "fusion", "parameter", "parameter", "parameter"]
    gradient = re.search(r"%(\S+) = f32\[100000\]\S* parameter\(.\).*op_name=\"g\"", entry).group(1)
    # The sum of squares, the velocity, and the second look, which is for sums that have overflowed.
    assert len(re.findall(rf"[(, ]%{re.escape(gradient)}[,)]", entry)) == 3


def test_check_finite_names_the_parameters():
    w = {"layers": [{"kernel": jnp.ones(2), "bias": jnp.ones(2)}], "head": jnp.ones(2)}
    bad = {"layers": [{"kernel": jnp.ones(2), "bias": jnp.full(2, jnp.nan)}], "head": jnp.full(2, jnp.inf)}
    good = jax.tree.map(jnp.ones_like, w)
    _, state = train(optax.chain(optax.identity(), momentum(0.1, finite="error")), w, [good, bad, good, bad])
    with pytest.raises(FloatingPointError, match=r"^2 of 4 updates were left out, .*: head \(2\), layers/0/bias \(2\)\.$"):
        check_finite(state)
    _, state = train(momentum(0.1, 0, finite="error"), w, [bad])
    with pytest.raises(FloatingPointError, match=r": parameter 0 \(1\), parameter 1 \(1\)\."):
        check_finite(state)
    with pytest.raises(FloatingPointError, match=r": head \(1\), layers/0/bias \(1\)\."):
        check_finite(state, w)
    many = [jnp.full(1, jnp.nan)] * 12
    _, state = train(momentum(0.1, finite="error"), many, [many])
    with pytest.raises(FloatingPointError, match=r"9 \(1\) and 2 more\.$"):
        check_finite(state)
    for finite in ("skip", "off"):
        with pytest.raises(ValueError, match='needs a state with finite="error"'):
            check_finite(momentum(0.1, finite=finite).init(w))


def test_an_empty_tree():
    for finite in ("skip", "error"):
        params, state = train(momentum(0.1, finite=finite, max_norm=1.0), {}, [{}])
        assert (params, int(state.skipped)) == ({}, 0)


def test_among_the_transformations_of_optax():
    """The state is carried through, also where a part of the parameters is masked."""
    labels = {"w": "fast", "b": "slow"}
    parts = {"fast": momentum(0.1, finite="error"), "slow": signum(0.1, finite="skip", max_norm=1.0)}
    for wrapped in (
        optax.multi_transform(parts, labels),
        optax.MultiSteps(momentum(0.1, finite="error", max_norm=1.0), 2),
        optax.masked(momentum(0.1, finite="error"), {"w": True, "b": False}),
        optax.inject_hyperparams(momentum)(0.1, finite="error", max_norm=1.0, groups={"b": {"learning_rate": 0.2}}),
    ):
        _, state = train(wrapped, START, [GRADIENTS[0], GRADIENTS[1], *[spoiled(GRADIENTS[2], np.nan)] * 2])
        with pytest.raises(FloatingPointError, match=r"w \(.\)"):
            check_finite(state)


# The norm


def global_norm(gradients):
    return np.sqrt(sum(np.square(np.float64(g)).sum() for g in gradients.values()))


@pytest.mark.parametrize("jit", [True, False])
def test_clips_as_optax_does(jit):
    assert global_norm(GRADIENTS[0]) > 5
    theirs, _ = train(optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.1, 0.9)), START, GRADIENTS, jit)
    ours, _ = train(momentum(0.1, 0.9, max_norm=5.0), START, GRADIENTS, jit)
    for name in START:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-6)  # 12 float32 steps on weights of up to 4
    # And leaves alone what is within the bound, bit for bit.
    wide, _ = train(momentum(0.1, 0.9, max_norm=1e6), START, GRADIENTS, jit)
    assert bits(wide) == bits(train(momentum(0.1, 0.9), START, GRADIENTS, jit)[0])


def test_the_norm_is_that_of_all_parameters_in_float32_at_least():
    params = {"half": jnp.zeros(2000, jnp.bfloat16), "z": jnp.zeros(1, jnp.complex64), "none": None}
    gradients = {"half": jnp.ones(2000, jnp.bfloat16), "z": jnp.array([3.0 + 4.0j]), "none": None}
    new, _ = train(momentum(1.0, 0, max_norm=1.0), params, [gradients])
    norm = np.sqrt(2025.0)
    np.testing.assert_allclose(new["z"], -(3 + 4j) / norm, rtol=1e-6)  # float32
    np.testing.assert_allclose(np.float32(new["half"]), -1 / norm, rtol=2.0**-8)  # rounded to bfloat16


def test_an_infinite_norm_stops_the_others_and_nan_is_seen():
    """As in every front-end; see `polyak.update.clip_scale`."""
    params, _ = train(momentum(1.0, 0, max_norm=1.0), jnp.zeros(2), [jnp.array([1.0, jnp.inf])])
    assert float(params[0]) == 0
    assert np.isnan(params[1])
    params, _ = train(momentum(1.0, 0, max_norm=1.0), jnp.zeros(2), [jnp.array([1.0, jnp.nan])])
    assert np.isnan(params).all()


def test_a_bound_in_an_array_may_change():
    @jax.jit
    def step(bound):
        optimizer = polyak.jax.momentum(1.0, 0, max_norm=bound)
        w = jnp.zeros(1)
        return optimizer.update(jnp.full(1, 4.0), optimizer.init(w))[0]

    assert [float(step(x)[0]) for x in (jnp.array(1.0), jnp.array(2.0))] == [-1.0, -2.0]
