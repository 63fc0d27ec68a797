"""What a person may choose, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from polyak.train.backends import BACKENDS
from polyak.train.checkpoints import Every
from polyak.train.optimizers import OPTIMIZERS, checked
from polyak.train.settings import plain
from polyak.train.words import choice

# A choice of its own where --batch-size is not given: as large as serves for speed, and so small that an epoch has some steps.
USUAL_BATCH, LEAST_BATCH, STEPS_WANTED = 256, 8, 20

# The flags that are settings of the optimizer too, and what they are called there.
SHORTCUTS = {"lr": "learning_rate", "momentum": "momentum", "nesterov": "nesterov"}


@dataclass(frozen=True)
class Options:
    """The options of a run. Making one checks all of them, but for what depends on the data.

    Attributes:
        task: What to learn: a built-in task, a path, or module:function; see `polyak.train.tasks.find`.
        target: The column of a table that is to be learned.
        validation: Share of the examples to watch and not to train on, in (0, 1).
        backend: What Keras computes with.
        model: One of the task's models; "" for its first.
        optimizer: A name in `polyak.train.optimizers.OPTIMIZERS`.
        settings: What is set of the optimizer, by name: numbers, true and false, texts, lists and tables. A schedule is a text,
            "cosine(0.1, warmup=100)".
        lr: The same as the setting learning_rate, for a number.
        momentum: The same as the setting momentum, for a number.
        nesterov: The same as the setting nesterov.
        epochs: Passes over the training examples.
        batch_size: Examples a step; 0 to choose by how many there are.
        seed: Of the initial weights, the validation part and the order of the examples.
        checkpoint: When, beside the end of each epoch: "epoch" for never, "500 steps", "5 minutes".
        keep: How many checkpoints are kept.
        record: What the optimizer did is recorded every so many steps; 0 to choose by the length of the run.
        tensorboard: Write event files for TensorBoard too.

    Raises:
        ValueError: An option is out of range or unknown, or has no effect with the others.
        TypeError: An option is of another type.
    """

    task: str = "digits"
    target: str | None = None
    validation: float = 0.2
    backend: str = "tensorflow"
    model: str = ""
    optimizer: str = "momentum"
    settings: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    epochs: int = 30
    batch_size: int = 0
    seed: int = 0
    checkpoint: str = "epoch"
    keep: int = 3
    record: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, of_type(name, value))
        choice("--backend", self.backend, BACKENDS)
        choice("--optimizer", self.optimizer, OPTIMIZERS)
        for flag, setting in SHORTCUTS.items():
            if getattr(self, flag) is not None and setting in self.settings:
                raise ValueError(f"--{flag} {getattr(self, flag)} is the same as --set {setting}: give one of the two.")
        checked(self.optimizer, self.chosen)
        for name, least in (("epochs", 1), ("batch_size", 0), ("keep", 1), ("record", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{flag_of(name)} must be at least {least}; got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be from 0 to {2**32 - 1}; got {self.seed}.")
        if not 0 < self.validation < 1:
            raise ValueError(f"--validation is a share of the examples, between 0 and 1; got {self.validation}. 0.2 is usual.")
        Every.parse(self.checkpoint)

    @property
    def chosen(self) -> dict[str, Any]:
        """What was set of the optimizer, the shortcuts by the names that they have there."""
        given = {setting: getattr(self, flag) for flag, setting in SHORTCUTS.items() if getattr(self, flag) is not None}
        return {**given, **self.settings}

    def for_examples(self, count: int | None) -> "Options":
        """These options with a batch size, for so many training examples; None for data that come in batches.

        Raises:
            ValueError: The batch size that was given does not fit.
        """
        if count is None:
            if self.batch_size:
                raise ValueError(f"{self.task} makes its own batches: leave --batch-size {self.batch_size} out.")
            return self
        if self.batch_size > count:
            raise ValueError(
                f"--batch-size must be from 1 to {count}, the training examples of {self.task}; got {self.batch_size}."
            )
        return self if self.batch_size else replace(self, batch_size=batch_size_for(count))


def batch_size_for(count: int) -> int:
    """The batch size for so many examples: a power of two."""
    size = USUAL_BATCH
    while size > LEAST_BATCH and size * STEPS_WANTED > count:
        size //= 2
    return min(size, count)


def flag_of(name: str) -> str:
    """What a field is on the command line."""
    return {"task": "TASK", "settings": "--set"}.get(name, "--" + name.replace("_", "-"))


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "Mapping": (Mapping, "a table of settings"),
}


def of_type(name: str, value: Any) -> Any:
    """The value of a field, of the type that it has.

    Raises:
        TypeError: It is of another type.
        ValueError: A text that no file can hold.
    """
    annotation = Options.__annotations__[name]
    optional = "None" in str(annotation)
    if optional and value is None:
        return None
    word = getattr(annotation, "__name__", str(annotation)).partition(" |")[0]
    kind, wanted = _KINDS[word]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{flag_of(name)} must be {wanted}; got {value!r}.")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # a path in another encoding, which config.toml could not hold
            raise ValueError(f"{flag_of(name)} {value!r} is not UTF-8: give the file another name.") from None
    return plain(value) if kind is Mapping else float(value) if word == "float" else value
