"""`polyak.torch.ScheduleFree`: the switch to the average, and the warning of who forgets it."""

import copy
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import _global_forward_pre_hooks

import polyak.numpy
import polyak.torch
import textbook


def make(**options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    return model, polyak.torch.ScheduleFree(model.named_parameters(), **{"lr": 0.5, **options})


def train(model: Any, optimizer: Any, first: int, last: int) -> None:
    model.train()
    for t in range(first, last):
        x = torch.from_numpy(np.random.default_rng(t).standard_normal((8, 3)).astype(np.float32))
        optimizer.zero_grad()
        (model(x) - x[:, :2]).square().mean().backward()
        optimizer.step()


def weights(model: Any) -> Any:
    return copy.deepcopy(model.state_dict())


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """The hook goes with the last optimizer."""
    yield
    gc.collect()
    assert not _global_forward_pre_hooks


def test_the_recursion_of_the_authors_with_a_warm_up() -> None:
    """As in their code, for float64; there, c is a sum of squares, and y is updated without x."""
    rng = np.random.default_rng(0)
    y, gradients = rng.standard_normal(5), rng.standard_normal((12, 5))
    p = torch.nn.Parameter(torch.tensor(y))
    optimizer = polyak.torch.ScheduleFree([p], lr=0.5, momentum=0.8, warmup_steps=4, weight_decay=0.1, decay="coupled")
    z = y.copy()
    for t, c in enumerate(textbook.average_weights(4, 12)):
        p.grad = torch.tensor(gradients[t])
        optimizer.step()
        rate, c = 0.5 * min(1, (t + 1) / 4), float(c)
        g = gradients[t] + 0.1 * y
        y = y + c * (z - y)
        y = y + rate * (0.8 * (1 - c) - 1) * g
        z = z - rate * g
    # The schedules are float32: 2^-24 of 12 steps of size 1.
    np.testing.assert_allclose(p.detach(), y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(optimizer.state[p]["lead"], z - y, rtol=0, atol=1e-6)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_the_same_bits_as_numpy_with_a_warm_up() -> None:
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(9).astype(np.float32), rng.standard_normal((12, 9)).astype(np.float32)
    p = torch.nn.Parameter(torch.tensor(w))
    options = {"lr": 0.3, "momentum": 0.8, "warmup_steps": 5}
    here, there = polyak.torch.ScheduleFree([("w", p)], **options), polyak.numpy.ScheduleFree({"w": w}, **options)
    for g in gradients:
        p.grad = torch.tensor(g)
        here.step()
        there.step({"w": g})
    np.testing.assert_array_equal(p.detach(), w)
    np.testing.assert_array_equal(here.averages()["w"], there.averages()["w"])


def test_weights_are_the_average_within_the_context_and_the_same_bits_after_it() -> None:
    model, optimizer = make()
    train(model, optimizer, 0, 5)
    before, averages, at = weights(model), optimizer.averages(), [p.data_ptr() for p in model.parameters()]
    with optimizer.averaged():
        assert same(weights(model), averages)
        assert same(optimizer.averages(), averages)
        assert not same(weights(model), before)
    assert same(weights(model), before)
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert same(weights(model), before)
    assert at == [p.data_ptr() for p in model.parameters()]
    model.load_state_dict(averages)
    assert same(weights(model), averages)
    assert all(set(state) == {"lead"} for state in optimizer.state.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_weights_that_the_kernel_does_not_take(dtype: Any) -> None:
    w = torch.tensor([1.0, -2.0, 3.0], dtype=dtype)
    p = torch.nn.Parameter(w.clone())
    optimizer = polyak.torch.ScheduleFree([("p", p)], lr=0.25, momentum=0.5)
    for _ in range(2):
        p.grad = w.clone()
        optimizer.step()
    before = p.detach().clone()
    # z is w - w / 4, then w - w / 2; x their mean, exact in each dtype.
    with optimizer.averaged():
        assert torch.equal(p.detach(), w * 0.625)
        assert p.dtype == dtype
    assert torch.equal(p.detach(), before)


def test_no_step_no_second_context_and_no_loading_within() -> None:
    model, optimizer = make()
    train(model, optimizer, 0, 3)
    before = weights(model)
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match=r"A step within `with optimizer.averaged\(\)`"):
            optimizer.step(closure=lambda: pytest.fail("takes gradients at the average"))
        with pytest.raises(RuntimeError, match="cannot be nested"), optimizer.averaged():
            pass
        with pytest.raises(RuntimeError, match="cannot be loaded within"):
            optimizer.load_state_dict(optimizer.state_dict())
    assert same(weights(model), before)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("order", ["model first", "optimizer first"])
def test_a_checkpoint_goes_on_with_the_same_bits(within: bool, order: str) -> None:
    model, optimizer = make(warmup_steps=4)
    train(model, optimizer, 0, 6)
    if within:
        with optimizer.averaged():
            saved, state = weights(model), copy.deepcopy(optimizer.state_dict())
    else:
        saved, state = weights(model), copy.deepcopy(optimizer.state_dict())
    averages = optimizer.averages()
    other, loaded = make(warmup_steps=2)
    for load in (other.load_state_dict, loaded.load_state_dict)[:: 1 if order == "model first" else -1]:
        load(saved if load == other.load_state_dict else state)
    assert same(loaded.averages(), averages)
    if within:
        assert same(weights(other), averages)
    train(model, optimizer, 6, 9)
    train(other, loaded, 6, 9)
    assert same(weights(model), weights(other))
    assert same(optimizer.averages(), loaded.averages())


def test_gradients_that_were_taken_at_the_average_are_refused() -> None:
    """Of parameters without a module, no hook can bring back what is trained."""

    def fresh() -> tuple[Any, Any]:
        p = torch.nn.Parameter(torch.ones(3))
        return p, polyak.torch.ScheduleFree([p], lr=0.5)

    (p, optimizer), (q, other) = fresh(), fresh()
    for each in (p, q):
        each.grad = torch.arange(3.0)
    optimizer.step()
    with optimizer.averaged():
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(RuntimeError, match=r"`with optimizer.averaged\(\): pass` brings back those that are trained"):
        other.step()
    with other.averaged():
        pass
    assert torch.equal(p, q)
    other.step()


def test_who_forgets_is_warned_once() -> None:
    model, optimizer = make()
    x = torch.ones(1, 3)
    model.eval()
    model(x)  # before the first step all weights are one
    train(model, optimizer, 0, 2)
    model(x)  # in train mode
    with optimizer.averaged():
        model.eval()(x)
    with pytest.warns(RuntimeWarning, match=r"Linear runs in eval mode .*`with optimizer.averaged\(\): evaluate\(model\)`"):
        model(x)
    model(x)
    assert optimizer.warned


def test_train_mode_within_the_context_leaves_the_average() -> None:
    """As for the statistics of batch normalisation."""
    model, optimizer = make()
    train(model, optimizer, 0, 2)
    averages = optimizer.averages()
    with optimizer.averaged():
        model.train()(torch.ones(1, 3))
        assert same(weights(model), averages)


def test_only_its_own_parameters_are_watched() -> None:
    model, optimizer = make()
    train(model, optimizer, 0, 2)
    other, _ = make()
    other.eval()(torch.ones(1, 3))
    assert not optimizer.warned


def test_a_state_that_was_saved_within_is_no_reason_for_a_warning() -> None:
    model, optimizer = make()
    train(model, optimizer, 0, 2)
    with optimizer.averaged():
        state = copy.deepcopy(optimizer.state_dict())
        other, loaded = make()
        other.load_state_dict(model.state_dict())
    loaded.load_state_dict(state)
    other.eval()(torch.ones(1, 3))
    train(other, loaded, 2, 3)
    with pytest.warns(RuntimeWarning, match="eval mode"):
        other.eval()(torch.ones(1, 3))


def test_the_hook_is_there_while_an_optimizer_is() -> None:
    model, optimizer = make()
    another = copy.deepcopy(optimizer)
    assert len(_global_forward_pre_hooks) == 1
    del optimizer
    gc.collect()
    assert len(_global_forward_pre_hooks) == 1
    del another
    gc.collect()
    assert not _global_forward_pre_hooks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.eval()(torch.ones(1, 3))


def test_averages_need_names() -> None:
    with pytest.raises(ValueError, match=r"Make it with model.named_parameters\(\)"):
        polyak.torch.ScheduleFree([torch.nn.Parameter(torch.zeros(3))]).averages()


def test_parameters_without_a_gradient_are_their_own_average() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = polyak.torch.ScheduleFree([("p", p), ("q", q)], lr=0.5)
    p.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(optimizer.averages()["q"], q)
    with optimizer.averaged():
        assert torch.equal(q, torch.ones(3))


def test_a_group_that_is_added_later_counts_its_own_steps() -> None:
    p, q, r = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer, fresh = (polyak.torch.ScheduleFree([x], lr=0.5, warmup_steps=3) for x in (p, r))
    grads = [torch.arange(3.0) + t for t in range(4)]
    p.grad = grads[0]
    for _ in range(5):
        optimizer.step()
    optimizer.add_param_group({"params": [q]})
    for g in grads:
        q.grad, r.grad = g.clone(), g.clone()
        optimizer.step()
        fresh.step()
    assert torch.equal(q, r)


@pytest.mark.parametrize(
    ("options", "said"), [({"momentum": 0}, r"momentum must be in \(0, 1\]"), ({"warmup_steps": -1}, "warmup")]
)
def test_numbers_out_of_range(options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**options)
