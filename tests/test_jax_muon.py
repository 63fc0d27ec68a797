"""`polyak.jax.muon`: the rule, roles by names, the second transformation, guards, and how it goes with JAX and optax."""

import os
import pickle
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jax_muon_worker
import polyak.jax.orthogonalised as module
import polyak.torch
from muon_cases import OPTIONS, OTHERS, SHAPES, SPLIT, WRONG, arrays, assert_near, expected, gradients
from polyak.jax import check_finite, lion, momentum, muon
from polyak.matrices import Matrices
from polyak.rules.orthogonal import band
from test_jax import train


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def only(tree, names):
    return {name: tree[name] for name in names}


MATRICES = [name for name in SHAPES if name not in OTHERS]
# Where the matrices are not what is looked at, few of one shape and few products: XLA takes long to compile them.
SMALL = ("a", "b", *OTHERS)
START = only(arrays(0), SMALL)
GRADIENTS = [only(g, SMALL) for g in gradients()]
quick = partial(muon, steps=2)


@cache
def plain():
    """The last weights and the last state without any option."""
    return train(quick(), START, GRADIENTS)


# The rule


@pytest.mark.parametrize(("options", "pipeline"), OPTIONS, ids=str)
def test_the_step_is_the_rule(options, pipeline):
    optimizer = muon(0.02, 0.75, split=SPLIT, **options, **pipeline)
    step = jax.jit(optimizer.update)
    weights = jax.tree.map(jnp.asarray, arrays(0))
    state = optimizer.init(weights)
    for g, exact in zip(gradients(), expected(options, **pipeline), strict=True):
        updates, state = step(g, state, weights)
        weights = optax.apply_updates(weights, updates)
        assert_near(weights, exact)
    assert int(state.count) == len(gradients())


def test_without_jit():
    found, state = train(quick(), START, GRADIENTS, jit=False)
    assert_near(found, plain()[0])
    assert_near(only(state.slots["velocity"], "ab"), only(plain()[1].slots["velocity"], "ab"))


def test_equal_to_torch():
    params = {name: torch.from_numpy(w).requires_grad_() for name, w in arrays(0).items()}
    options = {"split": SPLIT, "weight_decay": 0.5, "polynomial": "quintic", "steps": 2, "cautious": True}
    theirs = polyak.torch.Muon(params.items(), 0.02, 0.75, output_axis={"*": -1}, **options)
    weights, optimizer = arrays(0), muon(0.02, 0.75, **options)
    state = optimizer.init(weights)
    step = jax.jit(optimizer.update)
    for g in gradients():
        updates, state = step(g, state, weights)
        weights = optax.apply_updates(weights, updates)
        for name, p in params.items():
            p.grad = torch.from_numpy(g[name])
        theirs.step()
        assert_near(weights, {name: p.detach().numpy() for name, p in params.items()})


def test_equal_to_optax_without_its_nesterov():
    """Whose average is divided by 1 - m^t, which nothing depends on without it. Its matrices are inputs x outputs too."""
    params = only(arrays(0), "ab")
    theirs = optax.contrib.muon(0.02, beta=0.75, nesterov=False, weight_decay=0.5)
    ours = muon(0.02, 0.75, nesterov=False, weight_decay=0.5, polynomial="quintic")
    grads = [only(g, "ab") for g in gradients()]
    assert_near(train(ours, params, grads)[0], train(theirs, params, grads)[0])


def test_singular_values():
    """Tall, wide, square; of rank one, zero; a row; huge and tiny: each direction is as long as the polynomial promises."""
    rng = np.random.default_rng(0)
    grads = {
        "tall": rng.standard_normal((12, 5)),
        "wide": 1e-30 * rng.standard_normal((5, 12)),
        "square": 1e30 * rng.standard_normal((5, 5)),
        "row": rng.standard_normal((1, 7)),
        "one": np.outer(rng.standard_normal(12), rng.standard_normal(5)),
        "zero": np.zeros((12, 5)),
    }
    grads = {name: jnp.asarray(g, jnp.float32) for name, g in grads.items()}
    optimizer = muon(1.0, scale="spectral", output_axis={"*": 0})
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(grads), grads)
    low, high = band("polar_express", 5)
    for name, u in updates.items():
        of = module.shape_scale("spectral", Matrices(u.shape))
        s = np.linalg.svd(np.asarray(u, np.float64), compute_uv=False) / of
        rank = {"one": 1, "zero": 0}.get(name, min(u.shape))
        # Rounding of float32 adds about 1e-4, and that of singular values which are 0 is amplified by up to 1,000.
        assert np.all((s[:rank] > low - 1e-4) & (s[:rank] < high + 1e-4)), name
        assert np.all(s[rank:] < 1e-3), name


def test_numbers_may_follow_the_step():
    rates, momenta = [0.5, 0.25, 0.125], [0.5, 0.75, 0.25]
    found, _ = train(quick(lambda t: jnp.array(rates)[t], lambda t: jnp.array(momenta)[t]), START, GRADIENTS[:3])

    @jax.jit
    def step(params, state, g, lr, m):
        updates, state = quick(lr, m).update(g, state, params)
        return optax.apply_updates(params, updates), state

    params, state = START, quick().init(START)
    for lr, m, g in zip(rates, momenta, GRADIENTS, strict=False):
        params, state = step(params, state, g, lr, m)
    assert_near(found, params)


def test_groups_of_matrices():
    groups = {"^a$": {"learning_rate": 0.5, "weight_decay": 0.0, "momentum": 0.5}}
    found, _ = train(quick(0.25, 0.75, weight_decay=0.5, groups=groups), START, GRADIENTS[:2])
    for name, alone in (("a", quick(0.5, 0.5)), ("b", quick(0.25, 0.75, weight_decay=0.5))):
        expected, _ = train(alone, only(START, name), [only(g, name) for g in GRADIENTS[:2]])
        assert_near(only(found, name), expected)
    with pytest.raises(ValueError, match=r"groups\['bias'\] has no parameter.*The names are a, b\."):
        quick(groups={"bias": {"weight_decay": 0}}, weight_decay=0.5).init(START)


def test_batches_do_not_change_the_step(monkeypatch):
    shapes = {f"w{i}": (5, 8) for i in range(3)}
    weights, g = arrays(9, shapes), arrays(0, shapes)
    together, _ = train(quick(), weights, [g])
    monkeypatch.setattr(module, "BATCH_BYTES", 2 * 5 * 8 * 4)
    sizes = []
    original = module.orthogonalise
    monkeypatch.setattr(module, "orthogonalise", lambda g, *rest: sizes.append(len(g)) or original(g, *rest))
    apart, _ = train(quick(), weights, [g])
    assert sizes == [2, 1]
    assert_near(apart, together)


def test_half_precision():
    half = [jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree) for tree in (START, GRADIENTS[0])]
    exact = [jax.tree.map(lambda x: x.astype(jnp.float32), tree) for tree in half]
    new, state = train(quick(0.25, slot_dtype=jnp.bfloat16), half[0], half[1:])
    assert state.slots["velocity"]["a"].dtype == new["a"].dtype == jnp.bfloat16
    assert quick().init(half[0]).slots["velocity"]["a"].dtype == jnp.float32
    wide, _ = train(quick(0.25), exact[0], exact[1:])
    rounded, _ = train(quick(0.25, product_dtype=jnp.bfloat16), exact[0], exact[1:])
    for name in "ab":
        # The arithmetic is float32; the new weight is rounded once, to 8 bits, and may be next to the other rounding.
        np.testing.assert_allclose(np.float32(new[name]), np.float32(wide[name]), rtol=2**-7, atol=1e-4)
        # Factors and products are rounded by 2^-9 each, of which the polynomials make a tenth; not as exact as float32.
        moved = np.linalg.norm(wide[name] - exact[0][name])
        assert 1e-4 * moved < np.linalg.norm(rounded[name] - wide[name]) < 0.2 * moved, name


def test_float64_is_exact():
    with jax.enable_x64(True):
        wide = [
            {name: jnp.asarray(x, jnp.float64) for name, x in only(tree, "ab").items()} for tree in (arrays(0), *gradients())
        ]
        found, _ = train(muon(0.02, 0.75), wide[0], wide[1:])
        # 6 steps; rounding of float64 times the slope of the polynomials at 0, 1,000.
        assert_near(found, only(expected({})[-1], "ab"), rtol=1e-12)


# Roles


class Net(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, tokens):
        x = flax.linen.Embed(7, 8)(tokens)
        x = flax.linen.relu(flax.linen.Conv(6, (3,))(x))
        x = flax.linen.LayerNorm()(flax.linen.Dense(5)(x))
        return flax.linen.Dense(7, name="lm_head")(x)


def test_roles_in_flax():
    params = jax.eval_shape(Net().init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    lines = str(muon().report(params)).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "params/Conv_0/bias 6 other fewer than two dimensions",
        "params/Conv_0/kernel 3 x 8 x 6 orthogonal 6 x 24 1 outputs x the rest",
        "params/Dense_0/bias 5 other fewer than two dimensions",
        "params/Dense_0/kernel 6 x 5 orthogonal 5 x 6 1 a matrix",
        "params/Embed_0/embedding 7 x 8 other named as an embedding",
        "params/LayerNorm_0/bias 5 other fewer than two dimensions",
        "params/LayerNorm_0/scale 5 other fewer than two dimensions",
        "params/lm_head/bias 7 other fewer than two dimensions",
        "params/lm_head/kernel 5 x 7 other named as an output head",
    ]
    report = muon(scale="match_rms_adamw", roles={"params/Conv_0/*": "other"}, split={"*/Dense_0/kernel": 5}).report(params)
    by_name = {p.name: p for p in report.parameters}
    assert by_name["params/Conv_0/kernel"].why == "roles['params/Conv_0/*']"
    assert by_name["params/Dense_0/kernel"].matrices == Matrices((6, 5), -1, 5)
    assert by_name["params/Dense_0/kernel"].scale == 0.2 * 6**0.5


def test_equinox_has_its_outputs_first():
    model = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    optimizer = quick(0.5, output_axis={"*weight": 0}, roles={"layers/1/*": "other"})
    report = {p.name: p for p in optimizer.report(params).parameters}
    assert (report["layers/0/weight"].matrices.rows, report["layers/0/weight"].matrices.cols) == (8, 3)
    assert report["layers/1/weight"].role == "other"

    @eqx.filter_jit
    def step(params, state):
        grads = eqx.filter_grad(lambda p: jnp.square(eqx.combine(p, rest)(jnp.ones(3))).sum())(params)
        updates, state = optimizer.update(grads, state, params)
        return eqx.apply_updates(params, updates), state

    new, _ = step(params, optimizer.init(params))
    moved = np.linalg.svd(new.layers[0].weight - params.layers[0].weight, compute_uv=False)
    # The gradient of one example has rank one: one direction moves by 0.5 sqrt(8 / 3) times what the polynomials make of 1.
    low, high = band("polar_express", 2, lowest=1.0)
    assert low - 1e-4 < moved[0] / (0.5 * (8 / 3) ** 0.5) < high + 1e-4  # rounding of float32
    assert isinstance(new, eqx.nn.MLP)


def test_a_tree_of_one_array():
    report = muon().report(jnp.ones((2, 3)))
    assert [p.name for p in report.parameters] == ["params"]


def test_names_that_are_not_one_parameter_each():
    with pytest.raises(ValueError, match="several parameters are named a/b"):
        muon().init({"a": {"b": jnp.ones((2, 2))}, "a/b": jnp.ones((2, 2))})


# The second transformation


def test_by_default_the_second_rule_is_heavy_ball():
    found, state = plain()
    alone, theirs = train(momentum(0.01, 0.9), only(START, OTHERS), [only(g, OTHERS) for g in GRADIENTS])
    assert bits(only(found, OTHERS)) == bits(alone)
    assert bits(state.others) == bits(theirs)


@pytest.mark.parametrize(
    "others", [optax.adamw(0.01), lion(0.1, groups={"bias": {"learning_rate": 0.5}}, weight_decay=0.1, decay="coupled")]
)
def test_any_transformation_may_be_the_second(others):
    found, _ = train(quick(others=others), START, GRADIENTS)
    alone, _ = train(others, only(START, OTHERS), [only(g, OTHERS) for g in GRADIENTS])
    # In one program with other things around it, XLA may fuse optax.adamw differently: 6 steps of float32.
    assert_near(only(found, OTHERS), alone, rtol=1e-6)


def test_matrices_alone_need_no_second_one():
    state = muon().init(only(START, "ab"))
    assert jax.tree.leaves(state.others.slots) == []
    updates, _ = quick().update(only(GRADIENTS[0], "ab"), state)
    assert all(np.any(u) for u in updates.values())


# Guards


def spoiled(g, name, value):
    bad = g[name].copy()
    bad.flat[-1] = value
    return g | {name: bad}


@pytest.mark.parametrize(("others", "jit"), [(None, True), (None, False), (optax.adam(0.01), True)])
def test_a_step_left_out_changes_nothing_of_either_rule(others, jit):
    optimizer = quick(weight_decay=0.5, finite="error", others=others)
    step = jax.jit(optimizer.update) if jit else optimizer.update
    params = jax.tree.map(jnp.asarray, START)
    _, state = step(GRADIENTS[0], optimizer.init(params), params)
    for name, value in (("bias", np.nan), ("a", np.inf)):
        updates, after = step(spoiled(GRADIENTS[1], name, value), state, params)
        assert all(np.signbit(u).all() and not np.any(u) for u in updates.values())
        assert bits(optax.apply_updates(params, updates)) == bits(params)
        assert bits(after.slots) == bits(state.slots)
        if others is None:
            assert bits(after.others.slots) == bits(state.others.slots)
            assert int(after.others.count) == int(state.others.count) + 1  # as schedules count
        else:
            assert bits(after.others) == bits(state.others)
        assert (int(after.count), int(after.skipped)) == (2, 1)
        with pytest.raises(FloatingPointError, match=rf"1 of 2 updates was left out, .*: {name} \(1\)\."):
            check_finite(after)


def test_a_guard_changes_no_step_that_is_taken():
    bad = spoiled(GRADIENTS[0], "head", -np.inf)
    found, state = train(quick(finite="skip"), START, [bad, *GRADIENTS[:3], bad, *GRADIENTS[3:]])
    assert (int(state.skipped), state.nonfinite) == (2, None)
    assert_near(found, plain()[0], rtol=1e-6)  # 6 steps of float32, in another program
    assert bits(only(found, OTHERS)) == bits(only(plain()[0], OTHERS))


def test_without_a_guard_a_matrix_with_a_nan_spoils_no_other():
    optimizer = quick()
    updates, state = jax.jit(optimizer.update)(spoiled(GRADIENTS[0], "a", np.nan), optimizer.init(START))
    assert np.isnan(updates["a"]).all()
    assert all(np.isfinite(updates[name]).all() for name in SMALL if name != "a")
    assert (state.skipped, state.nonfinite) == (None, None)


@pytest.mark.parametrize("others", [None, optax.sgd(0.01, 0.9)], ids=["polyak", "optax"])
def test_the_norm_is_that_of_all_gradients(others):
    norms = [np.sqrt(sum(np.square(np.float64(x)).sum() for x in g.values())) for g in GRADIENTS]
    assert min(norms) > 4
    clipped = [{k: np.float32(x * (4 / n)) for k, x in g.items()} for g, n in zip(GRADIENTS, norms, strict=True)]
    before = [{k: x.copy() for k, x in g.items()} for g in GRADIENTS]
    found, _ = train(quick(max_norm=4.0, others=others), START, GRADIENTS)
    exact, _ = train(quick(), START, clipped)  # its second rule is that of optax.sgd
    assert_near(found, exact)
    assert bits(before) == bits(GRADIENTS)


def test_a_norm_within_the_bound_changes_nothing():
    found, _ = train(quick(max_norm=1e6), START, GRADIENTS)
    assert_near(found, plain()[0], rtol=1e-6)  # float32, in another program
    assert bits(only(found, OTHERS)) == bits(only(plain()[0], OTHERS))


# With JAX and optax


def test_among_the_transformations_of_optax():
    numbers = {"learning_rate": 0.02, "momentum": 0.95, "weight_decay": 0.0}
    injecting = optax.inject_hyperparams(muon, static_args=("steps",))(**numbers, steps=2, max_norm=1e6)
    chained, state = train(optax.chain(optax.identity(), injecting, optax.scale(1.0)), START, GRADIENTS)
    assert_near(chained, plain()[0], rtol=1e-6)  # float32, in another program
    state[1].hyperparams["learning_rate"] = jnp.array(0.0)
    updates, _ = injecting.update(GRADIENTS[0], state[1], chained)
    assert not np.any(updates["a"])
    assert np.any(updates["bias"])


def test_masked():
    masked = optax.masked(quick(finite="error"), {name: name != "b" for name in SMALL})
    updates, state = jax.jit(masked.update)(spoiled(GRADIENTS[0], "head", np.nan), masked.init(START), START)
    np.testing.assert_array_equal(updates["b"], GRADIENTS[0]["b"])
    with pytest.raises(FloatingPointError, match=r": head \(1\)\."):
        check_finite(state)


def test_a_state_goes_through_a_file():
    leaves = pickle.loads(pickle.dumps([np.asarray(x) for x in jax.tree.leaves(plain())]))  # noqa: S301  (our own)
    params, state = jax.tree.unflatten(jax.tree.structure(plain()), leaves)
    step = jax.jit(quick().update)
    assert bits(step(GRADIENTS[0], state, params)) == bits(step(GRADIENTS[0], *plain()[::-1]))


def test_one_compiled_step_that_asks_nothing_of_the_host():
    optimizer = quick(finite="error", max_norm=1.0)
    count = []

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, g):
        count.append(None)
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, START)
    state, grads = optimizer.init(params), [jax.tree.map(jnp.asarray, g) for g in GRADIENTS]
    with jax.transfer_guard("disallow"):
        for g in grads:
            params, state = step(params, state, g)
    assert len(count) == 1


def test_sharded_parameters(tmp_path):
    """On 4 devices, with shardings that differ between parameters alike; also where shardings are types."""
    file = tmp_path / "results.npz"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, str(Path(jax_muon_worker.__file__)), str(file)], env=environment, check=True)
    whole, _ = jax_muon_worker.train(lambda tree: jax.tree.map(jnp.asarray, tree))
    with np.load(file) as results:
        for kind in ("Auto", "Explicit"):
            assert_near({name: results[f"{kind}/{name}"] for name in whole}, whole)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be"),
        *WRONG,
        ({"others": momentum(0.1, max_norm=1.0)}, r"others has max_norm=1\.0 .*Give them to muon"),
        ({"others": lion(0.1, finite="skip")}, "others has .*finite='skip'.*Give them to muon"),
        ({"product_dtype": jnp.float64}, "product_dtype='float64' needs"),
    ],
    ids=str,
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        muon(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"others": optax.adamw}, r"others must be a transformation, such as polyak\.jax\.lion\(1e-4\)"),
        ({"steps": jnp.array(5)}, 'give static_args="steps"'),
        ({"steps": 5.0}, "steps must be an integer"),
        ({"slot_dtype": jnp.int32}, "slot_dtype must be a floating dtype"),
        ({"groups": {"a": 0.5}}, "must be a dict of numbers"),
        ({"cautious": 1}, "cautious must be True or False"),
    ],
    ids=str,
)
def test_wrong_types(options, message):
    with pytest.raises(TypeError, match=message):
        muon(**options)


@pytest.mark.parametrize(
    ("params", "options", "error", "message"),
    [
        ({"b": jnp.ones(3)}, {}, ValueError, "no parameter to orthogonalise"),
        ({"a": jnp.ones((2, 2))}, {"roles": {"c*": "other"}}, ValueError, "roles has patterns that fit no parameter"),
        ({"a": jnp.ones((2, 2), jnp.complex64)}, {}, TypeError, r"'a' is of complex64.*roles=\{'a': \"other\"\}"),
        ({"a": jnp.ones((2, 2), jnp.int32)}, {}, TypeError, "is of int32"),
    ],
)
def test_wrong_parameters(params, options, error, message):
    with pytest.raises(error, match=message):
        muon(**options).init(params)


def test_updates_that_cannot_be():
    params = arrays(0)
    optimizer = muon(weight_decay=0.5)
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        optimizer.update(params, optimizer.init(params))
    with pytest.raises(ValueError, match=r"grads\['a'\] has shape \(4, 6\)"):
        optimizer.update(params | {"a": params["a"].T}, optimizer.init(params), params)
    alone = muon()  # needs no weights
    assert np.any(alone.update(params, alone.init(params))[0]["a"])
