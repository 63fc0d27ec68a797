"""One of two processes that train together; `test_torch_distributed.py` starts them and reads what the first one writes.

python torch_distributed_worker.py RANK FOLDER
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyak.torch import LARS, Momentum, Muon

STEPS = 6
OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "decay": "coupled", "max_norm": 5.0}


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Rows of 5, 1 and 3: two processes hold different numbers of them, and one none of the 1."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 3)).to(dtype)


def batch(step: int, rank: int | None = None) -> Tensor:
    """A batch, or the half of it that one of the processes is given."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return x if rank is None else x[4 * rank : 4 * rank + 4]


def train(net: nn.Module, optimizer: Momentum | Muon, steps: range, rank: int | None = None) -> list[float]:
    """The global norm of the gradients at each step."""
    norms = []
    for t in steps:
        optimizer.zero_grad()
        x = batch(t, rank)
        (5 * (net(x) - x[:, :3]).square().mean()).backward()
        optimizer.step()
        assert optimizer.grad_norm is not None
        norms.append(optimizer.grad_norm)
    return norms


def whole(net: nn.Module) -> list[Tensor]:
    """The parameters, put together from all processes."""
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in net.parameters()]


def distributed_data_parallel(rank: int) -> Any:
    net = nn.parallel.DistributedDataParallel(model())
    norms = train(net, Momentum(net.parameters(), **OPTIONS), range(STEPS), rank)
    return whole(net), norms


def fully_sharded(rank: int, folder: Path, make: Callable[[nn.Module], Any]) -> tuple[nn.Module, list[float], Any]:
    """The second half is after a round trip through torch.distributed.checkpoint. Last comes the optimizer of the first."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard

    def sharded() -> tuple[nn.Module, Any]:
        net = model()
        for layer in net:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(net)
        return net, make(net)

    net, first = sharded()
    norms = train(net, first, range(3), rank)
    weights, state = get_state_dict(net, first)
    checkpoint.save({"net": weights, "optimizer": state}, checkpoint_id=str(folder))

    net, second = sharded()
    weights, state = get_state_dict(net, second)
    checkpoint.load({"net": weights, "optimizer": state}, checkpoint_id=str(folder))
    set_state_dict(net, second, model_state_dict=weights, optim_state_dict=state)
    norms += train(net, second, range(3, STEPS), rank)
    return net, norms, first


def momentum_fully_sharded(rank: int, folder: Path) -> Any:
    net, norms, first = fully_sharded(rank, folder / "momentum", lambda net: Momentum(net.parameters(), **OPTIONS))
    slots = [(p, state["momentum_buffer"]) for p, state in first.state.items()]
    assert len(slots) == len(list(net.parameters()))
    assert all(s.placements == p.placements for p, s in slots)
    return whole(net), norms, [type(part).__name__ for part in first._running[0].group._parts]


def mixed(rank: int) -> Any:
    """Some parameters sharded, some not, some in bfloat16: one norm over all."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    values = [torch.arange(1.0, 6.0), torch.full((3,), 2.0), torch.full((4,), 3.0).bfloat16(), torch.ones(2)]
    placements = [[Shard(0)], [Replicate()], [Shard(0)], None]
    params: list[Any] = [
        nn.Parameter(v.clone() if place is None else distribute_tensor(v, mesh, place))
        for v, place in zip(values, placements, strict=True)
    ]
    optimizer = Momentum(params, 0.5, 0.0, max_norm=1.0)
    for p, v in zip(params, values, strict=True):
        p.grad = distribute_tensor(v.clone(), mesh, p.placements) if isinstance(p, DTensor) else v.clone()
    # A gradient that is sharded otherwise than its weight is moved to where it belongs.
    params[1].grad = distribute_tensor(torch.full((3,), 2.0), mesh, [Shard(0)])
    norm = sum(float(v.float().square().sum()) for v in values) ** 0.5
    expected = [v.float() * (1 - 0.5 / norm) for v in values]
    optimizer.step()
    result = [p.full_tensor().float() if isinstance(p, DTensor) else p for p in params]
    assert rank in (0, 1)
    return optimizer.grad_norm, norm, [r.detach() for r in result], expected


def trust_ratios() -> Any:
    """LARS with some parameters sharded, so unevenly that one process has most of the norm, and without shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    # A matrix of which one process has nothing; two of which each has a part, one of them for torch operations; a vector.
    shapes = [(1, 4), (5, 4), (6, 2), (3, 3), (5,)]
    placements: list[Any] = [Shard(0), Shard(0), Shard(1), Replicate(), Shard(0)]
    generator = torch.Generator().manual_seed(0)
    values, *gradients = ([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(4))
    values[1][0] *= 100
    plain = [nn.Parameter(v.clone()) for v in values]
    sharded = [nn.Parameter(distribute_tensor(v, mesh, [place])) for v, place in zip(values, placements, strict=True)]
    for params in (plain, sharded):
        optimizer = LARS(params, 0.5, trust_coefficient=0.1, weight_decay=0.1, decay="coupled", max_norm=1.0)
        for gs in gradients:
            for p, g, place in zip(params, gs, placements, strict=True):
                p.grad = distribute_tensor(g, mesh, [place]) if params is sharded else g.clone()
            optimizer.step()
    return [p.full_tensor().detach() for p in sharded], [p.detach() for p in plain]


def orthogonal_shards() -> Any:
    """Muon with matrices sharded in several ways, under both guards, and without shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    # One is no DTensor, of one a process has nothing, one is cut by columns, one is whole on both.
    shapes = {
        "a": (5, 4),
        "b": (5, 4),
        "plain": (5, 4),
        "row": (1, 4),
        "wide": (3, 7),
        "conv": (4, 3, 2),
        "copy": (3, 3),
        "v": (5,),
    }
    places: list[Any] = [Shard(0), Shard(0), None, Shard(0), Shard(1), Shard(0), Replicate(), Shard(0)]
    generator = torch.Generator().manual_seed(0)
    values, *gradients = ([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes.values()] for _ in range(5))

    def distributed(t: Tensor, place: Any) -> Tensor:
        return t.clone() if place is None else distribute_tensor(t.clone(), mesh, [place])

    found = []
    for kind in (places, [None] * len(places)):
        params = [nn.Parameter(distributed(v, place)) for v, place in zip(values, kind, strict=True)]
        optimizer = Muon(
            zip(shapes, params, strict=True),
            0.1,
            weight_decay=0.1,
            max_norm=6.0,
            finite="skip",
            cautious=True,
            split={"conv": 2},
        )
        for t, gs in enumerate(gradients):
            for p, g, place in zip(params, gs, kind, strict=True):
                p.grad = distributed(g, place)
            if t == 2:  # in the shard of one process
                bad = gs[3].clone()
                bad[0, 1] = torch.nan
                params[3].grad = distributed(bad, kind[3])
            optimizer.step()
        weights = [p.full_tensor().detach() if hasattr(p, "full_tensor") else p.detach() for p in params]
        found.append((weights, optimizer.grad_norm, optimizer.skipped))
    return found


def muon_fully_sharded(rank: int, folder: Path) -> Any:
    net, norms, _ = fully_sharded(rank, folder / "muon", lambda net: Muon(net, 0.1, max_norm=5.0))
    return whole(net), norms


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {"ddp": distributed_data_parallel(rank), "fsdp": momentum_fully_sharded(rank, folder), "mixed": mixed(rank)}
    results |= {"lars": trust_ratios(), "shards": orthogonal_shards(), "muon": muon_fully_sharded(rank, folder)}
    if rank == 0:
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            torch.save(results, file)
        os.replace(file.name, folder / "results")
    torch.distributed.destroy_process_group()
    # A group that something still refers to ends with the interpreter, and that aborts now and then (pytorch/pytorch#190489).
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
