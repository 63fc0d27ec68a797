"""The layers and the loss of saved models. Importing this makes Keras know them, and the optimizers of `polyak.keras` too.

import keras
import polyak.train.layers
model = keras.models.load_model("runs/first/model.keras")
"""

from typing import Any

import keras

import polyak.keras  # noqa: F401  (so that a saved optimizer is known)
from polyak.train.tasks.columns import Column, columns_from, columns_to
from polyak.train.tasks.picture import PictureForm

__all__ = ["Classes", "Columns", "Pictures", "ScaledSquaredError"]

ops = keras.ops


@keras.saving.register_keras_serializable("polyak")
class Columns(keras.layers.Layer):
    """The cells of a table, as `polyak.train.tasks.columns.cells` makes them of raw columns, to numbers near 1.

    A number is divided by its spread, a missing one is 0 with a mark beside it; a category becomes one number for each that was
    seen in training, of which one is 1, or none for a category never seen.

    Args:
        columns: The columns, as `columns_to` writes them or as they are. They hold all that turns raw columns into cells.

    Shapes: (batch, cells) float32 -> (batch, features) float32.
    """

    def __init__(self, columns: list[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns: list[Column] = columns_from(columns)
        places: list[int] = []
        spreads: list[float] = []
        marks: list[int] = []
        category_places: list[int] = []
        category_numbers: list[int] = []
        place = 0
        for column in self.columns:
            if column.kind == "category":
                slots = column.slots
                category_places += [place] * len(slots)
                category_numbers += range(len(slots))
            else:
                places += range(place, place + column.cells)
                spreads += [column.spread] + [1.0] * (column.cells - 1)
                marks += [place] * column.missing
            place += column.cells
        self._cells = place
        self._places, self._spreads, self._marks = places, spreads, marks
        self._category_places, self._category_numbers = category_places, category_numbers

    @property
    def features(self) -> int:
        """Numbers that an example becomes."""
        return len(self._places) + len(self._marks) + len(self._category_places)

    def call(self, cells: Any) -> Any:
        """Scale, mark, and part the categories."""
        parts = []
        if self._places:
            numbers = ops.take(cells, self._places, axis=1)
            scaled = numbers / ops.convert_to_tensor(self._spreads, self.compute_dtype)
            parts.append(ops.where(ops.isnan(numbers), ops.zeros_like(scaled), scaled))
        if self._marks:
            parts.append(ops.cast(ops.isnan(ops.take(cells, self._marks, axis=1)), self.compute_dtype))
        if self._category_places:
            numbers = ops.convert_to_tensor(self._category_numbers, self.compute_dtype)
            found = ops.equal(ops.take(cells, self._category_places, axis=1), numbers)  # NaN, no category, equals none
            parts.append(ops.cast(found, self.compute_dtype))
        return ops.concatenate(parts, axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Batch, features."""
        return shape[0], self.features

    def get_config(self) -> dict[str, Any]:
        """The columns, and what every layer has."""
        return {**super().get_config(), "columns": columns_to(self.columns)}


@keras.saving.register_keras_serializable("polyak")
class Pictures(keras.layers.Layer):
    """Pixels as files have them, 0 to 255, to numbers near 1.

    Args:
        form: Size, colour, mean and spread, as a dict or a `polyak.train.tasks.picture.PictureForm`.

    Shapes: (batch, height, width, channels) uint8 -> the same, float32.
    """

    def __init__(self, form: dict[str, Any] | PictureForm, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = form if isinstance(form, PictureForm) else PictureForm(**form)

    def call(self, pixels: Any) -> Any:
        """Scale."""
        mean = ops.convert_to_tensor(self.form.mean, self.compute_dtype)
        spread = ops.convert_to_tensor(self.form.spread, self.compute_dtype)
        return (ops.cast(pixels, self.compute_dtype) - mean) / spread

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The same."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """The form, and what every layer has."""
        return {**super().get_config(), "form": vars(self.form).copy()}


@keras.saving.register_keras_serializable("polyak")
class Classes(keras.layers.Layer):
    """Logits as they are. The layer is there for the names of the classes, which a saved model would not know otherwise.

    Args:
        names: One a logit.
    """

    def __init__(self, names: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = list(names)

    def call(self, logits: Any) -> Any:
        """Nothing changes."""
        return logits

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The same."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """The names, and what every layer has."""
        return {**super().get_config(), "names": self.names}


@keras.saving.register_keras_serializable("polyak")
class ScaledSquaredError(keras.losses.Loss):
    """Mean of ((y - prediction) / spread)^2: the squared error, in standard deviations of the values.

    With the loss in their own units, gradients and so the right learning rate would depend on whether a length is in metres
    or in feet.

    Args:
        spread: Of each output.
    """

    def __init__(self, spread: list[float], name: str = "scaled_squared_error", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.spread = list(spread)

    def call(self, y: Any, prediction: Any) -> Any:
        """One loss an example."""
        spread = ops.convert_to_tensor(self.spread, prediction.dtype)
        return ops.mean(ops.square((ops.cast(y, prediction.dtype) - prediction) / spread), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The spread, and what every loss has."""
        return {**super().get_config(), "spread": self.spread}
