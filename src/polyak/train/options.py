"""What a person may choose, checked before anything is loaded."""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from polyak.arguments import check_momentum
from polyak.rules import heavy_ball
from polyak.train.backends import BACKENDS
from polyak.train.tasks import TASKS


@dataclass(frozen=True)
class Options:
    """The options of a run. Making one checks all of them.

    Attributes:
        task: A name in `polyak.train.tasks.TASKS`.
        backend: What Keras computes with.
        model: One of the task's models.
        lr: The learning rate, constant over the run.
        momentum: In [0, 1).
        nesterov: Step along the look-ahead velocity.
        velocity: The unit of the velocity, see `polyak.rules.heavy_ball`.
        epochs: Passes over the training images.
        batch_size: Images a step.
        seed: Of the initial weights and the order of the images.

    Raises:
        ValueError: An option is out of range or unknown, or has no effect with the others.
    """

    task: str = "digits"
    backend: str = "tensorflow"
    model: str = "cnn"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    velocity: str = "gradient"
    epochs: int = 30
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        task = TASKS[choice("task", self.task, TASKS)]
        choice("--backend", self.backend, BACKENDS)
        choice("--model", self.model, task.models)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr must be finite and above 0; got {self.lr}. Start from 0.1.")
        heavy_ball(momentum=check_momentum(self.momentum) > 0, velocity=self.velocity, nesterov=self.nesterov)
        if self.epochs < 1:
            raise ValueError(f"--epochs must be at least 1; got {self.epochs}.")
        if not 1 <= self.batch_size <= task.train_size:
            raise ValueError(
                f"--batch-size must be from 1 to {task.train_size}, the training images of {self.task}; got {self.batch_size}."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be from 0 to {2**32 - 1}; got {self.seed}.")


def choice(what: str, name: str, known: Iterable[str]) -> str:
    """A name that is known, or a ValueError with the known ones and the closest of them."""
    names = list(known)
    if name in names:
        return name
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(names)}.{hint}")
