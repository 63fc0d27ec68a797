"""What the tests of the Keras front-end share."""

import keras
import numpy as np
import pytest
from keras import ops

import polyak.keras
import textbook

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow alone")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="about JAX alone")


# For each rule that is not `Momentum`'s: how to make it, by a learning rate of 0.1 and options, and the same for the textbook.
RULES = {
    "qhm": (lambda **options: polyak.keras.QHM(0.1, 0.9, 0.75, **options), {"m": 0.9, "nu": 0.75}),
    "aggmo_1": (lambda **options: polyak.keras.AggMo(0.1, (0.9,), **options), {"momenta": (0.9,)}),
    "aggmo_3": (lambda **options: polyak.keras.AggMo(0.1, (0.0, 0.5, 0.95), **options), {"momenta": (0.0, 0.5, 0.95)}),
    "signum": (lambda **options: polyak.keras.Signum(0.1, 0.9, **options), {"m": 0.9}),
    "sign_descent": (lambda **options: polyak.keras.Signum(0.1, 0, **options), {}),
    "lion": (lambda **options: polyak.keras.Lion(0.1, 0.8, 0.95, **options), {"b1": 0.8, "b2": 0.95}),
    "schedule_free": (
        lambda **options: polyak.keras.ScheduleFree(0.1, 0.9, **options),
        {"m": 0.9, "c": [float(c) for c in textbook.average_weights(0, 20)]},
    ),
}


def variable(value, name="w", dtype="float32"):
    return keras.Variable(np.asarray(value), name=name, dtype=dtype)


def numpy(x):
    return ops.convert_to_numpy(x)


def stepper(optimizer, variables, mode):
    """A function that makes one step by a list of gradients, as a plain loop does or in code that the framework compiled."""
    optimizer.build(variables)
    if mode == "loop":
        return lambda grads: optimizer.apply([ops.convert_to_tensor(g) for g in grads], variables)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda grads: optimizer.apply(grads, variables), jit_compile=mode == "xla", autograph=False)
        return lambda grads: compiled([tf.convert_to_tensor(g) for g in grads])
    if BACKEND == "jax":
        import jax

        apply = jax.jit(optimizer.stateless_apply)

        def step(grads):
            state = [v.value for v in optimizer.variables]
            new, state = apply(state, [ops.convert_to_tensor(g) for g in grads], [v.value for v in variables])
            for v, value in zip([*variables, *optimizer.variables], [*new, *state], strict=True):
                v.assign(value)

        return step
    raise LookupError(mode)


# How the optimizer can be run on this backend.
MODES = {"tensorflow": ["loop", "graph", "xla"], "jax": ["loop", "jit"], "torch": ["loop"]}[BACKEND]


def run(optimizer, start, gradients, mode="loop"):
    """The weight after each step of a list of gradients."""
    w = variable(start)
    step = stepper(optimizer, [w], mode)
    weights = []
    for g in gradients:
        step([np.asarray(g, "float32")])
        weights.append(numpy(w).copy())
    return np.array(weights)


def state_of(optimizer, variables):
    """Copies of the weights and of the optimizer's slots."""
    return [numpy(v).copy() for v in [*variables, *(slot for slots in optimizer._state.slots for slot in slots)]]


def small_model(layers=(8,), dtype=None):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(n, activation="tanh", dtype=dtype) for n in layers]
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(1, dtype=dtype)])


def small_data(n=64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 4)).astype("float32")
    return x, (x[:, :1] * x[:, 1:2]).astype("float32")
