"""Sums over the shards of DTensors."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyak.torch.views import is_sharded

Shards = tuple[Any, Any] | None  # mesh and placements of a DTensor; None for a whole tensor
Number = float | Tensor  # one that the host knows, or a tensor without dimensions that it would have to wait for
Squares = Mapping[Shards, Number]


def total(squares: Iterable[Squares]) -> Number:
    """The sum over all groups, and over all processes that hold another shard. A collective call where there are any."""
    by_shards: dict[Shards, list[Number]] = defaultdict(list)
    for each in squares:
        for shards, value in each.items():
            by_shards[shards].append(value)
    return summed([_over_processes(shards, [summed(values)])[0] for shards, values in by_shards.items()])


def summed(values: Sequence[Number]) -> Number:
    """The sum; a tensor, where any of them is one."""
    if Tensor not in map(type, values):
        return math.fsum(values)
    tensors = [x for x in values if isinstance(x, Tensor)]
    known = math.fsum(x for x in values if not isinstance(x, Tensor))
    return torch.stack([x.to(tensors[0].device) for x in tensors]).sum() + known


def each_whole(shards: Sequence[Shards], values: Sequence[Number]) -> list[Number]:
    """Of each tensor, the sum over all processes that hold another shard of it. A collective call where there are any."""
    places: dict[Shards, list[int]] = defaultdict(list)
    for i, of in enumerate(shards):
        places[of].append(i)
    sums = list(values)
    for of, indices in places.items():
        for i, whole in zip(indices, _over_processes(of, [values[i] for i in indices]), strict=True):
            sums[i] = whole
    return sums


def _over_processes(shards: Shards, values: list[Number]) -> list[Number]:
    if shards is None:
        return values
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = shards
    parts = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    known = not any(isinstance(x, Tensor) for x in values)
    here = torch.tensor(values, dtype=torch.float64, device=mesh.device_type) if known else torch.stack(values)  # type: ignore[arg-type]  # all are tensors
    whole = DTensor.from_local(here, mesh, parts).full_tensor()
    return whole.tolist() if known else list(whole.unbind())


def gathered(t: Any) -> Tensor:
    """The whole of a DTensor, brought to each process. A collective call."""
    whole: Tensor = t.full_tensor()
    return whole


def own_shard(whole: Tensor, w: Any) -> Tensor:
    """The part of a tensor that this process holds of the DTensor `w`; all of it for any other `w`."""
    if not is_sharded(w):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = DTensor.from_local(whole, w.device_mesh, [Replicate()] * w.device_mesh.ndim, run_check=False)
    part: Tensor = everywhere.redistribute(placements=w.placements).to_local()  # each process cuts its part out by itself
    return part
