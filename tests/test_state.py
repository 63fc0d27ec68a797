"""`polyak.state` between NumPy and PyTorch: names, what fits, units of the velocity, and what is said of the rest."""

import re
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

import family
import polyak.numpy
import polyak.torch
from polyak import state
from polyak.cli import dispatch
from polyak.methods import METHODS

SHAPES = {"first.weight": (3, 2), "first.bias": (3,), "scale": ()}
LR, M = 0.1, 0.9


def arrays(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def in_numpy(steps=3, dtype=np.float32, names=tuple(SHAPES), make=polyak.numpy.Momentum, **options):
    params = {name: w for name, w in arrays(0, dtype).items() if name in names}
    momentum = {"momentum": M} if make is polyak.numpy.Momentum else {}
    made = make(params, **{"lr": LR, **momentum, **options})
    for t in range(steps):
        made.step({name: g for name, g in arrays(100 + t, dtype).items() if name in names})
    return made


def in_torch(steps=0, dtype=torch.float32, named=True, make=polyak.torch.Momentum, **options):
    params = {name: torch.tensor(w, dtype=dtype).requires_grad_() for name, w in arrays(0).items()}
    momentum = {"momentum": M} if make in (polyak.torch.Momentum, torch.optim.SGD) else {}
    made = make(params.items() if named else params.values(), **{"lr": LR, **momentum, **options})
    for t in range(steps):
        for name, g in arrays(100 + t).items():
            params[name].grad = torch.tensor(g, dtype=dtype)
        made.step()
    return (made, params)


def velocities(made):
    if isinstance(made, polyak.numpy.Momentum):
        return {name: array.copy() for name, array in made.slots["velocity"].items()}
    (group,) = made.param_groups
    found = zip(group["param_names"], group["params"], strict=True)
    return {name: made.state[p]["momentum_buffer"].numpy() for name, p in found}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


# What moves


def test_numpy_to_torch_and_back(path):
    source = in_numpy(nesterov=True)
    source.lr = 0.3
    state.save(path, source)
    made, _ = in_torch(nesterov=True)
    report = state.load(path, made)
    assert_same(velocities(made), velocities(source))
    assert made.param_groups[0]["lr"] == 0.3
    assert report == state.Report(tuple(f"velocity/{name}" for name in SHAPES), (), (), None)
    state.save(path, made)
    back = in_numpy(steps=0, momentum=0.5)
    state.load(path, back)
    assert_same(velocities(back), velocities(source))
    assert (back.lr, back.momentum) == (0.3, M)


def test_from_one_optimizer_into_another_without_a_file():
    source, made = in_numpy(), in_torch()[0]
    state.load(source, made)
    assert_same(velocities(made), velocities(source))


def test_the_arrays_of_numpy_stay_where_they_are(path):
    """Compiled code knows them by their addresses, and people may have taken them out."""
    state.save(path, in_numpy())
    made = in_numpy(steps=0)
    before = made.slots["velocity"]["scale"]
    state.load(path, made)
    assert made.slots["velocity"]["scale"] is before
    assert before != 0


def test_what_is_loaded_is_a_copy():
    source, _ = in_torch(2)
    made, params = in_torch()
    state.load(source, made)
    before = velocities(source)["scale"].copy()
    for p in params.values():
        p.grad = torch.ones_like(p)
    made.step()
    assert velocities(source)["scale"] == before


def test_names_in_torch(path):
    named, _ = in_torch(2)
    nameless, params = in_torch(2, named=False)
    state.save(path, nameless, params)
    contents = state.read(path)
    state.save(path, named)
    assert contents == state.read(path)
    model = torch.nn.Linear(2, 3)
    state.save(path, polyak.torch.Momentum(model.parameters()), model)
    assert state.read(path).tensors.keys() == {"velocity/weight", "velocity/bias"}
    with pytest.raises(ValueError, match=r"knows none\. Give params"):
        state.save(path, nameless)
    with pytest.raises(ValueError, match="no name to 2 parameters"):
        state.save(path, nameless, {"scale": params["scale"]})


def test_no_step_yet_is_a_velocity_of_zero(path):
    made, params = in_torch()
    params["scale"].grad = torch.ones(())
    made.step()
    state.save(path, made)
    target = in_numpy()
    state.load(path, target)
    assert_same(
        velocities(target),
        {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()} | {"scale": np.ones((), np.float32)},
    )


def test_other_orders_of_memory(path):
    p = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    made = polyak.torch.Momentum([("w", p)], lr=LR)
    p.grad = torch.arange(120.0).reshape(2, 3, 4, 5)
    made.step()
    state.save(path, made)
    again = polyak.torch.Momentum([("w", p)], lr=LR)
    state.load(path, again)
    assert again.state[p]["momentum_buffer"].stride() == p.stride()
    assert torch.equal(again.state[p]["momentum_buffer"], p.grad)


def test_half_precision(path):
    """The velocity of bfloat16 is float32; one that is bfloat16, as torch.optim.SGD has it, stays so in a file."""
    made, _ = in_torch(2, torch.bfloat16)
    state.save(path, made)
    assert {spec.dtype for spec in state.read(path).tensors.values()} == {"float32"}
    sgd, params = in_torch(2, torch.bfloat16, make=torch.optim.SGD)
    state.save(path, sgd)
    assert {spec.dtype for spec in state.read(path).tensors.values()} == {"bfloat16"}
    target, _ = in_torch(0, torch.bfloat16)
    state.load(path, target)
    for name, p in params.items():  # bfloat16 widens to float32 exactly
        np.testing.assert_array_equal(velocities(target)[name], sgd.state[p]["momentum_buffer"].float().numpy())


def test_groups(path):
    w = {name: torch.zeros(2, requires_grad=True) for name in "abc"}
    groups = [{"params": [("a", w["a"])], "lr": 0.5}, {"params": [("b", w["b"]), ("c", w["c"])], "momentum": 0.25}]
    made = polyak.torch.Momentum(groups, lr=0.125)
    for p in w.values():
        p.grad = torch.ones(2)
    made.step()
    state.save(path, made)
    assert [group.names for group in state.read(path).groups] == [("a",), ("b", "c")]
    other = polyak.torch.Momentum([{"params": [("c", w["c"]), ("b", w["b"])]}, {"params": [("a", w["a"])], "velocity": "step"}])
    state.load(path, other)
    assert [group["lr"] for group in other.param_groups] == [0.125, 0.5]
    assert [group["momentum"] for group in other.param_groups] == [0.25, 0.9]
    assert other.state[w["a"]]["momentum_buffer"].tolist() == [0.5, 0.5]  # by the learning rate of its own group
    one = polyak.numpy.Momentum({name: np.zeros(2, np.float32) for name in "abc"}, lr=0.01)
    report = state.load(path, one)
    assert one.lr == 0.01
    assert report.notes[0] == "learning_rate: stays 0.01, saved 0.125 and 0.5: those of the saved groups differ"
    step = polyak.numpy.Momentum({name: np.zeros(2, np.float32) for name in "abc"}, velocity="step")
    with pytest.raises(ValueError, match="last step, which is not known"):
        state.load(one, step)


def test_a_tensor_as_learning_rate_is_written_into(path):
    state.save(path, in_numpy(lr=0.5))
    lr = torch.tensor(0.1)
    made, _ = in_torch(lr=lr)
    state.load(path, made)
    assert made.param_groups[0]["lr"] is lr
    assert lr == 0.5


def of_torch(made):
    """All slots of an optimizer of PyTorch, by the names that a file has for them."""
    (group,) = made.param_groups
    found = zip(group["param_names"], group["params"], strict=True)
    return {
        f"{'velocity' if key == 'momentum_buffer' else key}/{name}": slot.numpy()
        for name, p in found
        for key, slot in made.state[p].items()
    }


def of_numpy(made):
    return {f"{slot}/{name}": x.copy() for slot, of_each in made.slots.items() for name, x in of_each.items()}


OTHERS = {
    "Momentum": {"momentum": 0.5},
    "QHM": {"momentum": 0.5, "nu": 0.25},
    "AggMo": {"momenta": (0.25, 0.5)},
    "Signum": {"momentum": 0.5},
    "Lion": {"b1": 0.5, "b2": 0.75},
    "ScheduleFree": {"momentum": 0.5, "warmup_steps": 0},
    "LARS": {"momentum": 0.5, "trust_coefficient": 0.25},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method(path, method):
    """Its slots, its numbers and what was chosen, by way of a file and of a state_dict of PyTorch."""
    decay = family.decays(method)[-1]
    options = {"cautious": True, "weight_decay": 0.1, "decay": decay, "cautious_decay": decay == "decoupled", **OTHERS[method]}
    source = in_numpy(make=getattr(polyak.numpy, method), lr=0.25, **options)
    state.save(path, source)
    (group,) = state.read(path).groups
    assert group.method == method
    assert group.options | group.hyperparameters == {**options, "learning_rate": 0.25, "maximize": False} | (
        {"dampening": 0.0, "nesterov": False, "velocity": "gradient"} if method == "Momentum" else {}
    )
    fixed = {name: x for name, x in options.items() if name in METHODS[method].constants or name not in OTHERS[method]}
    made, _ = in_torch(make=getattr(polyak.torch, method), **fixed)
    assert not state.load(path, made).notes
    assert_same(of_torch(made), of_numpy(source))
    assert made.param_groups[0]["count"] == 3
    assert {name: made.param_groups[0][name] for name in OTHERS[method]} == OTHERS[method]
    back = in_numpy(steps=1, make=getattr(polyak.numpy, method), **fixed)
    assert not state.load(made.state_dict(), back).notes
    assert_same(of_numpy(back), of_numpy(source))
    assert (back.count, back.lr) == (3, 0.25)


def test_one_method_is_not_another(path):
    state.save(path, in_numpy(make=polyak.numpy.Signum, lr=0.5))
    made = in_numpy()
    message = refused(path, made)
    assert "first.weight and 2 more: saved by Signum, and the optimizer is Momentum, whose slots mean something else" in message
    assert "velocity/scale" not in message
    before = velocities(made)
    report = state.load(path, made, strict=False)
    assert len(report.left) == 1
    assert (report.loaded, report.notes) == ((), ())
    assert_same(velocities(made), before)
    assert made.lr == LR


def test_as_many_velocities_as_momenta(path):
    state.save(path, in_numpy(make=polyak.numpy.AggMo, momenta=(0.0, 0.9)))
    made = in_numpy(make=polyak.numpy.AggMo)
    with pytest.raises(ValueError, match="velocity_2/scale: missing"):
        state.load(path, made)
    assert state.load(path, made, strict=False).notes == (
        "momenta: the optimizer has (0.0, 0.9, 0.99), the saved one had (0.0, 0.9)",
    )


def test_schedules_go_on_at_the_saved_step(path):
    def lr(step):
        return 0.5 / (1 + step)

    source = in_numpy(lr=lr, momentum=lambda step: 0.5 + step / 16)
    state.save(path, source)
    contents = state.read(path)
    assert contents.count == 3
    (group,) = contents.groups
    assert group.hyperparameters == {"learning_rate": 0.125, "momentum": 0.6875}
    assert group.scheduled == ("learning_rate", "momentum")
    assert group.last_learning_rate == 0.5 / 3
    made = in_numpy(steps=1, lr=lr, momentum=M)
    report = state.load(path, made)
    assert (made.count, made.lr, made.momentum) == (3, 0.125, 0.6875)
    assert report.notes == ("learning_rate: follows the optimizer's schedule, saved 0.125",)
    torch_made, _ = in_torch(2)
    state.save(path, torch_made)
    state.load(path, made)
    assert made.count == 2


def test_a_schedule_that_has_ended_is_saved_nevertheless(path):
    made = in_numpy(lr=lambda step: float("nan") if step == 3 else 0.1)
    state.save(path, made)
    assert state.read(path).groups[0].hyperparameters == {"momentum": M}
    state.save(path, in_numpy(lr=lambda step: 0.3 - step / 8))
    assert state.read(path).groups[0].hyperparameters == {"momentum": M, "learning_rate": 0.3 - 3 / 8}


def test_groups_that_have_made_other_numbers_of_steps(path):
    made, _ = in_torch(1)
    other = torch.zeros(2, requires_grad=True)
    made.add_param_group({"params": [("other", other)]})
    assert [group["count"] for group in made.param_groups] == [1, 0]
    state.save(path, made)
    assert state.read(path).count is None
    params = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()} | {"other": np.zeros(2, np.float32)}
    target = polyak.numpy.Momentum(params, lr=lambda step: 0.1 / (1 + step))
    with pytest.raises(ValueError, match="step count: not in the saved state"):
        state.load(path, target)


def test_gradient_descent_has_a_learning_rate_only(path):
    state.save(path, in_numpy(momentum=0.0, lr=0.5))
    assert not state.read(path).tensors
    made, _ = in_torch(momentum=0.0)
    state.load(path, made)
    assert made.param_groups[0]["lr"] == 0.5
    assert not made.state


# What does not fit


def refused(place, made, **options):
    """The error, and the certainty that the optimizer is as it was."""
    before, lr = velocities(made), made.lr
    with pytest.raises(ValueError) as info:  # noqa: PT011  (who calls this looks at the message)
        state.load(place, made, **options)
    assert_same(velocities(made), before)
    assert made.lr == lr
    return str(info.value)


def test_everything_that_does_not_fit_is_one_error(path):
    state.save(path, in_numpy(lr=0.5))
    other = polyak.numpy.Momentum(
        {"first.weight": np.zeros((2, 3), np.float32), "first.bias": np.zeros(3, np.float32), "b": np.zeros(1)}
    )
    message = refused(path, other)
    assert str(path) in message
    for line in (
        "velocity/b: missing, the optimizer has float64[1]",
        "velocity/scale: unexpected, the optimizer has no such slot or parameter (float32[] saved)",
        "velocity/first.weight: saved with shape (3, 2), the optimizer has (2, 3)",
    ):
        assert f"\n  {line}" in message
    report = state.load(path, other, strict=False)
    assert report.loaded == ("velocity/first.bias",)
    assert len(report.left) == 3
    assert_same({"x": other.slots["velocity"]["first.bias"]}, {"x": in_numpy().slots["velocity"]["first.bias"]})
    assert other.lr == 0.5
    step = polyak.numpy.Momentum(other._params, velocity="step")  # the velocities of `other` are of several origins
    assert "last step, which is not known" in refused(other, step)


def test_wider_numbers_are_not_rounded_in_silence(path):
    state.save(path, in_numpy(dtype=np.float64))
    made = in_numpy(steps=0)
    assert "saved as float64, which the optimizer's float32 cannot hold exactly" in refused(path, made)
    state.load(path, made, transform=lambda name, v: v.astype(np.float32))  # noqa: ARG005
    assert_same(velocities(made), {k: v.astype(np.float32) for k, v in velocities(in_numpy(dtype=np.float64)).items()})
    state.save(path, made)
    state.load(path, in_numpy(dtype=np.float64))


def test_a_velocity_and_an_optimizer_without_one(path):
    state.save(path, in_numpy())
    made = in_numpy(momentum=0.0)
    with pytest.raises(ValueError, match="velocity/scale: unexpected"):
        state.load(path, made)
    report = state.load(path, made, strict=False)
    assert made.momentum == 0
    assert "keeps no velocity" in report.notes[0]
    state.save(path, made)
    assert "velocity/scale: missing" in refused(path, in_numpy())


def test_a_momentum_out_of_range_is_found_before_anything_is_written(path):
    made, _ = in_torch(1)
    made.param_groups[0]["momentum"] = 1.5
    assert "momentum must be in [0, 1)" in refused(made, in_numpy())
    with pytest.raises(ValueError, match="momentum must be in"):
        state.save(path, made)
    assert not path.exists()


def test_rename(path):
    state.save(path, in_numpy())
    params = {name.replace(".", "/"): w for name, w in arrays(0).items()}
    for rename in (
        lambda name: name.replace(".", "/"),
        {"first.weight": "first/weight", "first.bias": "first/bias"},
    ):
        made = polyak.numpy.Momentum(params)
        state.load(path, made, rename=rename)
        assert_same(velocities(made), {name.replace(".", "/"): v for name, v in velocities(in_numpy()).items()})
    assert "rename gives several parameters one name: {'x': [" in refused(path, made, rename=lambda name: "x")  # noqa: ARG005
    assert "rename has names that the saved state does not have: ['secnd']" in refused(path, made, rename={"secnd": "x"})
    with pytest.raises(TypeError, match="must give a string"):
        state.load(path, made, rename=lambda name: None)  # noqa: ARG005


def test_transform(path):
    state.save(path, in_numpy())
    made = polyak.numpy.Momentum({name: np.array(w.T, order="C") for name, w in arrays(0).items()})
    expected = {name: np.array(v.T, order="C") for name, v in velocities(in_numpy()).items()}
    for transform in ({"first.weight": np.transpose}, lambda name, v: v.T if name == "first.weight" else v):
        state.load(path, made, transform=transform)
        assert_same(velocities(made), expected)
    message = refused(path, made, transform={"first.weight": lambda v: v[1:]})
    assert "velocity/first.weight: saved with shape (2, 2), the optimizer has (2, 3), after transform" in message
    message = refused(path, made, transform={"first.weight": lambda v: v @ v})
    assert "transform failed at velocity/first.weight, an array of float32 (3, 2)" in message
    assert "names that the optimizer does not have: ['x']" in refused(path, made, transform={"x": np.transpose})


def test_what_differs_without_being_state_is_said(path):
    state.save(path, in_numpy(nesterov=True, weight_decay=0.1, decay="coupled"))
    notes = state.load(path, in_torch()[0]).notes
    assert notes == (
        "nesterov: the optimizer has False, the saved one had True",
        "weight_decay: the optimizer has 0.0, the saved one had 0.1",
        "decay: the optimizer has None, the saved one had 'coupled'",
    )


def test_other_optimizers():
    for other in (torch.optim.Adam([torch.zeros(1)]), object(), 3, {}, (1, 2)):
        with pytest.raises(
            TypeError, match=re.escape(type(other).__name__) if not isinstance(other, torch.optim.Adam) else "Adam"
        ):
            state.load(other, in_numpy())
    sgd, _ = in_torch(make=torch.optim.SGD)
    with pytest.raises(TypeError, match="read only"):
        state.load(in_numpy(), sgd)
    with pytest.raises(TypeError, match="leave params out"):
        state.load(in_numpy(), in_numpy(), arrays(0))


# Units of the velocity


def moved(source, velocity, **options):
    made = in_numpy(steps=0, dtype=np.float64, velocity=velocity, **options)
    return made, state.load(source, made)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("from_", "to", "factor"),
    [
        ("gradient", "step", lambda lr, m: lr),  # noqa: ARG005
        ("step", "gradient", lambda lr, m: 1 / lr),  # noqa: ARG005
        ("gradient", "average", lambda lr, m: 1 - m),  # noqa: ARG005
        ("average", "gradient", lambda lr, m: 1 / (1 - m)),  # noqa: ARG005
        ("step", "average", lambda lr, m: (1 - m) / lr),
        ("average", "step", lambda lr, m: lr),  # noqa: ARG005
    ],
)
def test_conversion_rounds_once_a_factor(from_, to, factor, dtype):
    source, made = in_numpy(dtype=dtype, velocity=from_), in_numpy(steps=0, dtype=dtype, velocity=to)
    report = state.load(source, made)
    lr, m = Fraction(float(dtype(LR))), Fraction(float(dtype(M)))
    roundings = 2 if (from_, to) == ("step", "average") else 1
    bound = roundings * Fraction(float(np.finfo(dtype).eps)) / 2 * Fraction(101, 100)  # 1.01: (1 + e)^2 is not 1 + 2 e
    for name, v in velocities(source).items():
        for before, after in zip(v.ravel().tolist(), velocities(made)[name].ravel().tolist(), strict=True):
            exact = Fraction(before) * factor(lr, m)
            assert abs(Fraction(after) - exact) <= bound * abs(exact)
    assert f"velocity: converted from {from_!r} to {to!r}" in report.notes


@pytest.mark.parametrize("nesterov", [False, True])
def test_gradient_and_step_go_on_alike(nesterov):
    """With a constant learning rate the two are one method."""
    whole = in_numpy(steps=6, dtype=np.float64, velocity="step", nesterov=nesterov)
    source = in_numpy(steps=3, dtype=np.float64, nesterov=nesterov)
    made = polyak.numpy.Momentum(source._params, lr=LR, momentum=M, velocity="step", nesterov=nesterov)
    state.load(source, made)
    for t in range(3, 6):
        made.step(arrays(100 + t, np.float64))
    for name, w in whole._params.items():
        np.testing.assert_allclose(made._params[name], w, rtol=0, atol=1e-14)  # roundings of float64 in numbers of size 1


def test_the_learning_rate_stays_beside_an_average():
    """It multiplies a velocity of another size."""
    made, report = moved(in_numpy(dtype=np.float64, lr=0.5), "average")
    assert made.lr == LR
    assert report.notes[0].startswith("learning_rate: stays 0.1, saved 0.5: beside velocities of the units")
    made, _ = moved(in_numpy(dtype=np.float64, lr=0.5), "step")
    assert made.lr == 0.5


@pytest.mark.parametrize(
    ("source", "to", "reason"),
    [
        ({"lr": 0.0}, "step", "needs the learning rate of the last step, which was 0"),
        ({"lr": 0.0, "velocity": "step"}, "gradient", "needs the learning rate of the last step, which was 0"),
        ({"dampening": 0.5}, "average", "and there is dampening"),
    ],
)
def test_conversions_that_are_not_exact_are_refused(source, to, reason):
    made = in_numpy(dtype=np.float64, velocity=to)
    assert reason in refused(in_numpy(dtype=np.float64, **source), made)
    before = velocities(made)
    report = state.load(in_numpy(dtype=np.float64, **source), made, strict=False)
    assert (len(report.left), report.loaded) == (3, ())
    assert_same(velocities(made), before)


def test_an_average_makes_the_same_steps_in_units_of_the_step():
    """With the learning rate that makes the same steps from there on."""
    lr, m = 0.5, 0.75
    whole = in_numpy(steps=6, dtype=np.float64, velocity="average", lr=lr, momentum=m)
    source = in_numpy(steps=3, dtype=np.float64, velocity="average", lr=lr, momentum=m)
    made = polyak.numpy.Momentum(source._params, lr=lr * (1 - m), momentum=m, velocity="step")
    state.load(source, made)
    for t in range(3, 6):
        made.step(arrays(100 + t, np.float64))
    for name, w in whole._params.items():
        np.testing.assert_allclose(made._params[name], w, rtol=0, atol=1e-14)  # roundings of float64 in numbers of size 1


def test_what_was_an_average_does_not_tell_the_learning_rate_of_its_last_step():
    """It made other steps with it than a velocity in gradients would have."""
    made, _ = moved(in_numpy(dtype=np.float64, velocity="average"), "gradient")
    assert "last step, which is not known" in refused(made, in_numpy(dtype=np.float64, velocity="step"))


@pytest.mark.parametrize("make", [in_numpy, lambda: in_torch(3)[0]])
def test_the_learning_rate_of_the_last_step_is_not_the_present_one(make, path):
    source = make()
    if isinstance(source, polyak.numpy.Momentum):
        source.lr = 0.01
    else:
        source.param_groups[0]["lr"] = 0.01
    state.save(path, source)
    for place in (path, source):
        made = in_numpy(velocity="step")
        state.load(place, made)
        for name, v in velocities(source).items():
            np.testing.assert_array_equal(velocities(made)[name], np.float32(LR) * v)
        assert made.lr == 0.01
        back = in_numpy(velocity="gradient", lr=0.5)
        state.load(made, back)  # which remembers it too, without a step of its own
        for name, v in velocities(made).items():
            np.testing.assert_array_equal(velocities(back)[name], v / np.float32(LR))


def test_before_the_first_step_every_unit_fits(path):
    for source in (in_numpy(steps=0), in_torch()[0]):
        state.save(path, source)
        made = in_numpy(velocity="step")
        state.load(path, made)
        assert not any(v.any() for v in velocities(made).values())
        assert made.count == 0


def test_a_velocity_that_others_began_counts_though_no_step_does():
    """SGD tells no count, so that of the optimizer stays 0, beside a velocity that is not 0."""
    sgd, _ = in_torch(3, make=torch.optim.SGD)
    made, _ = in_torch()
    made.load_state_dict(sgd.state_dict())
    loaded = in_numpy(steps=0)
    state.load(sgd, loaded)
    for source in (made, loaded):
        assert "learning rate of the last step, which is not known" in refused(source, in_numpy(velocity="step"))
        state.load(source, in_numpy())


def test_a_step_that_was_left_out_has_no_learning_rate():
    source = in_numpy(finite="skip")
    source.lr = 0.01
    source.step({name: np.full_like(g, np.nan) for name, g in arrays(0).items()})
    assert (source.count, source.skipped) == (4, 1)
    made = in_numpy(velocity="step")
    state.load(source, made)
    for name, v in velocities(source).items():
        np.testing.assert_array_equal(velocities(made)[name], np.float32(LR) * v)


def test_the_learning_rate_of_the_last_step_beside_a_scheduler_of_torch():
    """It is the one that the step took, and not the one that a scheduler has set since."""
    source, params = in_torch(2)
    scheduler = torch.optim.lr_scheduler.StepLR(source, 1, gamma=0.5)
    for p in params.values():
        p.grad = torch.ones_like(p)
    source.step()
    scheduler.step()
    made, _ = in_torch(velocity="step")
    state.load(source, made)
    for name, v in velocities(source).items():
        np.testing.assert_array_equal(velocities(made)[name], np.float32(LR) * v)
    assert made.param_groups[0]["lr"] == LR / 2


def test_after_loading_the_last_step_was_the_loaded_one():
    """And not the one that the optimizer itself made before."""
    made, _ = in_torch(1, lr=0.5)
    state.load(in_numpy(), made)
    step, _ = in_torch(velocity="step")
    state.load(made, step)
    for name, v in velocities(in_numpy()).items():
        np.testing.assert_array_equal(velocities(step)[name], np.float32(LR) * v)


def test_ctrl_c_while_the_optimizer_is_written_to_comes_afterwards(monkeypatch):
    source, made = in_numpy(lr=0.5), in_numpy(steps=0)
    copyto = np.copyto

    def interrupted_copyto(target, values):
        signal.raise_signal(signal.SIGINT)
        copyto(target, values)

    monkeypatch.setattr(np, "copyto", interrupted_copyto)
    with pytest.raises(KeyboardInterrupt):
        state.load(source, made)
    assert_same(velocities(made), velocities(source))
    assert made.lr == 0.5


# Peers


def test_torch_sgd_live_or_its_state_dict(path):
    sgd, params = in_torch(3, make=torch.optim.SGD, nesterov=True, weight_decay=0.1)
    nameless = torch.optim.SGD(params.values(), LR, momentum=M)
    nameless.load_state_dict(sgd.state_dict())
    expected = {name: sgd.state[p]["momentum_buffer"].numpy() for name, p in params.items()}
    for source in (sgd, sgd.state_dict()):
        made = in_numpy(nesterov=True, weight_decay=0.1, decay="coupled")
        report = state.load(source, made)
        assert_same(velocities(made), expected)
        assert report.notes == ("step count: stays 3, not in the saved state",)
    state.save(path, nameless.state_dict() | {}, params)
    state.load(path, made)
    assert_same(velocities(made), expected)


def without_names():
    sgd, params = in_torch(2, named=False, make=torch.optim.SGD)
    return sgd.state_dict(), params


def test_a_state_dict_without_names(path):
    state_dict, params = without_names()
    with pytest.raises(ValueError, match="this state_dict has none"):
        state.load(state_dict, in_numpy())
    with pytest.raises(ValueError, match="is of 3 parameters, and params gives 2"):
        state.save(path, state_dict, list(params.items())[:2])
    with pytest.raises(
        ValueError, match=r"place of 'scale', which has shape \(\), the state_dict has a momentum_buffer of shape \(3, 2\)"
    ):
        state.save(path, state_dict, list(params.items())[::-1])
    state.save(path, state_dict, params)
    state.load(path, in_numpy())


def test_sgd_does_not_tell_the_learning_rate_of_its_last_step():
    """The present one may have been set since."""
    sgd, _ = in_torch(3, make=torch.optim.SGD)
    for source in (sgd, sgd.state_dict()):
        assert "needs the learning rate of the last step, which is not known" in refused(source, in_numpy(velocity="step"))
        state.load(source, in_numpy())


def test_state_dicts_of_others():
    with pytest.raises(TypeError, match=r"are known; a group of this one has amsgrad, betas"):
        state.load(torch.optim.Adam([("w", torch.zeros(1))]).state_dict(), in_numpy())


# The command and the import


def test_the_command(path, capsys):
    state.save(path, in_numpy())
    assert dispatch(["state", str(path)]) == 0
    out, _ = capsys.readouterr()
    assert "steps: 3\n3 parameters: Momentum  learning_rate 0.1  momentum 0.9  dampening 0.0  nesterov false" in out
    assert "velocity/first.weight  float32[3, 2]" in out
    state.save(path, in_numpy(make=polyak.numpy.AggMo))
    assert dispatch(["state", str(path)]) == 0
    out, _ = capsys.readouterr()
    assert "3 parameters: AggMo  learning_rate 0.1  momenta (0.0, 0.9, 0.99)  weight_decay 0.0" in out
    path.write_bytes(b"x")
    assert dispatch(["state", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"polyak: {path}: this is not a state that can be read: it has 1 bytes")


def test_import_brings_no_framework():
    code = "import sys, polyak.state; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"keras", "tensorflow", "jax", "torch", "numba"} & set(modules)
