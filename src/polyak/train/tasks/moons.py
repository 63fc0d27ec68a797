"""Two half circles that reach into each other, with noise: the smallest task that no straight line solves."""

import numpy as np

from polyak.train.models import Ends, choices
from polyak.train.tasks.split import split
from polyak.train.tasks.target import classification
from polyak.train.tasks.task import Arrays, Task

TRAIN, TEST, NOISE = 1000, 1000, 0.2


def moons(validation: float, seed: int) -> Task:
    """The task. Points and test part are the same for every seed, which chooses the validation part of the first thousand."""
    from sklearn.datasets import make_moons

    x, y = make_moons(TRAIN + TEST, noise=NOISE, random_state=0)
    x, y = x.astype(np.float32), y.astype(np.int32)
    goal = classification(("upper", "lower"))
    train, watched, _ = split(TRAIN, validation, seed, labels=y[:TRAIN], names=goal.classes or ())
    return goal.task(
        name="two-moons",
        about=f"2,000 points in the plane on two half circles with noise of {NOISE} (scikit-learn), in two classes",
        train=Arrays(x[train], y[train]),
        validation=Arrays(x[watched], y[watched]),
        test=Arrays(x[TRAIN:], y[TRAIN:]),
        models=choices(Ends((2,), (), goal), ("mlp",)),
    )
