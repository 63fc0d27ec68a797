"""Sums over the shards of DTensors."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch

from polyak.torch.tensors import Shards, Squares


def total(squares: Iterable[Squares]) -> float:
    """The sum over all groups, and over all processes that hold another shard. A collective call where there are any."""
    by_shards: dict[Shards, float] = defaultdict(float)
    for each in squares:
        for shards, value in each.items():
            by_shards[shards] += value
    return math.fsum(_over_processes(shards, value) for shards, value in by_shards.items())


def _over_processes(shards: Shards, value: float) -> float:
    if shards is None:
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = shards
    parts = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    here = torch.tensor(value, dtype=torch.float64, device=mesh.device_type)
    return float(DTensor.from_local(here, mesh, parts).full_tensor())
