"""Sums over the shards of DTensors."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

Shards = tuple[Any, Any] | None  # mesh and placements of a DTensor; None for a whole tensor
Squares = Mapping[Shards, float]


def total(squares: Iterable[Squares]) -> float:
    """The sum over all groups, and over all processes that hold another shard. A collective call where there are any."""
    by_shards: dict[Shards, float] = defaultdict(float)
    for each in squares:
        for shards, value in each.items():
            by_shards[shards] += value
    return math.fsum(_over_processes(shards, [value])[0] for shards, value in by_shards.items())


def each_whole(shards: Sequence[Shards], values: Sequence[float]) -> list[float]:
    """Of each tensor, the sum over all processes that hold another shard of it. A collective call where there are any."""
    places: dict[Shards, list[int]] = defaultdict(list)
    for i, of in enumerate(shards):
        places[of].append(i)
    sums = list(values)
    for of, indices in places.items():
        for i, whole in zip(indices, _over_processes(of, [values[i] for i in indices]), strict=True):
            sums[i] = whole
    return sums


def _over_processes(shards: Shards, values: list[float]) -> list[float]:
    if shards is None:
        return values
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = shards
    parts = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    here = torch.tensor(values, dtype=torch.float64, device=mesh.device_type)
    whole: list[float] = DTensor.from_local(here, mesh, parts).full_tensor().tolist()
    return whole
