"""The methods of `polyak.jax` beside momentum: their recursions, their peers in optax, and groups of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import family
import polyak.jax
from polyak.methods import METHODS
from test_jax import GRADIENTS, START, train

FUNCTIONS = {method: getattr(polyak.jax, METHODS[method].function) for method in family.CASES}


def test_every_method_has_a_function():
    assert set(FUNCTIONS) <= set(METHODS)
    for method, function in FUNCTIONS.items():
        made = function(0.1, **family.CASES[method][0])
        assert made.method is METHODS[method]
        assert {"learning_rate", *METHODS[method].arguments, "weight_decay", "decay"} <= set(made.arguments)


@pytest.mark.parametrize(("method", "decay"), family.WITH_DECAYS)
def test_follows_the_literature(method, decay):
    rates, wd = [0.1 / (1 + t) for t in range(20)], 0.1 if decay else 0.0
    with jax.enable_x64(True):
        optimizer = FUNCTIONS[method](lambda t: jnp.array(rates)[t], **family.CASES[method][0], weight_decay=wd, decay=decay)
        params, state = train(optimizer, START, GRADIENTS)
    letters = {"wd": wd, "decay": decay}
    for key, w in START.items():
        weight, velocities = family.expected(method, w, [g[key] for g in GRADIENTS], lr=rates, **letters)
        # Rounding of 20 steps with terms of size 10 at most; no average is so near 0 that its sign could change.
        np.testing.assert_allclose(params[key], weight, rtol=0, atol=1e-13)
        for slot, v in zip(state.slots.values(), velocities, strict=True):
            np.testing.assert_allclose(slot[key], v, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("ours", "theirs", "slot", "trace"),
    [
        (polyak.jax.lion(0.1, 0.7, 0.8), optax.lion(0.1, 0.7, 0.8, weight_decay=0.0), "velocity", lambda s: s[0].mu),
        (
            polyak.jax.lion(0.1, 0.7, 0.8, weight_decay=0.2, decay="decoupled"),
            optax.lion(0.1, 0.7, 0.8, weight_decay=0.2),
            "velocity",
            lambda s: s[0].mu,
        ),
        (polyak.jax.signum(0.1, 0.8), optax.signum(0.1, 0.8), "velocity", lambda s: s[0].ema),
        (polyak.jax.signum(0.1, 0), optax.sign_sgd(0.1), None, None),
        (polyak.jax.aggmo(0.1, (0.8,)), optax.sgd(0.1, 0.8), "velocity_0", lambda s: s[0].trace),
        (polyak.jax.qhm(0.1, 0.8, 0), optax.sgd(0.1), None, None),
        (
            polyak.jax.qhm(0.1, 0.8, 1),
            optax.chain(optax.ema(0.8, debias=False), optax.scale(-0.1)),
            "velocity",
            lambda s: s[0].ema,
        ),
    ],
    ids=["lion", "lion-decay", "signum", "sign_sgd", "aggmo-sgd", "qhm-descent", "qhm-average"],
)
def test_is_its_peer_in_optax(ours, theirs, slot, trace):
    with jax.enable_x64(True):
        params, state = train(ours, START, GRADIENTS)
        expected, peer = train(theirs, START, GRADIENTS)
    for key in START:
        np.testing.assert_allclose(params[key], expected[key], rtol=1e-12, atol=1e-14)  # float64, 20 steps
        if slot:
            np.testing.assert_allclose(state.slots[slot][key], trace(peer)[key], rtol=1e-12, atol=1e-14)


def test_without_a_memory_there_is_no_slot():
    assert polyak.jax.signum(0.1, 0).init(jnp.ones(2)).slots == {}
    assert sorted(polyak.jax.aggmo(0.1).init(jnp.ones(2)).slots) == ["velocity_0", "velocity_1", "velocity_2"]


@pytest.mark.parametrize("method", FUNCTIONS)
def test_numbers_that_change_are_evaluated_in_one_program(method):
    """Every argument that may vary, as a function of the step and as a number that optax keeps in its state."""
    numbers = {name: x for name, x in family.CASES[method][0].items() if name in METHODS[method].varying}
    fixed = {name: x for name, x in family.CASES[method][0].items() if name not in numbers}
    values = {name: [x * (1 - 0.25 * t) for t in range(4)] for name, x in {"learning_rate": 0.1, **numbers}.items()}
    functions = {name: (lambda t, x=x: jnp.array(x)[t]) for name, x in values.items()}
    params, state = train(FUNCTIONS[method](**functions, **fixed), START, GRADIENTS[:4])

    injected = optax.inject_hyperparams(FUNCTIONS[method], static_args={"warmup_steps"} & METHODS[method].constants.keys())(
        **{name: x[0] for name, x in values.items()}, **fixed
    )

    @jax.jit
    def step(params, state, grads):
        updates, state = injected.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    w = jax.tree.map(jnp.asarray, START)
    held = injected.init(w)
    for t, g in enumerate(GRADIENTS[:4]):
        held.hyperparams.update({name: jnp.float32(x[t]) for name, x in values.items()})
        w, held = step(w, held, g)
    assert step._cache_size() == 1
    eager, _ = train(FUNCTIONS[method](**functions, **fixed), START, GRADIENTS[:4], jit=False)
    for key in START:
        np.testing.assert_allclose(w[key], params[key], rtol=0, atol=1e-6)  # 4 float32 steps on weights of up to 4
        np.testing.assert_allclose(eager[key], params[key], rtol=0, atol=1e-6)
        for name in state.slots:
            np.testing.assert_allclose(held.inner_state.slots[name][key], state.slots[name][key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in FUNCTIONS if m != "LARS"])  # into whose velocity go weights, which are rounded
def test_half_precision_has_float32_slots(method):
    w = jnp.asarray(START["w"], jnp.bfloat16)
    gradients = [jnp.asarray(g["w"], jnp.bfloat16) for g in GRADIENTS[:3]]
    params, state = train(FUNCTIONS[method](2.0**-3, **family.CASES[method][0]), w, gradients)
    assert params.dtype == jnp.bfloat16
    assert {v.dtype for v in state.slots.values()} == {jnp.dtype("float32")}
    _, velocities = family.expected(method, np.float64(w), [np.float64(g) for g in gradients], lr=2.0**-3)
    for slot, v in zip(state.slots.values(), velocities, strict=True):
        np.testing.assert_allclose(slot, v, rtol=0, atol=1e-6)  # 3 float32 steps with terms of up to 4


@pytest.mark.parametrize(
    ("optimizer", "who"),
    [
        (polyak.jax.signum(0.1), "Signum"),
        (polyak.jax.lion(0.1), "Lion"),
        (polyak.jax.qhm(0.1, cautious=True), "cautious"),
        (polyak.jax.momentum(0.1, weight_decay=0.1, decay="decoupled", cautious_decay=True), "cautious"),
    ],
)
def test_what_goes_by_signs_refuses_complex_parameters(optimizer, who):
    with pytest.raises(TypeError, match=rf"params\['z'\] is of complex64; {who} goes by the signs"):
        optimizer.init({"z": jnp.ones(2, jnp.complex64)})


def test_complex_parameters_of_the_others():
    w, gradients = START["w"] + 1j * START["w"][::-1], [g["w"] - 1j * g["w"][::-1] for g in GRADIENTS]
    with jax.enable_x64(True):
        for method in ("QHM", "AggMo"):
            params, _ = train(FUNCTIONS[method](0.1, **family.CASES[method][0]), w, gradients)
            expected, _ = family.expected(method, w, gradients, lr=0.1)
            np.testing.assert_allclose(params, expected, rtol=0, atol=1e-13)  # as above


def test_cautious_steps_and_decay():
    optimizer = polyak.jax.momentum(1.0, 0.5, cautious=True)
    params, _ = train(optimizer, jnp.zeros(2), [jnp.array([4.0, 4.0]), jnp.array([-1.0, 1.0])])
    # Velocities of 1 and 3 after the second step; the first goes up its gradient.
    np.testing.assert_array_equal(params, [-4.0, -7.0])
    optimizer = polyak.jax.momentum(0.5, 0.5, weight_decay=0.5, decay="decoupled", cautious_decay=True)
    params, _ = train(optimizer, jnp.array([4.0, 4.0]), [jnp.array([2.0, -2.0])])
    np.testing.assert_array_equal(params, [4 - 1 - 1, 4 + 1])


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (polyak.jax.qhm, {"nu": 1.5}, r"nu must be in \[0, 1\]; got 1.5"),
        (polyak.jax.lion, {"b1": 1.0}, r"b1 must be in \[0, 1\); got 1.0"),
        (polyak.jax.aggmo, {"momenta": ()}, "at least one number"),
        (polyak.jax.aggmo, {"momenta": (0.5, 1.0)}, r"momenta\[1\] must be in"),
        (polyak.jax.signum, {"momentum": 0, "slot_dtype": "float32"}, "no effect with momentum=0"),
        (polyak.jax.lion, {"finite": "on"}, "finite must be"),
        (polyak.jax.lion, {"max_norm": 0}, "max_norm must be above 0"),
        (polyak.jax.lion, {"cautious_decay": True}, "cautious_decay=True has no effect"),
    ],
)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(0.1, **arguments)


# Groups

PARAMS = {"layers": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}], "norm": jnp.ones(2), "head": {"kernel": jnp.ones(2)}}


def test_groups_have_numbers_of_their_own():
    optimizer = polyak.jax.momentum(
        0.5,
        0.5,
        weight_decay=0.5,
        decay="coupled",
        groups={r"bias|norm": {"weight_decay": 0}, "head": {"learning_rate": lambda t: 0.25 * (t + 1), "momentum": 0.0}},
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    params, state = train(optimizer, PARAMS, [zeros, zeros])
    # The gradient is the decay. The kernel's: v = 0.5, w = 0.75; v = 0.625, w = 0.4375. The head's: w = 0.875, then half of it.
    assert [float(w.ravel()[0]) for w in jax.tree.leaves(params)] == [0.875 - 0.5 * 0.4375, 1, 0.4375, 1]
    assert jax.tree.structure(state.slots["velocity"]) == jax.tree.structure(PARAMS)


def test_the_first_pattern_counts_and_a_group_may_be_the_only_one_that_decays_or_remembers():
    groups = {"head/kernel": {"momentum": 0.5}, "kernel": {"weight_decay": 0.5}}
    optimizer = polyak.jax.momentum(0.5, 0, decay="decoupled", groups=groups)
    params, state = train(optimizer, PARAMS, [jax.tree.map(jnp.ones_like, PARAMS)] * 2)
    np.testing.assert_array_equal(params["head"]["kernel"], 1 - 0.5 - 0.75)
    np.testing.assert_array_equal(params["layers"][0]["kernel"], (1 - 0.25 - 0.5) * 0.75 - 0.5)
    np.testing.assert_array_equal(params["norm"], 0.0)
    np.testing.assert_array_equal(state.slots["velocity"]["norm"], 1.0)


def test_a_parameter_by_itself_and_no_parameters():
    params, _ = train(polyak.jax.lion(0.5, groups={"^params$": {"learning_rate": 0.25}}), jnp.ones(2), [jnp.ones(2)])
    np.testing.assert_array_equal(params, 0.75)
    optimizer = polyak.jax.lion(0.5, groups={"bias": {"learning_rate": 0.25}})
    assert optimizer.init({}).slots == {"velocity": {}}
    # What optax does to find the trees of a state that are like the parameters.
    specs = optax.tree_map_params(optimizer, lambda _: "like a parameter", optimizer.init(PARAMS))
    assert set(jax.tree.leaves(specs.slots)) == {"like a parameter"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"conv": {"momentum": 0.5}},
            r"groups\['conv'\] has no parameter: it is found in no name. The names are head/kernel, layers/0/",
        ),
        (
            {"kernel": {}, "head": {"momentum": 0.5}},
            r"groups\['head'\] has no parameter: all that it finds belongs to a pattern before",
        ),
        ({"(": {}}, r"groups\['\('\] is no regular expression"),
        ({"head": {"lr": 0.5}}, r"groups\['head'\] may set learning_rate, momentum or weight_decay; got 'lr'"),
        ({"head": {"momentum": 1.5}}, r"groups\['head'\]: momentum must be in"),
        ({"head": {"weight_decay": 0}}, r"groups\['head'\] sets weight_decay, which needs decay="),
    ],
)
def test_groups_that_cannot_be(groups, message):
    with pytest.raises(ValueError, match=message):
        polyak.jax.momentum(0.1, groups=groups).init(PARAMS)


@pytest.mark.parametrize("groups", [[("head", {})], {"head": 0.1}, {0: {}}, {"head": {"momentum": "much"}}])
def test_groups_of_a_wrong_type(groups):
    with pytest.raises(TypeError, match="groups"):
        polyak.jax.momentum(0.1, groups=groups)
