"""`polyak.schedules` on each Keras backend: the bits of NumPy, eager and compiled, and the numbering of steps."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_support import BACKEND, MODES, numpy, run, stepper, variable
from polyak.keras import Momentum
from polyak.schedules import linear, piecewise
from schedule_cases import CASES, assert_same_bits, steps_of


def compilers():
    """How this backend compiles a function of an array, and scalars in a loop, by name."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def loop(f):
            return lambda x: tf.map_fn(f, x, fn_output_signature=tf.float32)

        return {
            "graph": lambda f: tf.function(f, autograph=False),
            "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
            "scalars, graph": lambda f: tf.function(loop(f), autograph=False),
            "scalars, xla": lambda f: tf.function(loop(f), autograph=False, jit_compile=True),
            "fused, graph": lambda f: tf.function(lambda x: (f(x), f(x) * 0.9 + 0.1)[0], autograph=False),
        }
    if BACKEND == "jax":
        import jax

        return {"jit": jax.jit, "scalars, jit": lambda f: jax.jit(lambda x: jax.lax.map(f, x))}
    return {}


@pytest.mark.parametrize("dtype", ["int64" if BACKEND != "jax" else "int32", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_same_bits_as_numpy(name, dtype):
    """Of all steps. In a graph without XLA, TensorFlow would reorder the sums, and round them otherwise."""
    schedule, steps = CASES[name][0], steps_of(name)
    traced = ops.convert_to_tensor(steps, dtype)
    expected = schedule(steps)
    for how, compiled in {"eager": lambda f: f, **compilers()}.items():
        if dtype != "float32" and how not in ("eager", "xla", "jit"):
            continue  # Keras gives float32, and others are whole numbers at once
        assert_same_bits(numpy(compiled(schedule)(traced)), expected, how)


STAIRS = piecewise((1, 2, 4), (1.0, 0.5, 0.25, 0.125))


@pytest.mark.parametrize("mode", MODES)
def test_the_first_update_takes_the_value_of_step_0(mode):
    weights = run(Momentum(STAIRS, 0.0), [0.0], np.ones((5, 1)), mode)
    np.testing.assert_array_equal(weights[:, 0], -np.cumsum([1.0, 0.5, 0.25, 0.25, 0.125]))


@pytest.mark.parametrize("mode", MODES)
def test_learning_rate_and_momentum_in_a_compiled_step(mode):
    """Velocities and rates with few bits, so that the weights are exact."""
    momentum = piecewise((1, 3), (0.5, 0.25, 0.75))
    weights = run(Momentum(STAIRS, momentum), [0.0], np.ones((5, 1)), mode)
    w, v = 0.0, 0.0
    for t in range(5):
        v = momentum(t) * v + 1
        w -= STAIRS(t) * v
        assert weights[t, 0] == w


@pytest.mark.parametrize("mode", MODES)
def test_a_schedule_is_traced_first_inside_the_compiled_step(mode):
    """One that was not called before: what it makes for TensorFlow must not belong to the graph it was made in."""
    schedule = linear(0.5, 0.0, 8 + 8 * MODES.index(mode))
    for _ in range(2):
        w = variable([0.0])
        stepper(Momentum(schedule, 0.0), [w], mode)([np.ones(1, "float32")])
        assert numpy(w) == -0.5
    assert float(schedule(ops.convert_to_tensor(4.0))) == schedule(4)


def test_the_iterations_of_an_optimizer_are_a_step():
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([variable([0.0])])
    assert float(STAIRS(ops.convert_to_tensor(optimizer.iterations))) == 1.0
