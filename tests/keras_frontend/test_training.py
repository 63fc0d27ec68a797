"""The ways in which people train with it (fit, train_on_batch, stateless_apply), and the base class's options."""

import keras
import numpy as np
import pytest
from keras import ops

import textbook
from keras_support import BACKEND, MODES, numpy, on_tensorflow, run, small_data, small_model, stepper, variable
from polyak.keras import Momentum

START = np.array([1.0, -2.0], "float32")
GRADIENTS = np.random.default_rng(0).standard_normal((12, 2)).astype("float32")
JIT = [True, False, "auto"] if BACKEND != "torch" else [False, "auto"]


@pytest.mark.parametrize("jit_compile", JIT)
def test_fit(jit_compile):
    x, y = small_data()
    model = small_model()
    model.compile(Momentum(0.05, 0.9, nesterov=True), loss="mse", jit_compile=jit_compile)
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert int(model.optimizer.iterations) == 60


def test_train_on_batch():
    x, y = small_data()
    model = small_model()
    model.compile(Momentum(0.05, 0.9), loss="mse")
    before = model.evaluate(x, y, verbose=0)
    for _ in range(50):
        model.train_on_batch(x, y)
    assert model.evaluate(x, y, verbose=0) < 0.5 * before


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless_apply there")
def test_stateless_apply_leaves_the_variables_alone():
    w = variable(START)
    optimizer = Momentum(0.5, 0.5)
    optimizer.build([w])
    state = [v.value for v in optimizer.variables]
    (w_new,), state = optimizer.stateless_apply(state, [ops.ones(2)], [w.value])
    (w_new,), state = optimizer.stateless_apply(state, [ops.ones(2)], [w_new])
    np.testing.assert_array_equal(numpy(w_new), START - 0.5 - 0.75)
    np.testing.assert_array_equal(numpy(w), START)
    assert int(state[0]) == 2
    assert int(optimizer.iterations) == 0


# Options of the base class. Gradients are then those that the option makes.


@pytest.mark.parametrize("mode", MODES)
def test_clipping(mode):
    gradients = 3 * GRADIENTS
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    for options, clipped in (
        ({"clipvalue": 0.5}, np.clip(gradients, -0.5, 0.5)),
        ({"clipnorm": 0.5}, gradients * np.minimum(1, 0.5 / norms)),
        ({"global_clipnorm": 0.5}, gradients * np.minimum(1, 0.5 / norms)),
    ):
        weights = run(Momentum(0.1, 0.9, **options), START, gradients, mode)
        expected, _ = textbook.train("gradient", START.astype(float), clipped.astype(float), lr=0.1, m=0.9)
        np.testing.assert_allclose(weights, expected, atol=3e-6)  # 12 float32 steps on weights of up to 3


@pytest.mark.parametrize("mode", MODES)
def test_the_global_norm_is_that_of_all_variables(mode):
    a, b = variable([0.0], "a"), variable([0.0], "b")
    stepper(Momentum(1.0, 0.9, global_clipnorm=1.0), [a, b], mode)([np.array([3.0], "float32"), np.array([4.0], "float32")])
    np.testing.assert_allclose([numpy(a), numpy(b)], [[-0.6], [-0.8]], rtol=1e-6)  # a few roundings


@pytest.mark.parametrize("mode", MODES)
def test_gradient_accumulation(mode):
    weights = run(Momentum(0.1, 0.9, gradient_accumulation_steps=3), START, GRADIENTS, mode)
    averages = GRADIENTS.astype(float).reshape(4, 3, 2).mean(1)
    expected, _ = textbook.train("gradient", START.astype(float), averages, lr=0.1, m=0.9)
    np.testing.assert_allclose(weights[2::3], expected, atol=3e-6)
    np.testing.assert_array_equal(weights[0], START)
    np.testing.assert_array_equal(weights[3], weights[2])


@pytest.mark.parametrize("mode", MODES)
def test_loss_scale_factor(mode):
    weights = run(Momentum(0.1, 0.9, loss_scale_factor=1024.0), START, 1024 * GRADIENTS, mode)
    np.testing.assert_array_equal(weights, run(Momentum(0.1, 0.9), START, GRADIENTS, mode))  # a power of two: exact


@pytest.mark.parametrize("mode", MODES)
def test_moving_average_of_the_weights(mode):
    optimizer = Momentum(0.1, 0.9, use_ema=True, ema_momentum=0.5)
    w = variable(START)
    step = stepper(optimizer, [w], mode)
    average = START.astype(float)
    for t, g in enumerate(GRADIENTS):
        step([g])
        average = (0.5 * average + 0.5 * numpy(w)) if t else numpy(w).astype(float)
    optimizer.finalize_variable_values([w])
    np.testing.assert_allclose(numpy(w), average, rtol=1e-5)  # 12 float32 averages


@pytest.mark.parametrize("mode", MODES)
def test_the_moving_average_overwrites_the_weights(mode):
    optimizer = Momentum(0.5, 0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    weights = run(optimizer, [0.0], [[1.0], [1.0], [1.0]], mode)
    # Velocities 1, 1.5, 1.75. Second step: -0.5 - 0.75 = -1.25, averaged with -0.5 and put in its place.
    np.testing.assert_array_equal(weights, [[-0.5], [-0.875], [-1.75]])


@on_tensorflow
@pytest.mark.parametrize("clip", [{}, {"clipvalue": 0.5}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}])
def test_sparse_gradients_give_exactly_the_result_of_dense_ones(clip):
    """Rows that are repeated, and rows that are absent and still move by their velocity, decay and count in the norm."""
    import tensorflow as tf

    start = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    steps = [([0, 2, 2], 1.0), ([4, 0, 4], -2.0), ([1, 1, 1], 0.5)]

    def train(dense):
        table = tf.Variable(start)
        optimizer = Momentum(0.1, 0.9, weight_decay=0.01, decay="coupled", **clip)
        for rows, scale in steps:
            with tf.GradientTape() as tape:
                loss = scale * tf.reduce_sum(tf.gather(table, rows) ** 2)
            (gradient,) = tape.gradient(loss, [table])
            assert isinstance(gradient, tf.IndexedSlices)
            optimizer.apply([tf.convert_to_tensor(gradient) if dense else gradient], [table])
        return table.numpy()

    np.testing.assert_array_equal(train(dense=False), train(dense=True))


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_an_embedding_trains(jit_compile):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Embedding(10, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
    x = np.arange(10).reshape(10, 1)
    model.compile(Momentum(0.05, 0.9), loss="mse", jit_compile=jit_compile)
    losses = model.fit(x, x % 2, epochs=50, verbose=0).history["loss"]
    assert losses[-1] < 0.01 < losses[0]


# Errors.


def test_wrong_arguments():
    for options, message in (
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\); got -0.1"),
        ({"learning_rate": -0.1}, "learning_rate must be finite and at least 0; got -0.1"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov=True has no effect with momentum=0"),
        ({"nesterov": True, "dampening": 0.5}, "nesterov=True takes no dampening"),
        ({"weight_decay": 0.1}, "weight_decay=0.1 needs decay"),
        ({"decay": "coupled"}, "has no effect with weight_decay=0"),
        ({"velocity": "speed"}, "velocity must be one of"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
    ):
        with pytest.raises(ValueError, match=message):
            Momentum(**options)
    with pytest.raises(TypeError, match=r"momentum must be a number; got '0\.9'"):
        Momentum(momentum="0.9")
    with pytest.raises(TypeError, match="unexpected keyword argument 'damping'"):
        Momentum(damping=0.5)


def test_variables_it_was_not_built_with():
    optimizer = Momentum(0.1)
    optimizer.build([variable(START)])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([ops.ones(2)], [variable(START, "other")])


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_of_another_shape(mode):
    """It would broadcast, and train something else than what was meant."""
    step = stepper(Momentum(0.1), [variable(np.ones((3, 2)))], mode)
    with pytest.raises(ValueError, match=r"gradient of shape \(2,\) was given for a weight of shape \(3, 2\)"):
        step([np.ones(2, "float32")])


def test_a_variable_given_twice():
    w = variable(START)
    with pytest.raises(ValueError, match="more than once"):
        Momentum(0.1).apply([ops.ones(2), ops.ones(2)], [w, w])
