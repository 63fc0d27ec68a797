"""A model of nothing but weights: Keras pickles and copies an optimizer with the model that is compiled with it."""

from collections.abc import Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable("polyak.check")
class Weights(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Weights by their names.

    Args:
        shapes: For each name, the shape and the dtype.
    """

    def __init__(self, shapes: Mapping[str, tuple[list[int], str]], **base: Any) -> None:
        super().__init__(**base)
        for name, (shape, dtype) in shapes.items():
            self.add_weight(tuple(shape), name=name, dtype=dtype)
        self._config = {"shapes": {name: list(both) for name, both in shapes.items()}}
        self.built = True

    def call(self, x: Any) -> Any:
        """Nothing; the weights are for the optimizer alone."""
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this model again."""
        return {**super().get_config(), "shapes": {name: list(both) for name, both in self._config["shapes"].items()}}
