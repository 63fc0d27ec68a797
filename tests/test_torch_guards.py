"""The guards of `polyak.torch` on tensors that are not in host memory: nothing waits for the device, and steps stay the same.

Without a device, tensors in host memory are taken for tensors that are not; an operation that reads a number is then an error.
"""

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import family
import polyak.torch
from polyak.methods import METHODS
from polyak.torch import Momentum, Muon, views

# With what a device is waited for: operations beneath `item`, `bool(tensor)`, `nonzero`, `torch.equal` and the like;
# and methods that read memory without an operation, where it is the host's.
OPERATIONS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"}
METHODS_OF_TENSORS = {"tolist", "numpy", "cpu", "__array__"}
SHAPES = {"kernel": (5, 4), "bias": (4,), "scale": ()}
EVERY = pytest.mark.parametrize("method", [*METHODS, "Muon"])


class NoOperation(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in OPERATIONS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class NoMethod(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert getattr(func, "__name__", "") not in METHODS_OF_TENSORS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def never_waits() -> Iterator[None]:
    with NoOperation(), NoMethod():
        yield


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "in_host_memory", lambda t: False)  # noqa: ARG005  (as it is called)


def params(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(s, generator=rng, dtype=dtype).requires_grad_() for name, s in SHAPES.items()}


def make(method: str, of: dict[str, Tensor], **options: Any) -> Any:
    arguments = {} if method == "Muon" else family.CASES[method][0]
    return getattr(polyak.torch, method)(of.items(), **{"lr": 0.1, **arguments, **options})


def give(of: dict[str, Tensor], step: int, bad: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> None:
    rng = torch.Generator().manual_seed(100 + step)
    for name, p in of.items():
        g = 3 * torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p.dtype)
        p.grad = None if name in without else torch.full_like(g, torch.nan) if name in bad else g


def step(optimizer: Any) -> None:
    with never_waits():
        optimizer.step()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, p in ours.items():
        assert torch.equal(p, theirs[name]), name


def test_the_mode_sees_what_waits() -> None:
    for read in (lambda t: t.sum().item(), lambda t: bool(t.sum()), Tensor.tolist, Tensor.nonzero, np.asarray, Tensor.cpu):
        with pytest.raises(AssertionError, match="waits for the device"), never_waits():
            read(torch.ones(3))


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(("method", "finite"), [("Momentum", "off"), ("Muon", "skip"), *((m, "error") for m in METHODS)])
def test_the_steps_are_those_of_the_host(method: str, finite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound that some steps meet and some do not, and gradients that are not there at each step."""
    ours, theirs = params(), params()
    decay = {} if method == "Muon" else {"decay": family.decays(method)[-1]}
    options = {"max_norm": 14.0, "finite": finite, "weight_decay": 0.1, **decay}
    optimizer, host = make(method, ours, **options), make(method, theirs, **options)
    norms = []
    for t in range(4):
        without = ("bias",) if t == 1 else ()
        give(ours, t, without=without)
        give(theirs, t, without=without)
        step(optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(views, "in_host_memory", lambda t: True)  # noqa: ARG005
            host.step()
        assert optimizer.grad_norm == pytest.approx(host.grad_norm, rel=1e-14)  # a sum of float64 in another order
        norms.append(optimizer.grad_norm)
    assert min(norms) < 14 < max(norms)
    for name, p in ours.items():
        # Rounding of float64, without fused multiply-adds, times the slope of Muon's polynomials at 0, 1,000.
        torch.testing.assert_close(p, theirs[name], rtol=0, atol=1e-11 if method == "Muon" else 1e-14)
    assert (optimizer.skipped, host.skipped) == (0, 0)


@pytest.mark.usefixtures("on_device")
@EVERY
@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_step_that_is_left_out_changes_nothing(method: str, max_norm: float | None, dtype: torch.dtype) -> None:
    ours, theirs = params(dtype), params(dtype)
    options = {"max_norm": max_norm, "finite": "skip"}
    optimizer, other = make(method, ours, **options), make(method, theirs, **options)
    for t in range(3):
        for bad in (("kernel",), ("bias",), tuple(SHAPES)):
            give(ours, t, bad=bad)
            step(optimizer)
        give(ours, t)
        give(theirs, t)
        for group in other.param_groups:
            group["count"] += 3  # such steps count for what depends on the step
        step(optimizer)
        step(other)
    assert_same(ours, theirs)
    for name, p in ours.items():
        assert_same(optimizer.state[p], other.state[theirs[name]])
    assert (optimizer.skipped, other.skipped) == (9, 0)
    assert optimizer.grad_norm == other.grad_norm  # of the last step that was taken


@pytest.mark.usefixtures("on_device")
@EVERY
@pytest.mark.parametrize("look", ["check_finite", "skipped", "state_dict"])
def test_an_error_comes_when_the_host_looks(method: str, look: str) -> None:
    ours = params()
    before = {name: p.detach().clone() for name, p in ours.items()}
    optimizer = make(method, ours, finite="error")
    give(ours, 0, bad=("kernel",))
    step(optimizer)
    give(ours, 1, bad=("scale", "bias"), without=("kernel",))
    step(optimizer)
    give(ours, 2)
    for p in ours.values():
        p.grad = torch.zeros_like(p)
    optimizer.zero_grad()
    order = [name for name, _ in optimizer._named()]  # Muon has its matrices first
    latest = [name for name in order if name != "kernel"]
    with pytest.raises(FloatingPointError) as error:
        getattr(optimizer, look)() if look != "skipped" else optimizer.skipped
    assert str(error.value).startswith(
        f"At step 1 (counted from 0) the gradients of these parameters are not finite: {latest}."
    )
    assert str(error.value).endswith("In steps before that, those of ['kernel'] were not finite.")
    optimizer.check_finite()  # once
    assert optimizer.skipped == 2
    assert_same(ours, before)


@pytest.mark.usefixtures("on_device")
def test_parameters_may_come_and_go_before_anybody_looks() -> None:
    p, q = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = Momentum([("p", p)], finite="error")
    p.grad = torch.tensor([1.0, torch.inf])
    step(optimizer)
    optimizer.add_param_group({"params": [("q", q)]})
    q.grad, p.grad = torch.full((3,), torch.nan), None
    optimizer.param_groups[0]["count"] = 5
    step(optimizer)
    with pytest.raises(FloatingPointError, match=r"At step 5 .*\['q'\].* before that, those of \['p'\]"):
        optimizer.check_finite()


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])  # noqa: S301
@EVERY
def test_copies_know_what_was_left_out(method: str, way: Any) -> None:
    ours = params()
    optimizer = make(method, ours, finite="error", max_norm=1.0)
    give(ours, 0)
    step(optimizer)
    give(ours, 1, bad=("bias",))
    step(optimizer)
    copied = way(optimizer)
    for each in (copied, optimizer):
        with pytest.raises(FloatingPointError, match=r"\['bias'\]"):
            each.check_finite()
        assert each.skipped == 1


@pytest.mark.usefixtures("on_device")
def test_gradients_that_are_part_of_a_graph_are_not_kept() -> None:
    """As `backward(create_graph=True)` leaves them: the norm holds no graph."""
    p = torch.ones(3, requires_grad=True)
    optimizer = Momentum([p], max_norm=1.0, finite="error")
    p.grad = (p * p).exp()
    step(optimizer)
    assert not optimizer._guard.norm.requires_grad
    assert optimizer.grad_norm == pytest.approx(3**0.5 * torch.e, rel=1e-6)  # float32


def test_a_mixed_model_is_judged_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some parameters in host memory and some not: one verdict for all, which then may be waited for."""
    ours, theirs = params(torch.float32), params(torch.float32)
    optimizer, other = (make("Momentum", of, max_norm=1.0, finite="skip") for of in (ours, theirs))
    monkeypatch.setattr(views, "in_host_memory", lambda t: t.ndim != 2)
    for t in range(4):
        bad = ("kernel",) if t == 2 else ()
        give(ours, t, bad=bad)
        give(theirs, t, bad=bad)
        optimizer.step()
        with monkeypatch.context() as patch:
            patch.setattr(views, "in_host_memory", lambda t: True)  # noqa: ARG005
            other.step()
    assert (optimizer.skipped, other.skipped) == (1, 1)
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name], rtol=1e-6, atol=1e-6)  # float32, without fused multiply-adds


@pytest.mark.usefixtures("on_device")
def test_beside_an_optimizer_of_torch_the_host_decides() -> None:
    """It cannot be told on a device to leave a step out, so it is not asked to."""
    ours = params()
    optimizer = Muon(ours.items(), others=partial(torch.optim.AdamW, lr=0.1), finite="skip")
    before = {name: p.detach().clone() for name, p in ours.items()}
    give(ours, 0, bad=("kernel",))
    optimizer.step()
    assert_same(ours, before)
    assert optimizer.skipped == 1
