"""Half and double precision."""

import keras
import numpy as np
import pytest
from keras import ops

import textbook
from keras_support import BACKEND, MODES, numpy, small_data, small_model, stepper, variable
from polyak.keras import Momentum


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_variables_have_float32_velocities(dtype, mode):
    w = variable(np.ones(3), dtype=dtype)
    optimizer = Momentum(2.0**-10, momentum=0.5)
    step = stepper(optimizer, [w], mode)
    gradient = ops.cast(ops.convert_to_tensor(np.array([1.0, 2.0, 4.0], "float32")), dtype)
    for _ in range(2):
        step([gradient])
    velocity = optimizer.variables[-1]
    assert keras.backend.standardize_dtype(velocity.dtype) == "float32"
    assert keras.backend.standardize_dtype(w.dtype) == dtype
    np.testing.assert_array_equal(numpy(velocity), [1.5, 3.0, 6.0])
    # Each step is computed in float32 and rounded once, when it is stored.
    expected = np.ones(3, "float32")
    for factor in (1.0, 1.5):
        expected = numpy(ops.cast(ops.cast(expected - 2.0**-10 * factor * np.array([1, 2, 4], "float32"), dtype), "float32"))
    np.testing.assert_array_equal(numpy(ops.cast(w, "float32")), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_velocity_in_float32_keeps_what_bfloat16_would_lose(mode):
    """1 + 2^-9 is 1 in bfloat16: a velocity in that type would not grow any more."""
    w = variable(np.zeros(1), dtype="bfloat16")
    optimizer = Momentum(1.0, momentum=0.5, dampening=0.5)
    step = stepper(optimizer, [w], mode)
    for g in (2.0, 2.0**-9):
        step([ops.cast(ops.convert_to_tensor(np.array([g], "float32")), "bfloat16")])
    np.testing.assert_array_equal(numpy(optimizer.variables[-1]), [0.5 + 2.0**-10])


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has float64 only with a process-wide switch")
@pytest.mark.parametrize("mode", MODES)
def test_double_precision(mode):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(4), rng.standard_normal((20, 4))
    w = variable(start, dtype="float64")
    step = stepper(Momentum(0.125, momentum=0.875, nesterov=True), [w], mode)  # exact in float32, which Keras keeps them in
    for g in gradients:
        step([g])
    expected, _ = textbook.train("gradient_nesterov", start, gradients, lr=0.125, m=0.875)
    np.testing.assert_allclose(numpy(w), expected[-1], rtol=1e-12)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_mixed_precision(policy):
    x, y = small_data()
    model = small_model(dtype=policy)
    model.compile(Momentum(0.05, 0.9), loss="mse")
    if policy == "mixed_float16":
        # compile() wraps for a float16 policy only when it is the global one.
        model.compile(keras.optimizers.LossScaleOptimizer(Momentum(0.05, 0.9), initial_scale=2.0**10), loss="mse")
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


def test_loss_scale_optimizer_skips_a_step_that_is_not_finite():
    optimizer = keras.optimizers.LossScaleOptimizer(Momentum(0.5, 0.5), initial_scale=4.0)
    w = variable([1.0])
    step = stepper(optimizer, [w], MODES[-1])  # compiled: on JAX it works only there
    step([np.array([4.0], "float32")])
    step([np.array([np.inf], "float32")])
    np.testing.assert_array_equal(numpy(w), [0.5])
    step([np.array([2.0], "float32")])  # the scale is 2 now
    np.testing.assert_array_equal(numpy(w), [0.5 - 0.5 * 1.5])
