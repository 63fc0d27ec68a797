"""One framework in a process of its own.

    python -m polyak.bits.worker FRAMEWORK FILE              all cases
    python -m polyak.bits.worker FRAMEWORK FILE CASE STEPS   the first steps of one

FILE gets `digests`, a number for the state after each step of each case, and for each case the last state, by its index.
"""

import hashlib
import sys
from collections.abc import Iterable
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


def digest(state: Array) -> int:
    """64 bits that are others for any other bits of the state."""
    return int.from_bytes(hashlib.blake2b(state.tobytes(), digest_size=8).digest())


def main(framework: str, file: str, cases: Iterable[int] = range(len(CASES)), steps: int = STEPS) -> None:
    """Run the cases and write the file."""
    digests: list[list[int]] = []
    last: dict[str, Any] = {}
    for i in cases:
        digests.append([])
        for state in islice(FRAMEWORKS[framework](CASES[i]), steps):
            digests[-1].append(digest(state))
        last[str(i)] = state
    np.savez(file, digests=np.array(digests, np.uint64), **last)


if __name__ == "__main__":
    framework, file, *one = sys.argv[1:]
    main(framework, file, *(([int(one[0])], int(one[1])) if one else ()))
