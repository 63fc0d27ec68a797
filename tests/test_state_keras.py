"""`polyak.state` in Keras, on the backend of this process: variables and their paths, and what Keras's own optimizer keeps."""

import pickle

import keras
import numpy as np
import pytest
from keras import ops

import polyak.keras
import polyak.numpy
import polyak.torch
from polyak import state


def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="dense"), keras.layers.Dense(1, name="out")], name="m"
    )
    return made


PATHS = ("dense/kernel", "dense/bias", "out/kernel", "out/bias")
SHAPES = ((4, 3), (3,), (3, 1), (1,))


def stepped(optimizer, of, steps=3):
    for t in range(steps):
        rng = np.random.default_rng(t)
        grads = [ops.convert_to_tensor(rng.standard_normal(v.shape), dtype=v.dtype) for v in of.trainable_variables]
        optimizer.apply(grads, of.trainable_variables)
    return optimizer


def numbers(variables):
    return [ops.convert_to_numpy(v).copy() for v in variables]


def in_numpy(**options):
    return polyak.numpy.Momentum(
        {name: np.zeros(shape, np.float32) for name, shape in zip(PATHS, SHAPES, strict=True)}, **options
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def test_names_are_the_paths_and_the_count_moves(path):
    of = model()
    source = stepped(polyak.keras.Momentum(0.25, 0.5), of)
    state.save(path, source)
    assert state.read(path).groups[0].names == tuple(v.path for v in of.trainable_variables)
    state.save(path, source, of)  # without the name of the model, which a model that was loaded does not have in its paths
    contents = state.read(path)
    assert contents.groups[0].names == PATHS
    assert contents.groups[0].hyperparameters == {"learning_rate": 0.25, "momentum": 0.5}
    assert contents.count == 3
    made = polyak.keras.Momentum()
    report = state.load(path, made, model())
    assert made.iterations == 3
    assert (float(made.learning_rate), float(made.momentum)) == (0.25, 0.5)
    assert not report.notes
    np.testing.assert_equal(numbers(made.variables), numbers(source.variables))


def test_assigned_numbers_are_state(path):
    of = model()
    source = stepped(polyak.keras.Momentum(0.25, 0.5), of)
    source.learning_rate, source.momentum = 0.125, 0.75
    state.save(path, source, of)
    made = polyak.keras.Momentum()
    state.load(path, made, model())
    assert (float(made.learning_rate), float(made.momentum)) == (0.125, 0.75)


def test_an_optimizer_that_does_not_take_it_is_not_even_built(path):
    state.save(path, in_numpy())
    made = polyak.keras.Momentum()
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="does not fit"):
        state.load(path, made, other)
    assert not made.built
    with pytest.raises(ValueError, match="has made no step yet"):
        state.load(path, made)


def test_a_schedule_stays_and_goes_on(path):
    of = model()
    source = stepped(polyak.keras.Momentum(lambda t: 0.5 / (1 + t)), of)
    state.save(path, source, of)
    (group,) = state.read(path).groups
    assert group.hyperparameters["learning_rate"] == 0.125
    assert group.last_learning_rate == np.float32(0.5 / 3)
    made = polyak.keras.Momentum(lambda t: 1.0 / (1 + t))
    report = state.load(path, made, model())
    assert float(made.learning_rate) == 0.25
    assert report.notes == ("learning_rate: follows the optimizer's schedule, saved 0.125",)


METHODS = {
    "QHM": (polyak.keras.QHM, {"momentum": 0.75, "nu": 0.5}),
    "AggMo": (polyak.keras.AggMo, {"momenta": (0.0, 0.5, 0.75)}),
    "Signum": (polyak.keras.Signum, {"momentum": 0.75}),
    "Lion": (polyak.keras.Lion, {"b1": 0.75, "b2": 0.5}),
    "ScheduleFree": (polyak.keras.ScheduleFree, {"momentum": 0.75, "warmup_steps": 0}),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method(path, method):
    make, arguments = METHODS[method]
    of = model()
    source = stepped(make(0.25, **arguments, cautious=True), of)
    state.save(path, source, of)
    (group,) = state.read(path).groups
    assert group.method == method
    expected = arguments | {
        "learning_rate": 0.25,
        "cautious": True,
        "cautious_decay": False,
        "weight_decay": 0.0,
        "decay": None,
    }
    assert group.options | group.hyperparameters == expected
    made = make(cautious=True, **{name: x for name, x in arguments.items() if name == "momenta"})
    assert not state.load(path, made, of).notes
    np.testing.assert_equal(numbers(made.variables), numbers(source.variables))
    with pytest.raises(ValueError, match=f"saved by {method}, and the optimizer is Momentum"):
        state.load(path, polyak.keras.Momentum(), of)


@pytest.mark.parametrize("built", [False, True])
def test_groups_have_numbers_of_their_own(path, built):
    groups = {
        "bias": {"weight_decay": 0},
        "out": {"learning_rate": lambda t: 0.5 / (1 + t), "momentum": 0.5},
    }
    of = model()
    source = stepped(polyak.keras.Momentum(0.25, weight_decay=0.125, decay="coupled", groups=groups), of)
    state.save(path, source, of)
    contents = state.read(path)
    assert [group.names for group in contents.groups] == [("dense/kernel",), ("dense/bias", "out/bias"), ("out/kernel",)]
    assert [group.options["weight_decay"] for group in contents.groups] == [0.125, 0, 0.125]
    assert [group.last_learning_rate for group in contents.groups] == [0.25, 0.25, np.float32(0.5 / 3)]
    assert contents.groups[2].hyperparameters == {"learning_rate": 0.125, "momentum": 0.5}
    step = in_numpy(velocity="step")
    state.load(path, step)
    for name, velocity in zip(PATHS, numbers([slot for (slot,) in source._state.slots]), strict=True):
        lr = np.float32(0.5 / 3) if name == "out/kernel" else np.float32(0.25)
        np.testing.assert_array_equal(step.slots["velocity"][name], velocity * lr)
    made = polyak.keras.Momentum(0.01, weight_decay=0.125, decay="coupled", groups=groups)
    target = model()
    if built:
        stepped(made, target, 1)
    report = state.load(path, made, target)
    assert float(made.learning_rate) == 0.25  # which the biases have too
    assert report.notes == ("learning_rate: follows the optimizer's schedule, saved 0.125",)
    np.testing.assert_equal(numbers(made.variables), numbers(source.variables))


def test_one_number_for_several_groups_needs_one_value(path):
    of = model()
    source = stepped(polyak.keras.Momentum(0.25, groups={"bias": {"learning_rate": 0.5}}), of)
    state.save(path, source, of)
    made = polyak.keras.Momentum(0.125, weight_decay=0.5, decay="coupled", groups={"bias": {"weight_decay": 0}})
    notes = state.load(path, made, of).notes
    assert float(made.learning_rate) == 0.125
    assert notes[0] == "learning_rate: stays 0.125, saved 0.25 and 0.5: those of the saved groups differ"


def test_the_learning_rate_of_the_last_step_is_not_the_present_one(path):
    of = model()
    source = stepped(polyak.keras.Momentum(0.25), of)
    source.learning_rate = 0.01
    state.save(path, source, of)
    made = polyak.keras.Momentum(velocity="step")
    state.load(path, made, of)
    assert float(made.learning_rate) == np.float32(0.01)
    steps = [velocity * np.float32(0.25) for velocity in numbers([slot for (slot,) in source._state.slots])]
    np.testing.assert_equal(numbers([slot for (slot,) in made._state.slots]), steps)
    back = in_numpy()
    state.load(made, back, rename=lambda name: name.removeprefix("m/"))  # it remembers it too, without a step of its own
    for velocity, step in zip(back.slots["velocity"].values(), steps, strict=True):
        np.testing.assert_array_equal(velocity, step / np.float32(0.25))


def test_a_step_that_was_left_out_hides_the_learning_rate_of_the_last_one(path):
    of = model()
    source = stepped(polyak.keras.Momentum(0.25, finite="skip"), of)
    source.apply([ops.full(v.shape, np.nan) for v in of.trainable_variables], of.trainable_variables)
    assert source.skipped == 1
    state.save(path, source, of)
    assert state.read(path).count == 4
    state.load(path, in_numpy())
    with pytest.raises(ValueError, match="learning rate of the last step, which is not known"):
        state.load(path, in_numpy(velocity="step"))


def test_averages_and_sums_move_too(path):
    options = {"use_ema": True, "gradient_accumulation_steps": 2}
    of = model()
    source = stepped(polyak.keras.Momentum(0.1, **options), of)
    state.save(path, source, of)
    assert {name.partition("/")[0] for name in state.read(path).tensors} == {"velocity", "average", "gradient_sum"}
    made = polyak.keras.Momentum(0.1, **options)
    state.load(path, made, of)
    np.testing.assert_equal(numbers(made.variables), numbers(source.variables))
    with pytest.raises(ValueError, match="average/dense/kernel: unexpected"):
        state.load(path, polyak.keras.Momentum(0.1), of)


def test_variables_of_one_path_need_names(path):
    variables = [keras.Variable(np.zeros(2, "float32"), name="w") for _ in range(2)]
    variables[1]._path = variables[0].path
    made = polyak.keras.Momentum(0.1)
    made.apply([ops.ones(2)] * 2, variables)
    with pytest.raises(ValueError, match="names are of several variables"):
        state.save(path, made)
    state.save(path, made, {"a": variables[0], "b": variables[1]})
    with pytest.raises(ValueError, match="gives no name to these variables"):
        state.save(path, made, {"a": variables[0]})


@pytest.mark.parametrize("nesterov", [False, True])
def test_keras_sgd(path, nesterov):
    """Its velocity is that of velocity="step" with the other sign: training goes on as it would have."""
    of = model()
    sgd = stepped(keras.optimizers.SGD(0.25, momentum=0.5, nesterov=nesterov), of)
    made = polyak.keras.Momentum(velocity="step", nesterov=nesterov)
    state.save(path, sgd, of)
    report = state.load(path, made, of)
    assert not report.notes
    assert made.iterations == 3
    velocities = [-x for x in numbers(sgd.momentums)]
    np.testing.assert_equal([made_[0] for made_ in map(numbers, made._state.slots)], velocities)
    start = numbers(of.trainable_variables)
    stepped(sgd, of)
    theirs = numbers(of.trainable_variables)
    for v, x in zip(of.trainable_variables, start, strict=True):
        v.assign(x)
    stepped(made, of)
    for ours, other in zip(numbers(of.trainable_variables), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-6)  # roundings of float32 in weights of size 1
    with pytest.raises(ValueError, match="learning rate of the last step, which is not known"):
        state.load(path, in_numpy())


def test_keras_sgd_tells_the_learning_rate_of_its_last_step_where_it_follows_a_schedule(path):
    of = model()
    sgd = stepped(keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 1.0), momentum=0.5), of)
    state.save(path, sgd, of)
    made = in_numpy()
    state.load(path, made)
    lr = state.read(path).groups[0].last_learning_rate
    assert lr == np.float32(0.5 / 3)
    for velocity, momentum in zip(made.slots["velocity"].values(), numbers(sgd.momentums), strict=True):
        np.testing.assert_array_equal(velocity, -momentum / np.float32(lr))


def test_a_keras_file(tmp_path):
    for optimizer in (keras.optimizers.SGD(0.25, momentum=0.5), polyak.keras.Momentum(0.25, 0.5, velocity="step")):
        of = model()
        of.compile(optimizer, loss="mse")
        of.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        of.save(tmp_path / "m.keras")
        made, live = in_numpy(velocity="step"), in_numpy(velocity="step")
        state.load(tmp_path / "m.keras", made)
        state.load(optimizer, live, rename=lambda name: name.removeprefix("m/"))
        for name, velocity in made.slots["velocity"].items():
            assert velocity.any()
            np.testing.assert_array_equal(velocity, live.slots["velocity"][name])
        assert (made.lr, made.momentum) == (0.25, 0.5)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_what_is_no_keras_file(tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"m\.keras: Keras cannot read this as a model"):
        state.load(path, in_numpy())
    model().save(path)
    with pytest.raises(ValueError, match=r"m\.keras: the model was saved without an optimizer"):
        state.load(path, in_numpy())
    with pytest.raises(FileNotFoundError):
        state.load(tmp_path / "n.keras", in_numpy())


def test_other_optimizers(path):
    with pytest.raises(TypeError, match=r"Adam\."):
        state.save(path, keras.optimizers.Adam(), model())
    with pytest.raises(TypeError, match="Give its inner_optimizer"):
        state.save(path, keras.optimizers.LossScaleOptimizer(polyak.keras.Momentum(0.1)), model())
    with pytest.raises(TypeError, match="read only"):
        state.load(in_numpy(), keras.optimizers.SGD(0.1, momentum=0.9), model())


def test_from_torch_to_keras_as_docs_show(path):
    import torch

    linear = torch.nn.Sequential()
    linear.add_module("dense", torch.nn.Linear(4, 3))
    linear.add_module("out", torch.nn.Linear(3, 1))
    optimizer = polyak.torch.Momentum(linear.parameters(), lr=0.25)
    linear(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    state.save(path, optimizer, linear)
    made = polyak.keras.Momentum()

    def transposed(name, array):
        return array.T if name.endswith("kernel") else array

    state.load(
        path,
        made,
        model(),
        rename=lambda name: name.replace(".weight", "/kernel").replace(".bias", "/bias"),
        transform=transposed,
    )
    expected = optimizer.state[linear.dense.weight]["momentum_buffer"].numpy().T
    np.testing.assert_array_equal(numbers(made._state.slots[0])[0], expected)
