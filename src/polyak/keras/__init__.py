"""Polyak for Keras, on its TensorFlow, JAX and PyTorch backends.

    import polyak.keras

    optimizer = polyak.keras.Momentum(learning_rate=0.1, momentum=0.9)

The optimizers here are `keras.optimizers.Optimizer`s: they serve in `model.compile`, in a GradientTape loop, in
`stateless_apply` and under `tf.distribute`, and they are saved in `.keras` files.
"""

from polyak.keras.momentum import Momentum

__all__ = ["Momentum"]
