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
    np.testing.assert_array_equal(target.slots["velocity"]["layers/1/w"], stepped(made).slots["velocity"]["layers"][1]["w"])


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
    assert (loaded.slots["velocity"]["w"] == 1).all()


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
    return isinstance(x, polyak.jax.State)


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


def test_a_number_that_could_not_be_read_is_not_written(path):
    made = polyak.jax.momentum(0.1)
    before = stepped(optax.inject_hyperparams(polyak.jax.momentum)(0.1, momentum=0.9))
    before.hyperparams["momentum"] = jnp.asarray(1.5)
    with pytest.raises(ValueError, match=r"groups\[0\], of Momentum: momentum must be in \[0, 1\)"):
        state.save(path, (made, before))
    assert not path.exists()


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
    expected = jax.tree.map(lambda v: np.asarray(v) * np.float32(0.5 / 3), stepped(source).slots["velocity"])
    assert_same(report.state.slots["velocity"], expected)


def test_no_count_for_a_schedule_is_an_error(path):
    params = {name: torch.zeros(() if name == "scale" else 3, requires_grad=True) for name in NAMES}
    state.save(path, torch.optim.SGD(params.items(), 0.1, momentum=0.9))
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
    assert again.slots["velocity"]["scale"].dtype == jnp.bfloat16
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
    assert loaded.slots["velocity"]["scale"].sharding == opt_state.slots["velocity"]["scale"].sharding


METHODS = {
    "QHM": lambda: polyak.jax.qhm(0.1, 0.75, nu=0.5),
    "AggMo": lambda: polyak.jax.aggmo(0.1, (0.0, 0.5, 0.75)),
    "Signum": lambda: polyak.jax.signum(0.1),
    "Lion": lambda: polyak.jax.lion(0.1, b1=0.75),
    "ScheduleFree": lambda: polyak.jax.schedule_free(0.1, warmup_steps=4),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method(path, method):
    made = METHODS[method]()
    before = stepped(made)
    state.save(path, (made, before))
    contents = state.read(path)
    (group,) = contents.groups
    assert group.method == method
    assert len(contents.tensors) == 3 * len(before.slots)
    assert_same(state.load(path, (made, made.init(tree(0)))).state, before)
    assert group.options.get("momenta", (0.0, 0.5, 0.75)) == (0.0, 0.5, 0.75)


def test_a_state_of_another_method(path):
    made = polyak.jax.signum(0.1)
    state.save(path, (made, stepped(made)))
    lion = polyak.jax.lion(0.1)
    with pytest.raises(ValueError, match="saved by Signum, and the optimizer is Lion"):
        state.load(path, (lion, lion.init(tree(0))))


def test_groups_have_numbers_of_their_own(path):
    made = polyak.jax.momentum(0.25, groups={"scale": {"learning_rate": lambda t: 0.5 / (1 + t), "momentum": 0.5}})
    before = stepped(made)
    state.save(path, (made, before))
    outside, scale = state.read(path).groups
    assert (outside.names, scale.names) == (NAMES[:2], NAMES[2:])
    assert (outside.last_learning_rate, scale.last_learning_rate) == (0.25, np.float32(0.5 / 3))
    assert (scale.hyperparameters, scale.scheduled) == ({"learning_rate": 0.125, "momentum": 0.5}, ("learning_rate",))
    target = in_numpy(velocity="step")
    state.load(path, target)
    for name, lr in zip(NAMES, (0.25, 0.25, np.float32(0.5 / 3)), strict=True):
        v = {"layers/0/w": before.slots["velocity"]["layers"][0]["w"], "layers/1/w": before.slots["velocity"]["layers"][1]["w"]}
        expected = np.float32(lr) * np.asarray(v.get(name, before.slots["velocity"]["scale"]))
        np.testing.assert_array_equal(target.slots["velocity"][name], expected)


def test_what_was_left_out_is_counted_anew(path):
    made = polyak.jax.momentum(lambda t: 0.5 / (1 + t), finite="error")
    before = stepped(made)
    _, before = made.update(jax.tree.map(lambda w: w * jnp.nan, tree(0)), before, tree(0))
    assert before.skipped == 1
    state.save(path, (made, before))
    after = state.load(path, (made, made.init(tree(0)))).state
    assert (after.count, after.skipped, after.nonfinite.sum()) == (4, 0, 0)
    assert_same(after.slots, before.slots)
    with pytest.raises(ValueError, match="learning rate of the last step, which is not known"):
        state.load(path, in_numpy(velocity="step"))


def test_the_learning_rate_of_the_last_step(path):
    """That of the transformation; one that was injected may be another one by now, so that nothing is converted by it."""
    made = polyak.jax.momentum(0.1)
    state.save(path, (made, stepped(made)))
    target = in_numpy(velocity="step")
    state.load(path, target)
    expected = np.float32(0.1) * np.asarray(stepped(made).slots["velocity"]["scale"])
    assert target.slots["velocity"]["scale"] == expected
    whole = optax.inject_hyperparams(polyak.jax.momentum)(0.1, momentum=0.9)
    before = stepped(whole)
    before.hyperparams["learning_rate"] = jnp.asarray(0.01)
    state.save(path, (made, before))
    state.load(path, in_numpy())
    with pytest.raises(ValueError, match="learning rate of the last step, which is not known"):
        state.load(path, target)


def test_before_the_first_step_every_unit_fits(path):
    made = polyak.jax.momentum(0.1)
    state.save(path, (made, made.init(tree(0))))
    target = in_numpy(velocity="step")
    target.slots["velocity"]["scale"][...] = 1.0
    state.load(path, target)
    assert target.slots["velocity"]["scale"] == 0


def test_injected_numbers_that_groups_share(path):
    """One number is injected for all groups, so it is taken over where it is one for all of them."""
    groups = {"scale": {"momentum": 0.5}}
    made = polyak.jax.momentum(0.1, groups=groups)
    whole = optax.inject_hyperparams(polyak.jax.momentum, static_args=("groups",))(0.1, 0.9, groups=groups)
    source = polyak.jax.momentum(0.25)
    state.save(path, (source, stepped(source)))
    report = state.load(path, (made, whole.init(tree(0))))
    assert report.state.hyperparams["learning_rate"] == 0.25
    assert report.notes == ("momentum: stays 0.5, saved 0.9: it is fixed when the optimizer is made",)
    several = polyak.jax.momentum(0.25, groups={"scale": {"learning_rate": 0.5}})
    state.save(path, (several, stepped(several)))
    report = state.load(path, (made, whole.init(tree(0))))
    assert report.state.hyperparams["learning_rate"] == np.float32(0.1)
    assert "learning_rate: stays 0.10000000149011612, saved 0.25 and 0.5: those of the saved groups differ" in report.notes


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
    with pytest.raises(ValueError, match=r"must have one polyak\.jax\.State in it; this one has 2"):
        state.save(path, (made, (stepped(made), stepped(made))))
    with pytest.raises(ValueError, match="has 0"):
        state.save(path, (made, ()))


@pytest.mark.parametrize("schedule", [False, True])
def test_optax_sgd(path, schedule):
    sgd = optax.sgd(optax.linear_schedule(0.1, 0.2, 10) if schedule else 0.1, momentum=0.9, nesterov=True)
    before = stepped(sgd)
    made = polyak.jax.momentum(0.3, nesterov=True)
    report = state.load(before, (made, made.init(tree(0))))
    assert_same(report.state.slots["velocity"], before[0].trace)
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
