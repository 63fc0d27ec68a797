"""How long a run is, and how far it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        epochs: Of the run.
        count: Training examples of an epoch, or batches, where somebody else makes them.
        batch_size: Examples a step.
        unit: What is counted: "examples" or "batches".
    """

    epochs: int
    count: int
    batch_size: int
    unit: str = "examples"

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch. The last one may be on fewer examples."""
        return -(-self.count // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps_per_epoch

    def counted(self, batches: int) -> int:
        """What is counted in the first batches of an epoch."""
        return min(batches * self.batch_size, self.count)


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        epoch: Epochs that are over.
        batch: Steps of the next one that are over, fewer than an epoch has.
        step: All steps.
        seconds: Wall clock of training, over all sittings.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
