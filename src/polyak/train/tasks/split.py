"""Which examples are trained on, and which are only watched."""

import numpy as np
from numpy.typing import NDArray

from polyak.train.tasks.task import Numbers, TaskError


def split(
    rows: int, share: float, seed: int, *, labels: NDArray[np.int32] | None = None, names: tuple[str, ...] = ()
) -> tuple[Numbers, Numbers, list[str]]:
    """Part the numbers 0 .. rows - 1 at random.

    Args:
        rows: How many there are.
        share: Of the validation part, in (0, 1).
        seed: The same seed gives the same parts.
        labels: Class of each row: every class then has this share in both parts, as nearly as whole rows allow. A class of one
            row is only trained on.
        names: Of the classes.

    Returns:
        The numbers to train on and those to validate on, each in ascending order, and notes.

    Raises:
        TaskError: There are too few rows for two parts.
    """
    from sklearn.model_selection import train_test_split

    numbers = np.arange(rows)
    notes: list[str] = []
    single: Numbers = numbers[:0]
    least = 1
    if labels is not None:
        counts = np.bincount(labels, minlength=len(names))
        alone = [names[k] for k in np.flatnonzero(counts == 1)]
        if alone:
            single = np.flatnonzero(counts[labels] == 1)
            numbers = np.flatnonzero(counts[labels] > 1)
            notes.append(
                f"{listed(alone)}: one example only, which is trained on and never validated. Add examples, or take it out."
            )
        least = int(np.sum(counts > 1))
    size = min(max(round(share * rows), least), len(numbers) - least)
    if size < least or least < 1:
        raise TaskError(
            f"{rows} example{'s' * (rows != 1)} cannot be parted into two parts that both have "
            f"{'an example' if labels is None else 'each class'}; add examples."
        )
    stratify = None if labels is None else labels[numbers]
    train, validation = train_test_split(numbers, test_size=size, stratify=stratify, random_state=seed)
    return np.sort(np.concatenate([train, single])), np.sort(validation), notes


def listed(names: list[str], most: int = 8) -> str:
    """Names for a message; of a long list its beginning and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
