"""A model and data of one's own, trained by `polyak train` with everything that it has: checkpoints, --resume, the report.

In this folder:

    polyak train own_task:build --optimizer lion --epochs 20 --out runs/spirals

The data are points on two spirals that wind around each other. The model is a stack of residual blocks, written as a layer.
"""

import keras
import numpy as np


@keras.saving.register_keras_serializable("own_task")  # so that `polyak predict`, which imports this file, can load the model
class Residual(keras.layers.Layer):
    """x + what a hidden layer makes of it."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        """Make the weights."""
        self.hidden = keras.layers.Dense(self.width, activation="tanh")
        self.back = keras.layers.Dense(shape[-1])
        self.hidden.build(shape)
        self.back.build((*shape[:-1], self.width))

    def call(self, x):
        """Points (batch, width), and what the weights add to them."""
        return x + self.back(self.hidden(x))

    def get_config(self):
        """What a saved model needs to make this layer again."""
        return {**super().get_config(), "width": self.width}


def spirals(n, rng):
    """Points (n, 2) and the spiral, 0 or 1, that each is on."""
    which = rng.integers(0, 2, n)
    turn = np.sqrt(rng.random(n)) * 3 * np.pi
    angle = turn + np.pi * which
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / (3 * np.pi)
    return (points + 0.02 * rng.standard_normal((n, 2))).astype("float32"), which.astype("int32")


def build():
    """The task. The same data at each call: this is what --resume rests on."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(32), *(Residual(32) for _ in range(4)), keras.layers.Dense(2)],
        name="spirals",
    )
    return {
        "model": model,
        "data": (spirals(2000, rng), spirals(500, rng)),  # to train on, to validate on
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }
