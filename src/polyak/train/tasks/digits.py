"""The handwritten digits that scikit-learn ships: 1,797 images of 8x8 pixels, ten classes.

They are the test set of E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
1998. Nothing is downloaded.
"""

import numpy as np

from polyak.train.tasks.task import Data, Model, Splits, Task

TEST, VALIDATION, TRAIN = 357, 160, 1280
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices of the training, validation and test images.

    Stratified by class, and fixed: no option or seed changes it, so that any two runs share their test images.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=0)
    return train, validation, test


def shifted(data: Data) -> Data:
    """The images, and each of them moved by one pixel up, down, left and right, with empty pixels moving in.

    1,280 images are few: without this, a network learns where the pen was rather than the shape it drew.
    """
    h, w = data.images.shape[1:3]
    padded = np.pad(data.images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    images = [padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in SHIFTS]
    return Data(np.concatenate(images), np.tile(data.labels, len(SHIFTS)))


def load() -> Splits:
    """The digits with pixels scaled from 0..16 to [0, 1], and the training images in all their shifts."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int32)
    train, validation, test = (Data(images[i], labels[i]) for i in split())
    return Splits(shifted(train), validation, test)


def mlp() -> Model:
    """Two hidden layers of 512."""
    import keras

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ],
        name="mlp",
    )


def cnn() -> Model:
    """Two convolutions and one hidden layer of 64."""
    import keras

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
        ],
        name="cnn",
    )


DIGITS = Task(
    name="digits",
    about="1,797 handwritten digits of 8x8 pixels (scikit-learn), in ten classes",
    train_size=TRAIN * len(SHIFTS),
    load=load,
    models={"mlp": mlp, "cnn": cnn},
)
