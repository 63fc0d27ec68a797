"""Results of two frameworks with each other, and with the rule in float64."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from polyak.bits.cases import CASES, SHAPES, Array, Case, gradients, start
from polyak.bits.run import Result, state_after


@dataclass(frozen=True)
class Difference:
    """The first place where two runs of a case part.

    Attributes:
        case: The case.
        step: The first step after which the states differ, counted from 1.
        where: The first element that differs, such as "velocity of w[3]".
        bits: What the two frameworks have there, as the number and its 32 bits.
    """

    case: Case
    step: int
    where: str
    bits: tuple[str, str]

    def __str__(self) -> str:
        return f"First in the run {self.case}, after step {self.step}, {self.where}: {self.bits[0]} and {self.bits[1]}."


def differing(one: Result, other: Result) -> list[int]:
    """The indices of the cases in which the two differ anywhere."""
    return [int(i) for i in np.flatnonzero((one.digests != other.digests).any(axis=1))]


def first_difference(case: int, pair: tuple[str, str], results: Mapping[str, Result]) -> Difference:
    """Where two frameworks first part in a case that differs. Both compute its first steps anew, up to that one."""
    one, other = (results[framework].digests[case] for framework in pair)
    step = 1 + int(np.flatnonzero(one != other)[0])
    a, b = (state_after(framework, case, step) for framework in pair)
    row, element = np.argwhere(a.view(np.uint32) != b.view(np.uint32))[0]
    return Difference(
        CASES[case], step, _name(CASES[case], int(row), int(element)), (_bits(a[row, element]), _bits(b[row, element]))
    )


def _bits(x: np.float32) -> str:
    return f"{x!s} (0x{x.view(np.uint32):08x})"


def _name(case: Case, row: int, element: int) -> str:
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        if element < size:
            place = f"{name}[{element}]" if shape else name
            return place if row == 0 else f"{case.update.rule.slots[row - 1]} of {place}"
        element -= size
    raise IndexError(element)


@cache
def in_float64(case: Case) -> Array:
    """The last state of a case by the rule in float64, from the float32 gradients and hyperparameters."""
    update = case.update
    w = _flat(start())
    slots = tuple(np.zeros_like(w) for _ in update.rule.slots)
    for t, g in enumerate(_flat_gradients()):
        w, slots = update.apply(g, w, slots, update.Hyperparameters(**case.hyperparameters(t)))
    return np.stack([w, *slots])


@cache
def _flat_gradients() -> list[Array]:
    return [_flat(g) for g in gradients()]


def _flat(tree: Mapping[str, Array]) -> Array:
    return np.concatenate([x.reshape(-1) for x in tree.values()]).astype(np.float64)


def error(case: int, result: Result) -> float:
    """The relative error of the last state, by norm over all elements: of the weights or of a slot, whichever is larger."""
    exact = in_float64(CASES[case])
    return float((np.linalg.norm(result.last[case] - exact, axis=1) / np.linalg.norm(exact, axis=1)).max())
