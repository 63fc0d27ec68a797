"""The networks that tasks choose from: mlp, cnn and resnet. Small, and normalised, so that they bear a large learning rate."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyak.train.tasks.target import Goal

Model = Any  # a keras.Model
Layer = Any


@dataclass(frozen=True)
class Ends:
    """What a network has to fit to.

    Attributes:
        shape: Of one example as it comes.
        before: Functions that make the layers which prepare an example. What they give has the shape (features,),
            (length, channels) or (height, width, channels).
        goal: What it has to give.
        dtype: Of an example as it comes.
    """

    shape: tuple[int, ...]
    before: tuple[Callable[[], Layer], ...]
    goal: "Goal"
    dtype: str = "float32"


def choices(ends: Ends, names: tuple[str, ...]) -> dict[str, Callable[[], Model]]:
    """Functions that build these networks, by name."""
    return {name: partial(build, name, ends) for name in names}


def build(name: str, ends: Ends) -> Model:
    """Build a network.

    Args:
        name: mlp, cnn or resnet.
        ends: What it fits to.
    """
    import keras

    x = inputs = keras.Input(ends.shape, dtype=ends.dtype)
    for layer in ends.before:
        x = layer()(x)
    x = BODIES[name](x)
    if ends.goal.kind == "regression":
        # The curvature of a squared error is the squared length of what the last weights see, 64 of 128 normalised numbers: too
        # much for a learning rate of 0.1. Divided by the root of their count it is 1/2, whatever the count.
        x = keras.layers.Rescaling(x.shape[-1] ** -0.5, name="length")(x)
    x = keras.layers.Dense(ends.goal.width, name="output")(x)
    for layer in ends.goal.after:
        x = layer()(x)
    return keras.Model(inputs, x, name=name)


def normalised(x: Any, layer: Layer) -> Any:
    """A layer of weights, normalised over the batch. It needs no bias: the normalisation has one.

    The statistics that validation uses keep 0.9 a step, as in PyTorch, and not Keras's 0.99: after the few dozen steps that an
    epoch of small data has, those would still be half of what they started with.
    """
    import keras

    return keras.layers.BatchNormalization(momentum=0.9)(layer(x))


def mlp(x: Any) -> Any:
    """Two hidden layers of 128, each normalised over its units: so it is the same for a batch of one row as for a thousand.

    They have biases: without, normalised units know only the direction of a point, and not how far out it is.
    """
    import keras

    if len(x.shape) > 2:
        x = keras.layers.Flatten()(x)
    for _ in range(2):
        x = keras.layers.LayerNormalization()(keras.layers.Dense(128)(x))
        x = keras.layers.Dropout(0.1)(keras.layers.ReLU()(x))
    return x


def cnn(x: Any) -> Any:
    """Convolutions with 32, 64, 128, 128 ... channels, each of which halves the sides until 6 are left, and 64 hidden units."""
    import keras

    x, convolution, pool, _ = spatial(x)
    for channels in chain((32, 64), repeat(128)):
        x = keras.layers.ReLU()(normalised(x, convolution(channels, 3, padding="same", use_bias=False)))
        x = pool(tuple(2 if side > 1 else 1 for side in x.shape[1:-1]))(x)
        if channels > 32 and max(x.shape[1:-1]) <= 6:
            break
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    return keras.layers.ReLU()(normalised(x, keras.layers.Dense(64, use_bias=False)))


def resnet(x: Any) -> Any:
    """Three stages of two residual blocks with 16, 32 and 64 channels, and the mean over all places.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016: the network that they have for
    32x32 pixels, with shortcuts by 1x1 convolutions.
    """
    import keras

    x, convolution, _, mean = spatial(x)
    x = keras.layers.ReLU()(normalised(x, convolution(16, 3, padding="same", use_bias=False)))
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(2):
            strides = 2 if stage and not block and min(x.shape[1:-1]) > 1 else 1
            y = normalised(x, convolution(channels, 3, strides=strides, padding="same", use_bias=False))
            y = normalised(keras.layers.ReLU()(y), convolution(channels, 3, padding="same", use_bias=False))
            if x.shape != y.shape:
                x = normalised(x, convolution(channels, 1, strides=strides, use_bias=False))
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    return mean()(x)


def spatial(x: Any) -> tuple[Any, Layer, Layer, Layer]:
    """Examples with a place for channels, and the layers for their number of sides: convolution, pooling, mean."""
    import keras

    if len(x.shape) == 2:
        x = keras.layers.Reshape((*x.shape[1:], 1))(x)
    sides = len(x.shape) - 2
    one = (keras.layers.Conv1D, keras.layers.MaxPooling1D, keras.layers.GlobalAveragePooling1D)
    two = (keras.layers.Conv2D, keras.layers.MaxPooling2D, keras.layers.GlobalAveragePooling2D)
    convolution, pool, mean = one if sides == 1 else two
    return x, partial(convolution, kernel_initializer="he_normal"), pool, mean


BODIES = {"mlp": mlp, "cnn": cnn, "resnet": resnet}
