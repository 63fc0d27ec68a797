"""`polyak.state` in JAX, where the state is apart from the transformation and may be inside another's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import polyak.jax
import polyak.numpy
import polyak.torch
from polyak import state

NAMES = ("layers/0/w", "layers/1/w", "scale")


def tree(seed):
    rng = np.random.default_rng(seed)
    return {"layers": [{"w": jnp.asarray(rng.standard_normal(3), "float32")} for _ in range(2)], "scale": jnp.asarray(2.0)}


def stepped(transformation, steps=3):
    params = tree(0)
    opt_state = transformation.init(params)
    for t in range(steps):
        _, opt_state = transformation.update(tree(100 + t), opt_state, params)
    return opt_state


def in_numpy(**options):
    return polyak.numpy.Momentum({name: np.zeros(() if name == "scale" else 3, np.float32) for name in NAMES}, **options)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def test_names_are_the_keys(path):
    made = polyak.jax.momentum(0.1)
    state.save(path, (made, stepped(made)))
    contents = state.read(path)
    assert tuple(contents.tensors) == tuple(f"velocity/{name}" for name in NAMES)
    assert contents.count == 3
    target = in_numpy()
    state.load(path, target)
    np.testing.assert_array_equal(target.slots["velocity"]["layers/1/w"], stepped(made).velocity["layers"][1]["w"])


def test_what_is_loaded_is_a_copy():
    """JAX takes memory over without copying where it is aligned, as that of PyTorch is, whose optimizer writes into its own."""
    w = torch.zeros(1 << 16, requires_grad=True)
    source = polyak.torch.Momentum([("w", w)])
    w.grad = torch.ones_like(w)
    source.step()
    made = polyak.jax.momentum(0.1)
    there = jax.device_put(made.init({"w": jnp.zeros(1 << 16)}), jax.devices()[0])
    loaded = state.load(source, (made, there)).state
    source.step()
    assert (loaded.velocity["w"] == 1).all()


def test_one_array_is_called_params(path):
    made = polyak.jax.momentum(0.1)
    state.save(path, (made, made.init(jnp.zeros(3))))
    assert state.read(path).tensors.keys() == {"velocity/params"}


WRAPPED = {
    "alone": lambda m: m,
    "chain": lambda m: optax.chain(optax.clip_by_global_norm(1.0), m),
    "masked": lambda m: optax.masked(m, {"layers": True, "scale": False}),
    "multi steps": lambda m: optax.MultiSteps(m, 2),
    "if finite": lambda m: optax.apply_if_finite(optax.chain(optax.identity(), m), 3),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_inside_of_others(path, wrap):
    made = polyak.jax.momentum(0.1, nesterov=True)
    whole = WRAPPED[wrap](made)
    before = stepped(whole, 4)
    state.save(path, (made, before))
    fresh = whole.init(tree(0))
    after = state.load(path, (made, fresh)).state
    found = [x for x in jax.tree.leaves(after, is_leaf=is_momentum) if is_momentum(x)]
    assert_same(found, [x for x in jax.tree.leaves(before, is_leaf=is_momentum) if is_momentum(x)])
    assert jax.tree.structure(after) == jax.tree.structure(fresh)


def is_momentum(x):
    return isinstance(x, polyak.jax.MomentumState)


def test_injected_hyperparameters(path):
    made = polyak.jax.momentum(0.1)
    whole = optax.inject_hyperparams(polyak.jax.momentum)(0.1, momentum=0.9)
    before = stepped(whole)
    before.hyperparams["learning_rate"] = jnp.asarray(0.25)
    state.save(path, (made, before))
    assert state.read(path).groups[0].hyperparameters["learning_rate"] == 0.25
    after = state.load(path, (made, whole.init(tree(0)))).state
    assert after.hyperparams["learning_rate"] == 0.25
    assert after.count == 3
    assert_same(after.inner_state, before.inner_state)
    scheduled = optax.inject_hyperparams(polyak.jax.momentum)(lambda t: 0.1 / (1 + t))
    with pytest.raises(ValueError, match="Give schedules to"):
        state.save(path, (made, stepped(scheduled)))


def test_schedules_go_on_and_numbers_stay(path):
    source = polyak.jax.momentum(lambda t: 0.5 / (1 + t))
    state.save(path, (source, stepped(source)))
    (group,) = state.read(path).groups
    assert group.hyperparameters["learning_rate"] == 0.125
    assert group.last_learning_rate == np.float32(0.5 / 3)
    assert group.scheduled == ("learning_rate",)
    made = polyak.jax.momentum(0.3, velocity="step")
    report = state.load(path, (made, made.init(tree(0))))
    assert report.notes[0] == "learning_rate: stays 0.3, saved 0.125: it is fixed when the optimizer is made"
    assert report.state.count == 3
    expected = jax.tree.map(lambda v: np.asarray(v) * np.float32(0.5 / 3), stepped(source).velocity)
    assert_same(report.state.velocity, expected)


def test_no_count_for_a_schedule_is_an_error(path):
    state.save(path, in_numpy())
    made = polyak.jax.momentum(lambda t: 0.5 / (1 + t))
    with pytest.raises(ValueError, match="step count: not in the saved state, and the optimizer's learning_rate follows"):
        state.load(path, (made, made.init(tree(0))))
    report = state.load(path, (made, stepped(made)), strict=False)
    assert report.state.count == 3
    assert report.notes[0] == "step count: stays 3, not in the saved state"


def test_a_scheduled_momentum_makes_no_average(path):
    source = polyak.jax.momentum(0.1, lambda t: 0.9 - 0.1 / (1 + t))
    state.save(path, (source, stepped(source)))
    with pytest.raises(ValueError, match="and the momentum followed a schedule"):
        state.load(path, in_numpy(velocity="average"))


def test_dtypes(path):
    half = polyak.jax.momentum(0.1, slot_dtype=jnp.bfloat16)
    state.save(path, (half, stepped(half)))
    assert {spec.dtype for spec in state.read(path).tensors.values()} == {"bfloat16"}
    again = state.load(path, (half, half.init(tree(0)))).state
    assert_same(again, stepped(half))
    assert again.velocity["scale"].dtype == jnp.bfloat16
    made = polyak.jax.momentum(0.1)
    state.save(path, (made, stepped(made)))
    with pytest.raises(ValueError, match="saved as float32, which the optimizer's bfloat16 cannot hold exactly"):
        state.load(path, (half, half.init(tree(0))))


def test_the_compiled_step_serves_on_and_the_sharding_stays(path):
    made = polyak.jax.momentum(0.1)
    params = tree(0)
    update = jax.jit(made.update)
    _, opt_state = update(tree(1), made.init(params), params)
    state.save(path, (made, opt_state))
    loaded = state.load(path, (made, opt_state)).state
    update(tree(2), loaded, params)
    assert update._cache_size() == 1
    assert loaded.velocity["scale"].sharding == opt_state.velocity["scale"].sharding


def test_gradient_descent(path):
    made = polyak.jax.momentum(0.1, 0.0)
    state.save(path, (made, stepped(made)), tree(0))
    assert state.read(path).groups[0].names == NAMES
    assert not state.read(path).tensors
    assert state.load(path, (made, made.init(tree(0))), tree(0)).state.count == 3


def test_a_state_alone_does_not_tell_its_unit(path):
    made = polyak.jax.momentum(0.1)
    with pytest.raises(TypeError, match=r"Give the pair \(transformation, state\)"):
        state.save(path, stepped(made))
    with pytest.raises(ValueError, match="must have one momentum in it; this one has 2"):
        state.save(path, (made, (stepped(made), stepped(made))))
    with pytest.raises(ValueError, match="has 0"):
        state.save(path, (made, ()))


@pytest.mark.parametrize("schedule", [False, True])
def test_optax_sgd(path, schedule):
    sgd = optax.sgd(optax.linear_schedule(0.1, 0.2, 10) if schedule else 0.1, momentum=0.9, nesterov=True)
    before = stepped(sgd)
    made = polyak.jax.momentum(0.3, nesterov=True)
    report = state.load(before, (made, made.init(tree(0))))
    assert_same(report.state.velocity, before[0].trace)
    assert report.state.count == (3 if schedule else 0)
    state.save(path, before)
    target = in_numpy()
    state.load(path, target)
    np.testing.assert_array_equal(target.slots["velocity"]["scale"], before[0].trace["scale"])
    for unit, reason in (("step", "learning rate of the last step, which is not known"), ("average", "momentum is not known")):
        with pytest.raises(ValueError, match=reason):
            state.load(before, in_numpy(velocity=unit))
    with pytest.raises(TypeError, match="read only"):
        state.load(path, before)
    with pytest.raises(ValueError, match="must have one optax"):
        state.load(optax.adam(0.1).init(tree(0)), in_numpy())
