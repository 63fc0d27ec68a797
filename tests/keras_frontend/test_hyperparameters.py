"""Learning rate and momentum that change: by schedule, by function, by assignment, and always at the next step."""

import keras
import numpy as np
import pytest
from keras import ops

import textbook
from keras_support import BACKEND, MODES, numpy, run, small_data, small_model, stepper, variable
from polyak.keras import Momentum

START = np.array([1.0, -2.0], "float32")
GRADIENTS = np.random.default_rng(0).standard_normal((12, 2)).astype("float32")
# 12 float32 steps on weights of up to 3.
TOLERANCE = {"atol": 3e-6}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("velocity", ["gradient", "step", "average"])
def test_momentum_assigned_between_steps_has_effect_at_the_next(velocity, mode):
    optimizer = Momentum(0.1, momentum=0.9, velocity=velocity)
    w = variable(START)
    step = stepper(optimizer, [w], mode)
    momenta = [0.9] * 4 + [0.5] * 4 + [0.0] * 4
    weights = []
    for t, g in enumerate(GRADIENTS):
        if t and momenta[t] != momenta[t - 1]:
            optimizer.momentum = momenta[t]
        step([g])
        weights.append(numpy(w).copy())
    expected, _ = textbook.train(velocity, START.astype(float), GRADIENTS.astype(float), lr=0.1, m=momenta)
    np.testing.assert_allclose(weights, expected, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
def test_learning_rate_assigned_between_steps_has_effect_at_the_next(mode):
    optimizer = Momentum(0.1, momentum=0.9)
    w = variable(START)
    step = stepper(optimizer, [w], mode)
    rates = [0.1] * 6 + [0.01] * 6
    weights = []
    for t, g in enumerate(GRADIENTS):
        optimizer.learning_rate = rates[t]
        step([g])
        weights.append(numpy(w).copy())
    expected, _ = textbook.train("gradient", START.astype(float), GRADIENTS.astype(float), lr=rates, m=0.9)
    np.testing.assert_allclose(weights, expected, **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["keras", "callable"])
def test_schedules_are_evaluated_at_each_step_from_0(kind, mode):
    if kind == "keras":
        learning_rate = keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], [0.1, 0.05, 0.2])
        momentum = keras.optimizers.schedules.PolynomialDecay(0.9, 10, end_learning_rate=0.4)
        # Keras's boundaries belong to the left.
        rates = [0.1] * 3 + [0.05] * 3 + [0.2] * 6
    else:
        learning_rate = lambda step: 0.1 / (1 + step)  # noqa: E731  (this is how one is written)
        momentum = lambda step: 0.9 - 0.05 * ops.minimum(step, 10.0)  # noqa: E731
        rates = [0.1 / (1 + t) for t in range(12)]
    momenta = [0.9 - 0.05 * min(t, 10) for t in range(12)]
    weights = run(Momentum(learning_rate, momentum), START, GRADIENTS, mode)
    expected, _ = textbook.train("gradient", START.astype(float), GRADIENTS.astype(float), lr=rates, m=momenta)
    np.testing.assert_allclose(weights, expected, **TOLERANCE)


def test_the_present_values_can_be_read():
    optimizer = Momentum(lambda step: 1 / (1 + step), lambda step: 0.5 + 0 * step)
    w = variable(START)
    optimizer.apply([ops.ones(2)], [w])
    assert float(optimizer.learning_rate) == 0.5
    assert float(optimizer.momentum) == 0.5
    assert float(Momentum(0.25, 0.75).momentum) == 0.75
    assert Momentum(0.25, 0.0).momentum == 0.0


@pytest.mark.parametrize("jit_compile", [True, False] if BACKEND != "torch" else [False])
def test_momentum_assigned_by_a_callback_of_fit(jit_compile):
    """In the step that fit() compiled; proved by the weights of a run with that momentum from the start."""
    x, y = small_data()

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
            if epoch == 1:
                self.model.optimizer.momentum = 0.5

    class Batch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
            if batch == 1:
                self.model.optimizer.momentum = 0.5

    def weights(momentum, callbacks):
        model = small_model()
        model.compile(Momentum(0.1, momentum), loss="mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        return np.concatenate([numpy(w).ravel() for w in model.trainable_variables])

    constant = weights(0.9, [])
    for callback, last_step_before in ((Epoch(), 3), (Batch(), 1)):  # 4 steps an epoch
        scheduled = keras.optimizers.schedules.PiecewiseConstantDecay([last_step_before], [0.9, 0.5])
        # The two are compiled differently, so the last bits may differ.
        assigned = weights(0.9, [callback])
        np.testing.assert_allclose(assigned, weights(scheduled, []), rtol=1e-5)
        assert np.abs(assigned - constant).max() > 1e-3


def test_assignments_are_checked():
    optimizer = Momentum(0.1, 0.9)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\); got 1.5"):
        optimizer.momentum = 1.5
    with pytest.raises(ValueError, match="learning_rate must be finite and at least 0; got -1"):
        optimizer.learning_rate = -1
    with pytest.raises(TypeError, match=r"momentum must be a number; got '0\.5'"):
        optimizer.momentum = "0.5"
    assert float(optimizer.momentum) == pytest.approx(0.9)
    scheduled = Momentum(lambda step: 0.1 + 0 * step, lambda step: 0.9 + 0 * step)
    with pytest.raises(TypeError, match="momentum follows a schedule"):
        scheduled.momentum = 0.5
    with pytest.raises(TypeError, match="learning_rate follows a schedule"):
        scheduled.learning_rate = 0.5
    with pytest.raises(TypeError, match="made with momentum=0 and keeps no velocity"):
        Momentum(0.1, momentum=0).momentum = 0.5


@pytest.mark.parametrize("option", ["nesterov", "velocity", "dampening", "weight_decay", "decay"])
def test_options_that_are_compiled_in_cannot_be_assigned(option):
    optimizer = Momentum(0.1)
    before = getattr(optimizer, option)
    with pytest.raises(AttributeError, match=f"{option} is fixed when the optimizer is made"):
        setattr(optimizer, option, 0.5)
    assert getattr(optimizer, option) == before


def test_a_callable_takes_the_step():
    with pytest.raises(TypeError, match="momentum was given a callable that does not take the step"):
        Momentum(0.1, lambda: 0.9)
    with pytest.raises(TypeError, match="learning_rate was given a callable that does not take the step"):
        Momentum(lambda: 0.1)


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled")
def test_new_values_do_not_compile_again():
    traces = []

    def momentum(step):
        traces.append(step)
        return 0.9 + 0 * step

    w = variable(START)
    step = stepper(Momentum(0.1, momentum), [w], MODES[-1])
    for g in GRADIENTS:
        step([g])
    assert len(traces) == 1


# What was used at the last step, which the portable state of an optimizer needs.


@pytest.mark.parametrize("mode", MODES)
def test_the_learning_rate_of_the_last_step(mode):
    optimizer = Momentum(0.5)
    w = variable(START)
    step = stepper(optimizer, [w], mode)
    assert optimizer._last_learning_rate is None
    optimizer.learning_rate = 0.25
    assert optimizer._last_learning_rate is None
    step([GRADIENTS[0]])
    assert optimizer._last_learning_rate == 0.25
    optimizer.learning_rate = 0.125
    optimizer.learning_rate = 0.75
    assert optimizer._last_learning_rate == 0.25
    step([GRADIENTS[1]])
    assert optimizer._last_learning_rate == 0.75
    scheduled = Momentum(lambda step: 1 / (1 + step))
    assert scheduled._last_learning_rate is None
    step = stepper(scheduled, [w], mode)
    for g in GRADIENTS[:2]:
        step([g])
    assert scheduled._last_learning_rate == 0.5


def test_the_learning_rate_of_the_last_step_is_unknown_after_loading(tmp_path):
    x, y = small_data()
    model = small_model()
    model.compile(Momentum(0.5), loss="mse")
    model.fit(x, y, verbose=0)
    model.optimizer.learning_rate = 0.25
    assert model.optimizer._last_learning_rate == 0.5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer._last_learning_rate is None
    loaded.fit(x, y, verbose=0)
    assert loaded.optimizer._last_learning_rate == 0.25
