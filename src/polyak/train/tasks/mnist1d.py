"""MNIST-1D: ten digits as curves of 40 numbers, generated. 4,000 to train on and 1,000 to test with.

S. Greydanus, "Scaling *down* deep learning", 2020, arXiv:2011.14439 (from 2024: S. Greydanus, D. Kobak, "Scaling down deep
learning with MNIST-1D"). A curve drawn by hand stands for each digit; an example is that curve stretched, scaled, moved,
covered with noise and sheared. A linear model finds about a third of the digits, a small convolutional network more than nine
of ten.

The templates and the steps are those of the paper's code, with its default constants. The random numbers are NumPy's newer
generator, so that the examples are others than in its file: results compare in their distribution, not one by one.
"""

import numpy as np
from numpy.typing import NDArray

from polyak.train.models import Ends, choices
from polyak.train.tasks.split import split
from polyak.train.tasks.target import classification
from polyak.train.tasks.task import Arrays, Task

TRAIN, TEST, CLASSES = 4000, 1000, tuple("0123456789")
LENGTH = 40  # numbers of an example
PADDING = (36, 60)  # zeros behind the template, of which the shortest padding stretches it the most
SCALE = 0.4  # height, from 1 - 0.2 to 1 + 0.2
SHIFT = 48  # places by which it may be moved
SMOOTH_NOISE, WHITE_NOISE = 0.25, 0.02  # standard deviations; the first before it is smoothed over 2 places
SHEAR = 0.75  # slope over the whole length, from -0.375 to 0.375

# The height of the curve at twelve places, digit by digit.
TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)


def templates() -> NDArray[np.float64]:
    """The curves, (10, 12): each with a standard deviation of 1/6, and 0 at its ends."""
    curves: NDArray[np.float64] = TEMPLATES - TEMPLATES.mean(1, keepdims=True)
    curves /= curves.std(1, keepdims=True)
    curves -= curves[:, :1].copy()
    return curves / 6


def example(curve: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """One example of a digit, (40,).

    Args:
        curve: Its template, (12,).
        rng: Where its stretch, height, place, noise and slope come from.
    """
    from scipy.ndimage import gaussian_filter1d

    x = np.concatenate([curve + 1e-8, np.zeros(rng.integers(PADDING[0], PADDING[1] + 1))])  # 1e-8: in the curve, nothing is 0
    x = resampled(x, len(curve) + PADDING[1])
    x *= 1 + SCALE * (rng.random() - 0.5)
    x = np.roll(x, rng.integers(SHIFT))
    noise = gaussian_filter1d(SMOOTH_NOISE * rng.standard_normal(len(x)), 2)
    x = np.where(x != 0, x, noise)  # around the curve
    x += WHITE_NOISE * rng.standard_normal(len(x))
    x -= SHEAR * (rng.random() - 0.5) * np.linspace(-0.5, 0.5, len(x))
    return resampled(x, LENGTH)


def resampled(x: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """As many numbers, from the first to the last, on the straight lines between the given ones."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)


def examples(seed: int = 42) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """All 5,000 examples, 500 of each digit, in random order: float32 (5000, 40) of mean 0 and deviation 1, and digits."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), (TRAIN + TEST) // len(CLASSES))
    curves = templates()
    x = np.stack([example(curves[label], rng) for label in labels])
    order = rng.permutation(len(labels))
    return ((x - x.mean()) / x.std()).astype(np.float32)[order], labels[order]


def mnist1d(validation: float, seed: int) -> Task:
    """The task. Examples and test part are the same for every seed, which only chooses the validation part of the 4,000."""
    x, y = examples()
    goal = classification(CLASSES)
    train, watched, _ = split(TRAIN, validation, seed, labels=y[:TRAIN], names=CLASSES)
    return goal.task(
        name="mnist1d",
        about="5,000 generated curves of 40 numbers that stand for digits (MNIST-1D), in ten classes",
        train=Arrays(x[train], y[train]),
        validation=Arrays(x[watched], y[watched]),
        test=Arrays(x[TRAIN:], y[TRAIN:]),
        models=choices(Ends((LENGTH,), (), goal), ("cnn", "mlp", "resnet")),
    )
