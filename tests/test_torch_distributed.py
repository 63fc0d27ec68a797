"""Two processes train together, by DistributedDataParallel and by `fully_shard`, and get what one gets on the whole batch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from polyak.torch import Momentum, Muon
from torch_distributed_worker import OPTIONS, STEPS, model, train


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("distributed")
    worker = Path(__file__).with_name("torch_distributed_worker.py")
    processes = [
        subprocess.Popen([sys.executable, str(worker), str(rank), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    loaded: dict[str, Any] = torch.load(folder / "results", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def alone() -> tuple[list[torch.Tensor], list[float]]:
    net = model()
    norms = train(net, Momentum(net.parameters(), **OPTIONS), range(STEPS))
    assert max(norms) > OPTIONS["max_norm"] > min(norms)  # some steps are clipped and some are not
    return [p.detach() for p in net.parameters()], norms


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_are_one(kind: str, results: dict[str, Any], alone: tuple[list[torch.Tensor], list[float]]) -> None:
    """The second half of the steps of "fsdp" is after a round trip through torch.distributed.checkpoint."""
    weights, norms = results[kind][:2]
    for p, q in zip(weights, alone[0], strict=True):
        # Sums of float64 over the batch in another order, over 6 steps.
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)
    assert norms == pytest.approx(alone[1], rel=1e-12)


def test_shards_go_through_the_kernel(results: dict[str, Any]) -> None:
    assert results["fsdp"][2] == ["_Host"]


def test_one_norm_over_shards_replicas_and_dtypes(results: dict[str, Any]) -> None:
    found, norm, weights, expected = results["mixed"]
    assert found == pytest.approx(norm, rel=1e-6)  # float32
    for w, e in zip(weights, expected, strict=True):
        torch.testing.assert_close(w, e, rtol=2.0**-8, atol=0)  # one of them is rounded to bfloat16


def test_matrices_in_shards_are_orthogonalised_whole(results: dict[str, Any]) -> None:
    (sharded, norm, skipped), (plain, expected, left_out) = results["shards"]
    assert skipped == left_out == 1
    assert norm == pytest.approx(expected, rel=1e-13)  # a sum of float64 in another order
    for p, q in zip(sharded, plain, strict=True):
        # Rounding of float64 in the products of other batches, times the slope of the polynomials at 0, 1,000.
        torch.testing.assert_close(p, q, rtol=0, atol=1e-11)


def test_two_processes_with_muon_are_one(results: dict[str, Any]) -> None:
    net = model()
    norms = train(net, Muon(net, 0.1, max_norm=5.0), range(STEPS))
    assert max(norms) > 5 > min(norms)
    weights, found = results["muon"]
    assert found == pytest.approx(norms, rel=1e-9)
    for p, q in zip(weights, net.parameters(), strict=True):
        torch.testing.assert_close(p, q.detach(), rtol=0, atol=1e-9)  # as above, over 6 steps of a model that is not linear


def test_the_norms_of_lars_are_those_of_whole_tensors(results: dict[str, Any]) -> None:
    sharded, plain = results["lars"]
    for p, q in zip(sharded, plain, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)  # sums of float64 in another order
