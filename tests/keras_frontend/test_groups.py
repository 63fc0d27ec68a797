"""Groups of variables by pattern of their paths."""

import keras
import numpy as np
import pytest
from keras import ops

import textbook
from keras_support import MODES, numpy, small_data, small_model, stepper, variable
from polyak.keras import QHM, Lion, Momentum

START = np.random.default_rng(0).standard_normal(3).astype("float32")
GRADIENTS = np.random.default_rng(1).standard_normal((8, 3)).astype("float32")
NAMES = ("body/kernel", "body/bias", "head/kernel", "head/bias")


def trained(optimizer, mode):
    """The weights by name; all start alike and have the same gradients."""
    ws = [variable(START, name.replace("/", "_")) for name in NAMES]
    for w, name in zip(ws, NAMES, strict=True):
        w._path = name
    step = stepper(optimizer, ws, mode)
    for g in GRADIENTS:
        step([g] * len(ws))
    return {name: numpy(w) for name, w in zip(NAMES, ws, strict=True)}


def expected(rule, **arguments):
    return textbook.train(rule, START.astype(float), GRADIENTS.astype(float), **arguments)[0][-1]


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_a_group(mode):
    """The first pattern that is found wins; what it does not set is that of the optimizer."""
    optimizer = Momentum(
        0.1,
        0.9,
        weight_decay=0.5,
        decay="decoupled",
        groups={
            "bias": {"weight_decay": 0},
            "^head/": {"learning_rate": lambda step: 0.01 * (1 + step), "momentum": 0.5, "weight_decay": 0.25},
        },
    )
    weights = trained(optimizer, mode)
    rising = [0.01 * (1 + t) for t in range(8)]
    for name, reference in {
        "body/kernel": expected("gradient", lr=0.1, m=0.9, wd=0.5, decay="decoupled"),
        "body/bias": expected("gradient", lr=0.1, m=0.9),
        "head/kernel": expected("gradient", lr=rising, m=0.5, wd=0.25, decay="decoupled"),
        "head/bias": expected("gradient", lr=0.1, m=0.9),
    }.items():
        np.testing.assert_allclose(weights[name], reference, atol=3e-6, err_msg=name)  # 8 float32 steps on weights of up to 3


@pytest.mark.parametrize("mode", MODES)
def test_what_is_assigned_holds_outside_the_groups_that_set_it(mode):
    optimizer = QHM(0.1, 0.9, 0.5, groups={"head": {"learning_rate": 0.01, "nu": lambda step: 1 + 0 * step}})
    optimizer.learning_rate, optimizer.nu, optimizer.momentum = 0.2, 0.25, 0.5
    weights = trained(optimizer, mode)
    np.testing.assert_allclose(weights["body/bias"], expected("qhm", lr=0.2, m=0.5, nu=0.25), atol=3e-6)  # as above
    np.testing.assert_allclose(weights["head/bias"], expected("qhm", lr=0.01, m=0.5, nu=1.0), atol=3e-6)


def test_a_momentum_of_0_in_one_group_and_not_in_another():
    for outside, inside in ((0.0, 0.9), (0.9, 0.0)):
        weights = trained(Momentum(0.1, outside, groups={"head": {"momentum": inside}}), "loop")
        np.testing.assert_allclose(weights["body/bias"], expected("gradient", lr=0.1, m=outside), atol=3e-6)
        np.testing.assert_allclose(weights["head/bias"], expected("gradient", lr=0.1, m=inside), atol=3e-6)


def test_decay_in_a_group_alone():
    weights = trained(Lion(0.1, groups={"kernel": {"weight_decay": 0.5}}, decay="decoupled", cautious_decay=True), "loop")
    np.testing.assert_allclose(weights["body/bias"], expected("lion", lr=0.1, b1=0.9, b2=0.99), atol=3e-6)
    assert np.abs(weights["body/kernel"] - weights["body/bias"]).max() > 0.01


def test_exclusion_holds_in_groups_too():
    optimizer = Momentum(0.1, weight_decay=0.5, decay="decoupled", groups={"head": {"weight_decay": 0.25}})
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    weights = trained(optimizer, "loop")
    np.testing.assert_array_equal(weights["head/bias"], weights["body/bias"])
    assert (weights["head/kernel"] != weights["body/kernel"]).all()


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_no_decay_on_biases_of_a_model_in_one_line(jit_compile):
    """With a learning rate of its own for each, the variables that move are those of the group."""
    x, y = small_data()
    model = small_model()
    before = [numpy(w).copy() for w in model.trainable_variables]
    model.compile(Momentum(0.0, groups={r"bias|norm": {"learning_rate": 0.1}}), loss="mse", jit_compile=jit_compile)
    model.fit(x, y, verbose=0)
    moved = {w.path.rpartition("/")[2] for w, b in zip(model.trainable_variables, before, strict=True) if (numpy(w) != b).any()}
    assert moved == {"bias"}


@keras.saving.register_keras_serializable(package="test_groups")
def falling(step):
    return 0.1 / (1 + step)


def test_config():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    groups = {"bias": {"weight_decay": 0.0, "momentum": schedule}, "head": {"learning_rate": falling, "momentum": 0.5}}
    optimizer = Momentum(0.1, weight_decay=0.1, decay="coupled", groups=groups)
    config = optimizer.get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == Momentum.from_config(config).get_config() == config
    assert list(again.groups) == ["bias", "head"]
    for name, w in trained(again, "loop").items():
        np.testing.assert_array_equal(w, trained(Momentum.from_config(config), "loop")[name])
    assert Momentum().get_config()["groups"] is None


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (
            {"tail": {"learning_rate": 0.1}},
            ValueError,
            r"groups\['tail'\] has no parameter: it is found in no name.*body/kernel, ",
        ),
        ({"head": {}, "head/bias": {"momentum": 0.5}}, ValueError, "all that it finds belongs to a pattern before it"),
        ({"(": {"momentum": 0.5}}, ValueError, "is no regular expression"),
        ({"head": {"lr": 0.1}}, ValueError, r"groups\['head'\] may set learning_rate, momentum or weight_decay; got 'lr'"),
        ({"head": {"learning_rate": -1}}, ValueError, r"groups\['head'\]: learning_rate must be finite and at least 0; got -1"),
        ({"head": {"momentum": lambda: 1}}, TypeError, r"groups\['head'\]: momentum was given a callable that does not take"),
        ({"head": {"weight_decay": 0}}, ValueError, 'sets weight_decay, which needs decay="coupled" or decay="decoupled"'),
        ({"head": 0.1}, TypeError, r"groups\['head'\] must be a dict of numbers; got 0.1"),
        ({3: {"momentum": 0.1}}, TypeError, "must be regular expressions in strings; got 3"),
        (["head"], TypeError, "groups must be a dict such as"),
    ],
)
def test_errors(groups, error, message):
    with pytest.raises(error, match=message):
        trained(Momentum(0.1, groups=groups), "loop")


def test_all_decays_0():
    with pytest.raises(ValueError, match="has no effect with weight_decay=0"):
        Momentum(decay="coupled", groups={"bias": {"weight_decay": 0}})


def test_gradients_of_all_groups_are_in_one_norm():
    a, b = variable([0.0], "a"), variable([0.0], "b")
    optimizer = Momentum(1.0, global_clipnorm=1.0, groups={"b": {"learning_rate": 0.5}})
    optimizer.apply([ops.convert_to_tensor([3.0]), ops.convert_to_tensor([4.0])], [a, b])
    np.testing.assert_allclose([numpy(a), numpy(b)], [[-0.6], [-0.4]], rtol=1e-6)  # a few roundings
