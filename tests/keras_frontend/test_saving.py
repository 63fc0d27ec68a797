"""Configuration and state: a model saved and loaded trains on as if nothing had happened."""

import keras
import numpy as np
import pytest

from keras_support import numpy, small_data, small_model, variable
from polyak.keras import Momentum

OPTIONS = [
    {},
    {"momentum": 0.0},
    {"nesterov": True, "velocity": "step"},
    {"dampening": 0.5, "weight_decay": 0.01, "decay": "coupled"},
    {"velocity": "average", "weight_decay": 0.01, "decay": "decoupled", "clipnorm": 1.0},
    {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)},
    {"momentum": keras.optimizers.schedules.PolynomialDecay(0.9, 10, 0.4)},
    {"use_ema": True, "global_clipnorm": 1.0, "gradient_accumulation_steps": 2, "name": "mine"},
]


@keras.saving.register_keras_serializable(package="test")
def falling(step):
    return 0.1 / (1 + step)


@keras.saving.register_keras_serializable(package="test")
def rising(step):
    return 0.9 * step / (10 + step)


@pytest.mark.parametrize("options", [*OPTIONS, {"learning_rate": falling, "momentum": rising}], ids=str)
def test_config_makes_the_same_optimizer(options):
    config = Momentum(**options).get_config()
    again = Momentum.from_config(config)
    assert again.get_config() == config
    through_keras = keras.optimizers.deserialize(keras.optimizers.serialize(Momentum(**options)))
    assert type(through_keras) is Momentum
    assert through_keras.get_config() == config


def test_every_argument_is_in_the_config():
    import inspect

    assert set(Momentum().get_config()) == set(inspect.signature(Momentum).parameters)


@pytest.mark.parametrize("options", [*OPTIONS, {"learning_rate": falling, "momentum": rising}], ids=str)
def test_training_goes_on_bit_for_bit_after_loading(options, tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(Momentum(**options), loss="mse")
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(x, y, epochs=2, **fit)
    if not options:
        model.optimizer.momentum = 0.5  # an assigned value is state
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    for m in (model, loaded):
        m.fit(x, y, epochs=2, **fit)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))


def test_momentum_that_was_set_to_0_is_saved_with_its_velocity(tmp_path):
    """Not as gradient descent, which would have no place for it."""
    x, y = small_data()
    model = small_model()
    model.compile(Momentum(0.1, 0.9), loss="mse")
    model.fit(x, y, verbose=0)
    model.optimizer.momentum = 0.0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.momentum) == 0.0
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)


def test_instances_share_nothing():
    a, b = Momentum(0.5, 0.5), Momentum(0.5, 0.5)
    w, x = variable([0.0]), variable([0.0])
    one = variable([1.0]).value
    a.apply([one], [w])
    a.momentum = 0.25
    a.apply([one], [w])
    b.apply([one], [x])
    b.apply([one], [x])
    np.testing.assert_array_equal(numpy(w), [-0.5 * (1 + 1.25)])
    np.testing.assert_array_equal(numpy(x), [-0.5 * (1 + 1.5)])


def test_a_state_of_the_same_variables_in_another_order_is_refused():
    a, b = (keras.Variable(np.ones(2, "float32"), name=name) for name in "ab")
    store = {}
    optimizer = Momentum(0.1)
    optimizer.build([a, b])
    optimizer.save_own_variables(store)
    other = Momentum(0.1)
    other.build([b, a])
    with pytest.raises(ValueError, match="order a, b, and this optimizer was built with b, a"):
        other.load_own_variables(store)
    renamed = Momentum(0.1)
    renamed.build([a, keras.Variable(np.ones(2, "float32"), name="c")])
    renamed.load_own_variables(store)  # by position, as Keras does
