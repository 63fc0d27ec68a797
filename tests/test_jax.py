"""`polyak.jax.momentum`: the rules, numbers that change, dtypes, and its errors. test_jax_optax has how it goes with optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import polyak.numpy
import textbook
from polyak.jax import State, momentum
from polyak.rules.heavy_ball import HEAVY_BALL

RNG = np.random.default_rng(0)
START = {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(()), "none": np.zeros((0, 2))}
GRADIENTS = [{name: RNG.standard_normal(w.shape) for name, w in START.items()} for _ in range(20)]


def train(optimizer, params, gradients, jit=True):
    """The last parameters and the last state, as everyone writes it."""

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    for g in gradients:
        params, state = step(params, state, jax.tree.map(jnp.asarray, g))
    return params, state


# The rule


@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
@pytest.mark.parametrize(("velocity", "nesterov", "dampened"), HEAVY_BALL)
def test_follows_the_literature(velocity, nesterov, dampened, decay):
    rates, momenta = [0.1 / (1 + t) for t in range(20)], [0.5 + 0.02 * t for t in range(20)]
    d = 0.25 if dampened else 0.0
    wd = 0.1 if decay else 0.0
    with jax.enable_x64(True):
        optimizer = momentum(
            lambda t: jnp.array(rates)[t],
            lambda t: jnp.array(momenta)[t],
            nesterov=nesterov,
            velocity=velocity,
            dampening=d,
            weight_decay=wd,
            decay=decay,
        )
        params, state = train(optimizer, START, GRADIENTS)
    name = velocity + ("_nesterov" if nesterov else "")
    for key, w in START.items():
        gradients = [g[key] for g in GRADIENTS]
        weights, v = textbook.train(name, w, gradients, lr=rates, m=momenta, d=d, wd=wd, decay=decay)
        # Rounding of 20 steps with terms of size 10 at most.
        np.testing.assert_allclose(params[key], weights[-1], rtol=0, atol=1e-13)
        np.testing.assert_allclose(state.slots["velocity"][key], v, rtol=0, atol=1e-13)
    assert int(state.count) == 20


@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
def test_momentum_0_is_gradient_descent_and_keeps_no_slot(decay):
    wd = 0.1 if decay else 0.0
    with jax.enable_x64(True):
        params, state = train(momentum(0.1, 0, weight_decay=wd, decay=decay), START, GRADIENTS)
    assert jax.tree.leaves(state) == [state.count]
    weights, _ = textbook.train("descent", START["w"], [g["w"] for g in GRADIENTS], lr=0.1, wd=wd, decay=decay)
    np.testing.assert_allclose(params["w"], weights[-1], rtol=0, atol=1e-14)  # 20 roundings below 4


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("m", [0.0, 0.9])
def test_is_optax_sgd(m, nesterov):
    with jax.enable_x64(True):
        ours, state = train(momentum(0.1, m, nesterov=nesterov and m > 0), START, GRADIENTS)
        theirs, (trace, _) = train(optax.sgd(0.1, m, nesterov=nesterov), START, GRADIENTS)
    for key in START:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-12, atol=1e-14)  # float64, 20 steps
        if m:
            np.testing.assert_allclose(state.slots["velocity"][key], trace.trace[key], rtol=1e-12, atol=1e-14)


def test_coupled_decay_is_add_decayed_weights_before_and_decoupled_after():
    with jax.enable_x64(True):
        for decay, peer in (
            ("coupled", optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.2, 0.9))),
            ("decoupled", optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.1), optax.scale(-0.2))),
        ):
            ours, _ = train(momentum(0.2, 0.9, weight_decay=0.1, decay=decay), START, GRADIENTS)
            theirs, _ = train(peer, START, GRADIENTS)
            np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-12, atol=1e-14)  # float64, 20 steps


def test_a_mask_says_which_parameters_decay():
    """As a tree, as a prefix of it, and as a function."""
    params = {"layer": {"w": jnp.ones(2), "b": jnp.ones(2)}, "none": None, "scale": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    tree = {"layer": {"w": True, "b": False}, "none": None, "scale": np.False_}
    prefix = {"layer": True, "none": None, "scale": False}
    function = lambda params: jax.tree.map(lambda w: w is params["layer"]["w"], params)  # noqa: E731
    for decay in ("coupled", "decoupled"):
        for mask, expected in ((tree, [1, 0.75, 1]), (prefix, [0.75, 0.75, 1]), (function, [1, 0.75, 1])):
            new, _ = train(
                momentum(0.5, 0.9, weight_decay=0.5, decay=decay, mask=mask), params, [zero], jit=mask is not function
            )
            assert [float(w[0]) for w in jax.tree.leaves(new)] == expected


# The bits of a rule. `polyak bits` and test_bits go over all rules; here, over the ways to write a step.


def numpy_bits(start, gradients, **options):
    params = {"w": start.copy()}
    optimizer = polyak.numpy.Momentum(params, 0.1, 0.9, **options)
    for g in gradients:
        optimizer.step({"w": g})
    return params["w"]


def one_jit(optimizer, start, gradients):
    return train(optimizer, jnp.asarray(start), gradients)[0]


def scan(optimizer, start, gradients):
    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda w, gs: jax.lax.scan(step, (w, optimizer.init(w)), gs)[0][0])(jnp.asarray(start), jnp.stack(gradients))


def donated(optimizer, start, gradients):
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    params = jnp.array(start)
    state = optimizer.init(params)
    for g in gradients:
        before = params, state
        params, state = step(params, state, g)
        assert all(x.is_deleted() for x in jax.tree.leaves(before))
    return params


def vmap(optimizer, start, gradients):
    """As many models as there are elements."""

    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(jax.vmap(step))
    params = jnp.asarray(start)
    state = jax.vmap(optimizer.init)(params)
    assert state.count.shape == start.shape
    for g in gradients:
        params, state = step(params, state, jnp.asarray(g))
    return params


def in_parts(optimizer, start, gradients):
    """Two programs: the update, and its application."""
    update, apply = jax.jit(optimizer.update), jax.jit(optax.apply_updates)
    params = jnp.asarray(start)
    state = optimizer.init(params)
    for g in gradients:
        updates, state = update(g, state, params)
        params = apply(params, updates)
    return params


START32 = RNG.standard_normal(101).astype(np.float32)
GRADIENTS32 = RNG.standard_normal((50, 101)).astype(np.float32)


@pytest.mark.parametrize(
    "options", [{}, {"decay": "coupled"}, {"decay": "decoupled"}, {"velocity": "step", "nesterov": True}], ids=str
)
@pytest.mark.parametrize("way", [one_jit, scan, donated, vmap])
def test_the_bits_of_the_rule_in_one_program(way, options):
    options = options | ({"weight_decay": 0.01} if "decay" in options else {})
    ours = np.asarray(way(momentum(0.1, 0.9, **options), START32, list(GRADIENTS32)))
    assert ours.tobytes() == numpy_bits(START32, GRADIENTS32, **options).tobytes()


@pytest.mark.parametrize("options", [{"decay": "decoupled", "weight_decay": 0.01}, {"velocity": "step"}], ids=str)
def test_the_bits_of_the_rule_in_two_programs(options):
    """Where the step is not a product there is nothing that the two could not fuse."""
    ours = np.asarray(in_parts(momentum(0.1, 0.9, **options), START32, list(GRADIENTS32)))
    assert ours.tobytes() == numpy_bits(START32, GRADIENTS32, **options).tobytes()


def test_two_programs_round_the_product_as_well():
    ours = np.asarray(in_parts(momentum(0.1, 0.9), START32, list(GRADIENTS32)))
    # One more rounding a step, of a step below 1: 50 times 2^-25, on weights of up to 16.
    np.testing.assert_allclose(ours, numpy_bits(START32, GRADIENTS32), rtol=0, atol=50 * 2.0**-25 + 16 * 2.0**-24)


# Numbers that change


def test_schedules_are_evaluated_at_each_step_from_0():
    seen = []
    rate = optax.piecewise_constant_schedule(0.1, {2: 0.5, 5: 4.0})
    optimizer = momentum(rate, lambda t: seen.append(t) or 0.9 - 0.05 * jnp.minimum(t, 10))
    params, _ = train(optimizer, {"w": START["w"]}, [{"w": g["w"]} for g in GRADIENTS])
    assert len(seen) == 1  # traced once
    assert (seen[0].dtype, seen[0].shape) == (jnp.int32, ())
    # As optax has it: the scale at 2 is applied from the third update on.
    rates, momenta = [0.1] * 2 + [0.05] * 3 + [0.2] * 15, [0.9 - 0.05 * min(t, 10) for t in range(20)]
    expected, _ = textbook.train("gradient", START["w"], [g["w"] for g in GRADIENTS], lr=rates, m=momenta)
    np.testing.assert_allclose(params["w"], expected[-1], atol=5e-6)  # 20 float32 steps on weights of up to 4


def test_no_second_call_compiles():
    optimizer = momentum(optax.linear_schedule(0.1, 0.0, 10), lambda t: 0.9 + 0 * t, weight_decay=0.1, decay="decoupled")
    traces = []

    @jax.jit
    def step(params, state, grads):
        traces.append(1)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, START)
    state = optimizer.init(params)
    for g in GRADIENTS:
        params, state = step(params, state, g)
    assert len(traces) == 1
    assert step._cache_size() == 1


def test_a_traced_learning_rate_and_momentum():
    """Of a step that takes them as arguments, as searches over them under vmap do."""

    def last(lr, m):
        return train(momentum(lr, m), {"w": START["w"]}, [{"w": g["w"]} for g in GRADIENTS[:5]], jit=False)[0]["w"]

    rates, momenta = jnp.array([0.1, 0.2]), jnp.array([0.9, 0.0])
    both = jax.jit(jax.vmap(last))(rates, momenta)
    for one, lr, m in zip(both, (0.1, 0.2), (0.9, 0.0), strict=True):
        np.testing.assert_allclose(one, last(lr, m), atol=1e-6)  # 5 float32 steps on weights of up to 4
    # The weight is linear in the learning rate, and so is its derivative the way that was gone.
    slope = jax.grad(lambda lr: last(lr, 0.5).sum())(0.1)
    assert float(slope) == pytest.approx(float((last(0.1, 0.5) - START["w"]).sum() / 0.1), rel=1e-4)


def test_a_number_in_an_array_may_be_0_for_now():
    decaying = momentum(0.5, jnp.array(0.0), weight_decay=jnp.array(0.0), decay="coupled")
    params, state = train(decaying, jnp.ones(2), [jnp.ones(2)])
    np.testing.assert_array_equal(params, 0.5)
    np.testing.assert_array_equal(state.slots["velocity"], 1.0)


# Dtypes


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype, decay):
    w = jnp.asarray(START32, dtype)
    gradients = [jnp.asarray(g, dtype) for g in GRADIENTS32[:20]]
    options = {"weight_decay": 0.01, "decay": decay} if decay else {}
    ours, state = train(momentum(0.1, 0.9, **options), w, gradients)
    assert (ours.dtype, state.slots["velocity"].dtype) == (dtype, jnp.float32)
    # Bit for bit the float32 rule of NumPy, its weight rounded after each step.
    params = {"w": np.array(w, np.float32)}
    optimizer = polyak.numpy.Momentum(params, 0.1, 0.9, **options)
    for g in gradients:
        optimizer.step({"w": np.asarray(g, np.float32)})
        params["w"][:] = params["w"].astype(dtype)
    np.testing.assert_array_equal(np.asarray(ours, np.float32), params["w"])
    assert np.asarray(state.slots["velocity"]).tobytes() == optimizer.slots["velocity"]["w"].tobytes()


def test_slot_dtype():
    optimizer = momentum(1.0, 0.5, slot_dtype=jnp.bfloat16)
    params, state = train(optimizer, jnp.zeros(1), [jnp.array([1.0]), jnp.array([2.0**-9])])
    assert state.slots["velocity"].dtype == jnp.bfloat16
    # The step is taken with the velocity before it is rounded: 1, then 0.5 + 2^-9, of which the slot keeps 0.5.
    assert float(params[0]) == -(1.5 + 2.0**-9)
    assert float(state.slots["velocity"][0]) == 0.5
    assert momentum(1.0, slot_dtype="float32").init(jnp.zeros(1, jnp.bfloat16)).slots["velocity"].dtype == jnp.float32
    with pytest.raises(ValueError, match="jax_enable_x64"):
        momentum(1.0, slot_dtype="float64")
    with pytest.raises(TypeError, match=r"slot_dtype must be a floating dtype.*got 'int8'"):
        momentum(1.0, slot_dtype="int8")
    with pytest.raises(ValueError, match="no effect with momentum=0"):
        momentum(1.0, 0, slot_dtype="float32")


def test_gradients_of_another_precision():
    w, g = jnp.ones(3), jnp.full(3, 0.5, jnp.bfloat16)
    params, state = train(momentum(0.5, 0.5), w, [g, g])
    assert (params.dtype, state.slots["velocity"].dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_array_equal(params, 1 - 0.25 - 0.375)


def test_complex_parameters():
    """A complex parameter is two real ones."""
    w, gradients = START32[:50] + 1j * START32[50:100], GRADIENTS32[:, :50] + 1j * GRADIENTS32[:, 50:100]
    options = {"nesterov": True, "weight_decay": 0.1, "decay": "coupled"}
    ours, state = train(momentum(0.1, 0.9, **options), w, gradients)
    real = numpy_bits(np.concatenate([w.real, w.imag]), np.concatenate([gradients.real, gradients.imag], axis=1), **options)
    assert state.slots["velocity"].dtype == jnp.complex64
    # 50 float32 steps on weights of up to 30; the products of complex numbers are fused in another way.
    np.testing.assert_allclose(ours, real[:50] + 1j * real[50:], atol=50 * 30 * 2.0**-24)
    with pytest.raises(TypeError, match="of complex64; slots of float32 would lose"):
        momentum(0.1, slot_dtype="float32").init(w)
    with pytest.raises(TypeError, match=r"grads\['w'\] is of complex64; the parameter is of float32"):
        train(momentum(0.1), {"w": jnp.ones(2)}, [{"w": jnp.ones(2, jnp.complex64)}])


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be finite and at least 0; got -0.1"),
        ({"learning_rate": jnp.array(jnp.nan)}, "learning_rate must be finite"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        ({"momentum": jnp.array(1.5)}, r"momentum must be in \[0, 1\)"),
        ({"dampening": 1.0}, r"dampening must be in \[0, 1\)"),
        ({"velocity": "steps"}, "velocity must be one of"),
        ({"momentum": 0, "nesterov": True}, "no effect with momentum=0"),
        ({"nesterov": True, "dampening": jnp.array(0.5)}, "takes no dampening"),
        ({"weight_decay": 0.1}, "weight_decay=0.1 needs decay"),
        ({"weight_decay": jnp.array(0.1)}, "needs decay"),
        ({"decay": "coupled"}, "no effect with weight_decay=0"),
        ({"weight_decay": jnp.array(0.0), "decay": "l2"}, "decay must be"),
        ({"mask": True}, "mask .* has no effect without"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        momentum(**{"learning_rate": 0.1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": "0.1"}, "learning_rate must be a number; got '0.1'"),
        ({"learning_rate": lambda: 0.1}, "learning_rate was given a callable that does not take the step"),
        ({"momentum": lambda a, b: 0.9}, "momentum was given a callable that does not take the step"),  # noqa: ARG005
        ({"momentum": jnp.zeros(2)}, "momentum must be a number"),
        ({"dampening": lambda t: 0.5}, "dampening must be a number"),  # noqa: ARG005
    ],
)
def test_arguments_of_a_wrong_type(arguments, message):
    with pytest.raises(TypeError, match=message):
        momentum(**{"learning_rate": 0.1, **arguments})


def test_parameters_and_gradients_that_do_not_fit():
    optimizer = momentum(0.1)
    params = {"w": jnp.ones((2, 3))}
    state = optimizer.init(params)
    with pytest.raises(TypeError, match=r"params\['n'\] is of int32"):
        optimizer.init({"n": jnp.arange(3)})
    with pytest.raises(ValueError, match=r"grads\['w'\] has shape \(3,\); the parameter has shape \(2, 3\)"):
        optimizer.update({"w": jnp.ones(3)}, state, params)
    with pytest.raises(ValueError, match="Dict key mismatch"):
        optimizer.update({"v": jnp.ones((2, 3))}, state, params)
    with pytest.raises(ValueError, match=r"learning_rate must be a scalar; the function of the step returned .* shape \(2,\)"):
        momentum(lambda t: jnp.ones(2)).update(params, state, params)  # noqa: ARG005
    decaying = momentum(0.1, weight_decay=0.1, decay="coupled")
    with pytest.raises(ValueError, match=r"decay='coupled' needs the weights: call update\(grads, state, params\)"):
        decaying.update(params, state)
    with pytest.raises(TypeError, match=r"mask\['w'\] must be True or False; got 1"):
        momentum(0.1, weight_decay=0.1, decay="coupled", mask={"w": 1}).update(params, state, params)


def test_without_decay_the_parameters_are_not_needed():
    updates, state = momentum(0.5).update({"w": jnp.ones(2)}, State(jnp.int32(0), {"velocity": {"w": jnp.ones(2)}}))
    np.testing.assert_array_equal(updates["w"], -0.5 * np.float32(1.9))
    assert int(state.count) == 1
