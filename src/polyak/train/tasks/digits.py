"""The handwritten digits that scikit-learn ships: 1,797 images of 8x8 pixels, ten classes.

They are the test set of E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
1998. Nothing is downloaded.
"""

import numpy as np
from numpy.typing import NDArray

from polyak.train.models import Ends, choices
from polyak.train.tasks.target import classification
from polyak.train.tasks.task import Arrays, Model, Numbers, Task

TEST, VALIDATION, TRAIN = 357, 160, 1280
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
CLASSES = tuple("0123456789")


def split() -> tuple[Numbers, Numbers, Numbers]:
    """The numbers of the training, validation and test images.

    Stratified by class, and fixed: no option or seed changes it, so that any two runs share their test images.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=0)
    return train, validation, test


def shifted(images: NDArray[np.float32], labels: NDArray[np.int32]) -> Arrays:
    """The images, and each of them moved by one pixel up, down, left and right, with empty pixels moving in.

    1,280 images are few: without this, a network learns where the pen was rather than the shape it drew.
    """
    h, w = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in SHIFTS]
    return Arrays(np.concatenate(moved), np.tile(labels, len(SHIFTS)))


def digits() -> Task:
    """The digits with pixels scaled from 0..16 to [0, 1], and the training images in all their shifts."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    labels = data.target.astype(np.int32)
    train, validation, test = split()
    goal = classification(CLASSES)
    return goal.task(
        name="digits",
        about="1,797 handwritten digits of 8x8 pixels (scikit-learn), in ten classes",
        train=shifted(images[train], labels[train]),
        validation=Arrays(images[validation], labels[validation]),
        test=Arrays(images[test], labels[test]),
        models={"cnn": cnn, "mlp": mlp} | choices(Ends((8, 8, 1), (), goal), ("resnet",)),
    )


def mlp() -> Model:
    """Two hidden layers of 512."""
    import keras

    from polyak.train.layers import Classes

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
            Classes(list(CLASSES), name="classes"),
        ],
        name="mlp",
    )


def cnn() -> Model:
    """Two convolutions and one hidden layer of 64."""
    import keras

    from polyak.train.layers import Classes

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
            Classes(list(CLASSES), name="classes"),
        ],
        name="cnn",
    )
