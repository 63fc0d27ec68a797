"""Groups of variables by name, with numbers of their own."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from polyak import groups
from polyak.groups import Given
from polyak.keras.hyperparameters import checked
from polyak.methods import Method


def path_of(variable: Any) -> str:
    """The name of a variable among all of a model: its path, such as "dense/kernel"."""
    path: str = getattr(variable, "path", variable.name)  # the tf.Variable of a loop of one's own has none
    return path


class Groups(groups.Groups):
    """Patterns of the paths of variables.

    Args:
        given: For each pattern, the numbers that differ.
        method: The method, whose varying arguments may differ.
        decay: The kind of the weight decay, whose coefficient may differ.

    Raises:
        ValueError: No regular expression, an argument that cannot differ, or a number out of its range.
        TypeError: Another type than these.
    """

    def __init__(self, given: Given | None, method: Method, decay: Any) -> None:
        super().__init__(given, method, decay, _checked)

    def of(self, variables: Sequence[Any]) -> tuple[int, ...]:
        """The group of each variable, counted from 1; 0 for a variable in none.

        Raises:
            ValueError: A pattern that is the first for no variable.
        """
        return self.of_names(list(map(path_of, variables)))

    def get_config(self) -> dict[str, dict[str, Any]] | None:
        """The groups as they can be saved."""
        return {pattern: {n: serialized(x) for n, x in numbers.items()} for pattern, numbers in self.overrides.items()} or None


def serialized(value: Any) -> Any:
    """A number as it is, a schedule as Keras writes it."""
    return keras.optimizers.schedules.serialize(value) if isinstance(value, LearningRateSchedule) else value


def deserialized(value: Any, custom_objects: Any) -> Any:
    """What `serialized` was given."""
    return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects) if isinstance(value, dict) else value


def _checked(name: str, value: Any, check: Any) -> Any:
    return check(value) if name == "weight_decay" else checked(name, value, check)
