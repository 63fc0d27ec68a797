"""One framework in a process of its own.

    python -m polyak.bits.worker FRAMEWORK FILE                  all cases
    python -m polyak.bits.worker FRAMEWORK FILE [CASE:STEPS]...  the first steps of some

FILE gets `digests`, a number for the state after each step of each case, which is 0 after a step that was not made, and for
each case the last state, by its index.
"""

import hashlib
import sys
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from polyak.bits import frontends
from polyak.bits.cases import CASES, STEPS, Array

FRAMEWORKS: dict[str, frontends.Run] = {
    "numpy": frontends.numpy,
    "torch": frontends.torch,
    "jax": frontends.jax,
    "keras-tensorflow": frontends.keras,
    "keras-jax": frontends.keras,
    "keras-torch": frontends.keras,
}

ALL = dict.fromkeys(range(len(CASES)), STEPS)


def digest(state: Array) -> int:
    """64 bits that are others for any other bits of the state."""
    return int.from_bytes(hashlib.blake2b(state.tobytes(), digest_size=8).digest())


def main(framework: str, file: str, steps: Mapping[int, int]) -> None:
    """Run so many steps of each case and write the file."""
    digests = np.zeros((len(steps), STEPS), np.uint64)
    last: dict[str, Any] = {}
    for row, (i, count) in zip(digests, steps.items(), strict=True):
        for t, state in enumerate(islice(FRAMEWORKS[framework](CASES[i]), count)):
            row[t] = digest(state)
        last[str(i)] = state
    np.savez(file, digests=digests, **last)


if __name__ == "__main__":
    framework, file, *some = sys.argv[1:]
    steps = {int(case): int(count) for case, count in (word.split(":") for word in some)}
    main(framework, file, steps or ALL)
