"""What is kept of a parameter group from step to step."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from polyak.torch.loading import key_of
from polyak.update import Update


@dataclass
class Running:
    """What was found out about a group, and holds until somebody changes its options or its state.

    Attributes:
        update: The rule with its pipeline, for the group's options.
        hyperparameters: Their values.
        group: A `Group` of tensors, or what reads tensors as it does.
        weights: Those that had a gradient at the last step.
        states: The state of each of them.
    """

    update: Update
    hyperparameters: dict[str, float]
    group: Any
    weights: list[Tensor]
    states: list[dict[str, Tensor]]

    def slots(self) -> list[list[Tensor]]:
        """For each slot of the rule the tensors of these weights."""
        keys = [key_of(slot) for slot in self.update.rule.slots]
        return [[state[key] for state in self.states] for key in keys]
