"""`polyak.jax.momentum` among the transformations of optax, on the trees of flax and equinox."""

from dataclasses import dataclass

import equinox as eqx
import flax.linen
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import polyak.jax
from polyak.jax import momentum
from test_jax import train

PARAMS = {"layer": {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}, "scale": jnp.float32(2)}
GRADIENTS = [jax.tree.map(lambda w: jnp.sin(w + t), PARAMS) for t in range(6)]  # noqa: B023  (called at once)


def assert_same(one, other):
    """As float32 allows for a few steps on weights of up to 8, computed in different programs."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=8 * 6 * 2.0**-24), one, other)


def both(wrap, gradients=GRADIENTS, params=PARAMS, jit=True):
    """A wrapped `momentum` must do what wrapped optax.sgd does."""
    ours, state = train(wrap(momentum(0.1, 0.9, nesterov=True)), params, gradients, jit)
    theirs, _ = train(wrap(optax.sgd(0.1, 0.9, nesterov=True)), params, gradients, jit)
    assert_same(ours, theirs)
    return state


@pytest.mark.parametrize("jit", [True, False])
def test_chain(jit):
    both(lambda inner: optax.chain(optax.clip_by_global_norm(1.0), inner, optax.scale(0.5)), jit=jit)


def test_masked():
    # What optax.masked leaves out keeps its gradient as its update.
    both(lambda inner: optax.masked(inner, {"layer": {"w": True, "b": False}, "scale": True}))
    both(lambda inner: optax.masked(inner, {"layer": False, "scale": True}))


def test_masked_with_decay():
    optimizer = optax.masked(
        momentum(0.5, 0.9, weight_decay=0.5, decay="coupled"), {"layer": {"w": True, "b": False}, "scale": True}
    )
    params, _ = train(optimizer, PARAMS, [jax.tree.map(jnp.zeros_like, PARAMS)])
    assert_same(params, {"layer": {"w": 0.75 * PARAMS["layer"]["w"], "b": PARAMS["layer"]["b"]}, "scale": jnp.array(1.5)})


def test_multi_transform():
    labels = {"layer": "fast", "scale": "slow"}
    ours = optax.multi_transform({"fast": momentum(0.1, 0.9), "slow": momentum(0.01, 0)}, labels)
    theirs = optax.multi_transform({"fast": optax.sgd(0.1, 0.9), "slow": optax.sgd(0.01)}, labels)
    assert_same(train(ours, PARAMS, GRADIENTS)[0], train(theirs, PARAMS, GRADIENTS)[0])


def test_multi_steps():
    state = both(lambda inner: optax.MultiSteps(inner, 3))
    assert int(state.inner_opt_state.count) == 2


def test_apply_if_finite():
    gradients = [GRADIENTS[0], jax.tree.map(lambda g: g / 0, GRADIENTS[0]), GRADIENTS[1]]
    both(lambda inner: optax.apply_if_finite(inner, 3), gradients)


def test_apply_if_finite_with_half_precision():
    """It takes updates of the gradients' dtype only, and ours are float32: so must the gradients be."""
    params = jnp.ones(3, jnp.bfloat16)
    gradients = [jnp.full(3, 2.0), jnp.full(3, jnp.inf), jnp.full(3, 4.0)]
    new, state = train(optax.apply_if_finite(momentum(0.125, 0.5), 3), params, gradients)
    assert new.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.inner_state.slots["velocity"], 5.0)
    np.testing.assert_array_equal(new.astype(jnp.float32), 1 - 0.125 * 2 - 0.125 * 5)


def test_inject_hyperparams():
    optimizer = optax.inject_hyperparams(momentum, static_args=("mask", "slot_dtype"))(
        learning_rate=0.1,
        momentum=optax.linear_schedule(0.0, 0.9, 5),
        weight_decay=0.1,
        decay="coupled",
        mask=lambda params: True,  # noqa: ARG005
    )

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for t, g in enumerate(GRADIENTS):
        state.hyperparams["learning_rate"] = jnp.float32(0.1 / (1 + t))
        params, state = step(params, state, g)
    assert step._cache_size() == 1
    plain = momentum(lambda t: 0.1 / (1 + t), lambda t: 0.9 * jnp.minimum(t, 5) / 5, weight_decay=0.1, decay="coupled")
    assert_same(params, train(plain, PARAMS, GRADIENTS)[0])


@pytest.mark.parametrize(
    "options", [{}, {"nesterov": True}, {"velocity": "step", "dampening": 0.25}, {"momentum": 0.0}], ids=str
)
def test_inject_hyperparams_of_every_option(options):
    ours, _ = train(optax.inject_hyperparams(momentum)(0.1, **options), PARAMS, GRADIENTS)
    assert_same(ours, train(momentum(0.1, **options), PARAMS, GRADIENTS)[0])


def test_inject_hyperparams_checks_what_it_is_given():
    with pytest.raises(ValueError, match=r"weight_decay=.* needs decay"):
        optax.inject_hyperparams(momentum)(0.1, weight_decay=0.1).init(PARAMS)


def test_lookahead_and_schedule_free_style_wrappers():
    """Wrappers that see parameters of their own type."""
    fast = optax.lookahead(momentum(0.1), sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    state = fast.init(params)
    for g in GRADIENTS:
        updates, state = fast.update(g, state, params)
        params = optax.apply_updates(params, updates)
    assert jax.tree.structure(params.slow) == jax.tree.structure(PARAMS)


# Trees


def test_flax_linen():
    model = flax.linen.Dense(2)
    x = jnp.ones((4, 3))
    params = model.init(jax.random.key(0), x)
    gradient = jax.grad(lambda p: jnp.square(model.apply(p, x)).sum())(params)
    both(lambda inner: inner, [gradient] * 3, params)


def test_flax_nnx():
    def loss(optimizer):
        model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        held = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

        @nnx.jit
        def step(model, held):
            value, grads = nnx.value_and_grad(lambda m: jnp.square(m(jnp.ones((4, 3)))).sum())(model)
            held.update(model, grads)
            return value

        return [float(step(model, held)) for _ in range(4)]

    ours, theirs = loss(momentum(0.01, 0.9)), loss(optax.sgd(0.01, 0.9))
    assert ours == pytest.approx(theirs, rel=1e-5)  # sums of 8 squares in float32, 4 steps
    assert ours[-1] < ours[0]


def test_equinox():
    model = eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))
    x = jnp.ones((5, 3))

    def trained(optimizer):
        @eqx.filter_jit
        def step(model, state):
            grads = eqx.filter_grad(lambda m: jnp.square(jax.vmap(m)(x)).mean())(model)
            updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
            return eqx.apply_updates(model, updates), state

        new, state = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        for _ in range(3):
            new, state = step(new, state)
        return eqx.filter(new, eqx.is_inexact_array)

    assert_same(trained(momentum(0.1, 0.9)), trained(optax.sgd(0.1, 0.9)))
    # A model can be called, and is a mask like any other tree.
    mask = jax.tree.map(lambda w: w.ndim > 1, eqx.filter(model, eqx.is_inexact_array))
    new = trained(momentum(0.1, 0.9, weight_decay=0.1, decay="decoupled", mask=mask))
    plain = trained(momentum(0.1, 0.9))
    assert not np.array_equal(new.layers[0].weight, plain.layers[0].weight)


def test_a_registered_dataclass():
    @jax.tree_util.register_dataclass
    @dataclass
    class Model:
        w: jax.Array
        b: jax.Array | None

    params = Model(jnp.ones(3), None)
    state = both(lambda inner: inner, [Model(jnp.full(3, 0.5), None)] * 3, params)
    assert isinstance(state, polyak.jax.State)
    assert isinstance(state.slots["velocity"], Model)


def test_an_empty_tree():
    params, state = train(momentum(0.1), {}, [{}])
    assert params == {}
    assert state.slots["velocity"] == {}
