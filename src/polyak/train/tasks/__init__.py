"""The tasks of `polyak train`. A new task is a file here and a line in the registry."""

from polyak.train.tasks.digits import DIGITS
from polyak.train.tasks.task import Data, Model, Splits, Task

__all__ = ["TASKS", "Data", "Model", "Splits", "Task"]

TASKS: dict[str, Task] = {task.name: task for task in (DIGITS,)}
"""Every task by name."""
