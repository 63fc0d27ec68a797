"""State of `polyak.torch.Momentum`: what is saved, what can be loaded, and what is refused."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam

from polyak.torch import Momentum

SHAPES = {"first": (3, 2), "second": (4,), "third": ()}


def make(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, dtype=dtype, generator=rng).requires_grad_() for name, shape in SHAPES.items()}


def train(optimizer: Any, params: dict[str, Tensor], steps: range) -> None:
    for t in steps:
        for i, name in enumerate(SHAPES):
            rng = torch.Generator().manual_seed(100 * t + i)
            params[name].grad = torch.randn(SHAPES[name], generator=rng).to(params[name].dtype)
        optimizer.step()


def copy_weights(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in target.items():
            p.copy_(source[name])


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_saved_state_goes_on(tmp_path: Any) -> None:
    params, others = make(), make()
    options: dict[str, Any] = {"nesterov": True, "velocity": "step", "weight_decay": 0.1, "decay": "decoupled", "max_norm": 1.0}
    optimizer = Momentum(params.values(), 0.1, 0.8, **options)
    train(optimizer, params, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "state")
    loaded = Momentum(others.values())
    loaded.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    copy_weights(params, others)
    for o, p in ((optimizer, params), (loaded, others)):
        train(o, p, range(3, 6))
    assert_same(params, others)
    assert loaded.param_groups[0]["velocity"] == "step"


def test_what_is_loaded_is_a_copy() -> None:
    params, others = make(), make()
    optimizer = Momentum(params.values(), 0.1)
    train(optimizer, params, range(2))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    loaded = Momentum(others.values())
    loaded.load_state_dict(state)
    train(loaded, others, range(2))
    for i in range(3):
        assert torch.equal(state["state"][i]["momentum_buffer"], before["state"][i]["momentum_buffer"])


@pytest.mark.parametrize("foreach", [None, True])
def test_a_state_of_sgd_goes_on_as_sgd_would(foreach: bool | None) -> None:
    ours, theirs = make(), make()
    sgd = SGD(theirs.values(), 0.1, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=foreach)
    train(sgd, theirs, range(3))
    optimizer = Momentum(ours.values(), 0.5, max_norm=1e9)
    optimizer.load_state_dict(sgd.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["decay"], group["max_norm"]) == (0.1, 0.1, "coupled", 1e9)
    assert not {"foreach", "fused", "differentiable"} & group.keys()
    copy_weights(theirs, ours)
    for o, p in ((optimizer, ours), (sgd, theirs)):
        train(o, p, range(3, 30))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-13)  # rounding of float64


def test_a_state_of_sgd_without_momentum_or_step() -> None:
    for momentum, steps in ((0.0, 2), (0.9, 0)):
        ours, theirs = make(), make()
        sgd = SGD(theirs.values(), 0.1, momentum=momentum)
        train(sgd, theirs, range(steps))
        optimizer = Momentum(ours.values())
        optimizer.load_state_dict(sgd.state_dict())
        assert optimizer.param_groups[0]["momentum"] == momentum
        assert not optimizer.state


def sgd_state(**options: Any) -> dict[str, Any]:
    return SGD(make().values(), **{"lr": 0.1, "momentum": 0.9, **options}).state_dict()


def adam_state() -> dict[str, Any]:
    return Adam(make().values()).state_dict()


def state_with_other_slots() -> dict[str, Any]:
    params = make()
    optimizer = Momentum(params.values())
    train(optimizer, params, range(1))
    state = optimizer.state_dict()
    state["state"][1]["exp_avg"] = torch.zeros(4)
    return state


def state_with_other_shape() -> dict[str, Any]:
    params = make()
    optimizer = Momentum(params.values())
    train(optimizer, params, range(1))
    state = optimizer.state_dict()
    for i in (0, 2):
        state["state"][i]["momentum_buffer"] = torch.zeros(7)
    return state


@pytest.mark.parametrize(
    ("state", "options", "says"),
    [
        (sgd_state(), {"velocity": "average"}, "velocity='average'"),
        (sgd_state(weight_decay=0.1), {"weight_decay": 0.2, "decay": "decoupled"}, 'has decay="decoupled"'),
        (sgd_state(differentiable=True), {}, "differentiable"),
        (sgd_state(momentum=1.0), {}, "momentum must be in [0, 1)"),
        (adam_state(), {}, "of another optimizer: its options are"),
        (state_with_other_slots(), {}, "parameter 1: holds exp_avg"),
        (state_with_other_shape(), {}, "parameter 0: momentum_buffer saved with shape (7,), the parameter has (3, 2)"),
        (state_with_other_shape(), {}, "parameter 2: momentum_buffer saved with shape (7,), the parameter has ()"),
        (SGD([make()["first"]]).state_dict(), {}, "groups with [1] parameters; this optimizer has groups with [3]"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Any], options: dict[str, Any], says: str) -> None:
    params = make()
    optimizer = Momentum(params.values(), 0.3, **options)
    train(optimizer, params, range(1))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=re.escape(says)):
        optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()) == str(before)  # nothing is half-loaded


def test_named_parameters_are_found_by_name() -> None:
    params, others = make(), make()
    optimizer = Momentum(params.items(), 0.1)
    train(optimizer, params, range(2))
    loaded = Momentum([(name, others[name]) for name in reversed(SHAPES)], 0.5)
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.param_groups[0]["param_names"] == ["third", "second", "first"]
    copy_weights(params, others)
    for o, p in ((optimizer, params), (loaded, others)):
        train(o, p, range(2, 5))
    assert_same(params, others)


def test_named_groups_are_found_by_their_names() -> None:
    def groups(params: dict[str, Tensor], *parts: tuple[list[str], float]) -> list[dict[str, Any]]:
        return [{"params": [(name, params[name]) for name in names], "lr": lr} for names, lr in parts]

    params, others = make(), make()
    optimizer = Momentum(groups(params, (["first", "third"], 0.1), (["second"], 0.2)))
    train(optimizer, params, range(2))
    loaded = Momentum(groups(others, (["second"], 0.7), (["third", "first"], 0.7)))
    loaded.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in loaded.param_groups] == [0.2, 0.1]
    copy_weights(params, others)
    for o, p in ((optimizer, params), (loaded, others)):
        train(o, p, range(2, 5))
    assert_same(params, others)
    regrouped = Momentum(groups(make(), (["first"], 0.1), (["second", "third"], 0.2)))
    with pytest.raises(ValueError, match=re.escape("in other groups")):
        regrouped.load_state_dict(optimizer.state_dict())


def test_other_names_are_listed() -> None:
    params = make()
    state = Momentum(params.items()).state_dict()
    others = Momentum([("first", params["first"]), ("2nd", params["second"]), ("3rd", params["third"])])
    with pytest.raises(ValueError, match=re.escape("Missing from the saved state: ['2nd', '3rd']. Unknown to this optimizer")):
        others.load_state_dict(state)


def test_a_named_optimizer_takes_an_unnamed_state_by_position() -> None:
    params, others = make(), make()
    sgd = SGD(params.values(), 0.1, momentum=0.9)
    train(sgd, params, range(2))
    loaded = Momentum(others.items())
    loaded.load_state_dict(sgd.state_dict())
    assert torch.equal(loaded.state[others["first"]]["momentum_buffer"], sgd.state[params["first"]]["momentum_buffer"])
    assert loaded.param_groups[0]["param_names"] == list(SHAPES)


@pytest.mark.parametrize("slot_dtype", [torch.float32, torch.bfloat16])
def test_loading_changes_no_dtype(slot_dtype: torch.dtype) -> None:
    """torch's own loading would cast a float32 slot of a bfloat16 parameter to bfloat16, and lose what it holds."""
    params, others = make(torch.bfloat16), make(torch.bfloat16)
    optimizer: Any = Momentum(params.values(), 0.1) if slot_dtype == torch.float32 else SGD(params.values(), 0.1, momentum=0.9)
    train(optimizer, params, range(3))
    loaded = Momentum(others.values())
    loaded.load_state_dict(optimizer.state_dict())
    for name, p in params.items():
        buffer = loaded.state[others[name]]["momentum_buffer"]
        assert buffer.dtype == slot_dtype
        assert torch.equal(buffer, optimizer.state[p]["momentum_buffer"])
    train(loaded, others, range(3, 5))


def test_hooks_of_loading_run() -> None:
    params, calls = make(), []
    optimizer = Momentum(params.items())

    def rename(o: Any, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        calls.append("before")
        groups = [{**g, "param_names": [n.removeprefix("module.") for n in g["param_names"]]} for g in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(rename)
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("after"))  # noqa: ARG005
    saved = Momentum([(f"module.{name}", p) for name, p in params.items()], 0.7)
    optimizer.load_state_dict(saved.state_dict())
    assert calls == ["before", "after"]
    assert optimizer.param_groups[0]["lr"] == 0.7
