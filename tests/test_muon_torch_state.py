"""States of torch.optim.Muon that `polyak.torch.Muon` goes on with, and those that it cannot."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from polyak.torch import Lion, Muon

SHAPES = {"a": (24, 24), "b": (48, 24), "bias": (24,)}
MATRICES = ("a", "b")


def make(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=rng).to(dtype).requires_grad_() for name, shape in SHAPES.items()}


def train(optimizers: list[Any], params: dict[str, Tensor], steps: range) -> None:
    for t in steps:
        rng = torch.Generator().manual_seed(100 + t)
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=rng).to(p.dtype)
        for optimizer in optimizers:
            optimizer.step()


def theirs(params: dict[str, Tensor], **options: Any) -> Any:
    return torch.optim.Muon([params[name] for name in MATRICES], **{"lr": 0.02, "momentum": 0.75, **options})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weight_decay": 0.5}, {"scale": "spectral"}),
        ({"adjust_lr_fn": "original", "nesterov": False, "eps": 1e-9}, {"scale": "spectral"}),
        ({"adjust_lr_fn": "match_rms_adamw", "ns_steps": 4, "lr": 0.05}, {"scale": "match_rms_adamw", "steps": 4}),
    ],
)
def test_a_state_of_torch_goes_on(options: dict[str, Any], expected: dict[str, Any]) -> None:
    theirs_params, params = make(), make()
    peer = theirs(theirs_params, **options)
    train([peer], theirs_params, range(3))
    optimizer = Muon(params.items(), lr=7.0, nesterov=True, polynomial="polar_express", max_norm=1e9)
    optimizer.load_state_dict(peer.state_dict())
    group = optimizer.param_groups[0]
    saved = peer.param_groups[0]
    assert {name: group[name] for name in expected} == expected
    for name in ("lr", "momentum", "nesterov", "weight_decay"):
        assert group[name] == saved[name]
    assert (group["polynomial"], group["steps"], group["max_norm"]) == ("quintic", saved["ns_steps"], 1e9)
    assert not {"ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"} & group.keys()
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(theirs_params[name])
    start = {name: p.detach().clone() for name, p in params.items()}
    train([peer], theirs_params, range(3, 6))
    train([optimizer], params, range(3, 6))
    for name in MATRICES:
        ours, other = params[name], theirs_params[name]
        slots = (o.state[p]["momentum_buffer"] for o, p in ((optimizer, ours), (peer, other)))
        torch.testing.assert_close(*slots, rtol=0, atol=1e-6)  # rounding of float32
        # torch's products are bfloat16, rounded by 2^-9 in each of 15: a few hundredths of the smallest singular values' parts.
        assert torch.linalg.norm(ours - other) < 0.03 * torch.linalg.norm(other - start[name])


@pytest.mark.parametrize("others", [Lion, AdamW])
def test_the_others_stay_and_load_their_own(others: Any) -> None:
    """As two optimizers of torch, side by side, become one here."""
    apart, params = make(), make()
    pair = [theirs(apart), others([("bias", apart["bias"])], lr=0.1)]
    train(pair, apart, range(3))
    optimizer = Muon(params.items(), others=lambda named: others(named, lr=0.5))
    optimizer.load_state_dict(pair[0].state_dict())
    assert optimizer.param_groups[1]["lr"] == 0.5
    optimizer.others.load_state_dict(copy.deepcopy(pair[1].state_dict()))  # type: ignore[union-attr]
    assert optimizer.param_groups[1]["lr"] == 0.1
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(apart[name])
    train(pair, apart, range(3, 6))
    train([optimizer], params, range(3, 6))
    assert torch.equal(params["bias"], apart["bias"])


def test_no_dtype_changes_and_nothing_is_shared() -> None:
    """torch keeps a bfloat16 velocity for bfloat16 weights."""
    theirs_params, params = make(torch.bfloat16), make(torch.bfloat16)
    peer = theirs(theirs_params)
    train([peer], theirs_params, range(1))
    optimizer = Muon(params.items())
    optimizer.load_state_dict(peer.state_dict())
    slot, before = optimizer.state[params["a"]]["momentum_buffer"], peer.state[theirs_params["a"]]["momentum_buffer"]
    assert slot.dtype == torch.bfloat16
    assert torch.equal(slot, before)
    train([optimizer], params, range(1, 2))
    assert not torch.equal(slot, before)


def test_a_state_before_the_first_step() -> None:
    params = make()
    optimizer = Muon(params.items())
    optimizer.load_state_dict(theirs(make(), lr=0.05).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert not optimizer.state


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ns_coefficients": (2.0, -1.5, 0.5)}, "ns_coefficients=(2.0, -1.5, 0.5): the polynomials here are"),
        ({"eps": 1e-3}, "eps=0.001: matrices of any norm"),
        ({"ns_steps": 0}, "ns_steps=0: there is at least one step"),
        ({"momentum": 1.0}, "momentum must be in [0, 1)"),
    ],
)
def test_what_has_no_like_here_is_refused(options: dict[str, Any], says: str) -> None:
    params = make()
    optimizer = Muon(params.items())
    train([optimizer], params, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=re.escape(says)):
        optimizer.load_state_dict(theirs(make(), **options).state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)


def test_a_scale_of_a_later_torch_is_refused() -> None:
    state = theirs(make()).state_dict()
    state["param_groups"][0]["adjust_lr_fn"] = "another"
    with pytest.raises(ValueError, match="adjust_lr_fn='another': the like of None, 'original', 'match_rms_adamw' is known"):
        Muon(make().items()).load_state_dict(state)


def test_all_that_differs_is_said_at_once() -> None:
    state = theirs(make(), eps=1.0, ns_steps=0).state_dict()
    with pytest.raises(ValueError, match=r"(?s)eps=1\.0.*ns_steps=0"):
        Muon(make().items()).load_state_dict(state)
