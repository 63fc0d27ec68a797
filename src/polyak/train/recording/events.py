"""Event files for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

# Column of steps.csv -> the group of charts that it is in. What is not here is a loss or a metric.
GROUPS = {
    "learning_rate": "rate",
    "momentum": "rate",
    "effective_learning_rate": "rate",
    "gradient_norm": "norm",
    "velocity_norm": "norm",
    "step_norm": "norm",
    "weight_norm": "norm",
    "cosine": "momentum",
    "predicted_change": "momentum",
}


class Events:
    """The folder that `tensorboard --logdir` reads.

    Args:
        folder: The folder.
        step: How many steps there were before. What TensorBoard has of later ones, written before a run was stopped, is void.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        # A file is named after the second in which it is made, and by the suffix.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, filename_suffix=f".{step}")

    def step(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add what is recorded of a step."""
        for name, value in values.items():
            self._add(f"{GROUPS.get(name, 'train')}/{name}", value, step)

    def layer(self, step: int, layer: str, values: Mapping[str, float | None]) -> None:
        """Add what is recorded of a layer at a step."""
        for name, value in values.items():
            self._add(f"layers_{name}/{layer}", value, step)

    def epoch(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add what was measured in an epoch, at the number of its last step."""
        for name, value in values.items():
            self._add(f"epoch/{name}", value, step)

    def flush(self) -> None:
        """Write what is still in memory."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, tag: str, value: float | None, step: int) -> None:
        if value is not None:
            self._writer.add_scalar(tag, value, step)
