"""The other methods of `polyak.torch`, and the guards that all have."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import family
import polyak.torch
from polyak.methods import METHODS

EVERY = pytest.mark.parametrize("method", METHODS)


def run(seed: int = 0, shape: tuple[int, ...] = (5, 4)) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), list(rng.standard_normal((20, *shape)))


def make(method: str, params: Any, **options: Any) -> Any:
    return getattr(polyak.torch, method)(params, **{"lr": 0.1, **family.CASES[method][0], **options})


def step(optimizer: Any, *grads: Any) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else torch.as_tensor(g, dtype=p.dtype)
    optimizer.step()


def slots(optimizer: Any, p: Any) -> list[Any]:
    return [slot.numpy() for slot in optimizer.state[p].values()]


@pytest.mark.parametrize(("method", "decay"), family.WITH_DECAYS)
def test_follows_the_literature(method: str, decay: Any) -> None:
    w, gradients = run()
    rates = [0.1 / (1 + t) for t in range(20)]
    wd = 0.1 if decay else 0.0
    wanted, velocities = family.expected(method, w, gradients, lr=rates, wd=wd, decay=decay)
    p = torch.nn.Parameter(torch.tensor(w))
    optimizer = make(method, [p], weight_decay=wd, decay=decay)
    for t, g in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = rates[t]
        step(optimizer, g)
    # Rounding of 20 steps with terms of size 10 at most.
    np.testing.assert_allclose(p.detach(), wanted, rtol=0, atol=1e-13)
    for slot, v in zip(slots(optimizer, p), velocities, strict=True):
        np.testing.assert_allclose(slot, v, rtol=0, atol=1e-13)
    assert optimizer.param_groups[0]["count"] == 20


@EVERY
def test_what_the_kernel_does_not_take_follows_the_same_rule(method: str) -> None:
    """bfloat16 weights: slots and arithmetic are float32, so all but the weight's own rounding is that of float32."""
    w, gradients = run()
    half = torch.nn.Parameter(torch.tensor(w, dtype=torch.bfloat16))
    single = torch.nn.Parameter(half.detach().float())
    one, other = make(method, [half]), make(method, [single])
    for g in gradients[:3]:
        with torch.no_grad():
            single.copy_(half.float())
        step(one, torch.tensor(g, dtype=torch.bfloat16))
        step(other, half.grad.float())
        torch.testing.assert_close(half.detach(), single.detach().bfloat16(), rtol=2**-7, atol=0)
        for a, b in zip(slots(one, half), slots(other, single), strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5)  # the fused product, a rounding of 6e-8, where terms cancel


@EVERY
def test_state_goes_on(method: str) -> None:
    def fresh() -> tuple[Any, Any]:
        p = torch.nn.Parameter(torch.tensor(run()[0]))
        return p, make(method, [("w", p)])

    gradients = run()[1]
    (p, optimizer), (q, other) = fresh(), fresh()
    for g in gradients[:3]:
        step(optimizer, g)
    with torch.no_grad():
        q.copy_(p)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.param_groups[0]["count"] == 3
    copied = copy.deepcopy(optimizer)
    for g in gradients[3:]:
        for each in (optimizer, other, copied):
            step(each, g)
    assert torch.equal(p, q)
    assert torch.equal(p, copied.param_groups[0]["params"][0])


@EVERY
def test_the_state_of_another_method_is_refused(method: str) -> None:
    for other in METHODS:
        if other == method:
            continue
        p, q = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
        optimizer, saved = make(method, [p]), make(other, [q])
        step(saved, np.ones(3))
        with pytest.raises(ValueError, match=f"is of another optimizer: .*A state of polyak.torch.{method}"):
            optimizer.load_state_dict(saved.state_dict())
        assert not optimizer.state


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_with_a_bad_gradient_is_left_out(method: str, bad: float, dtype: Any) -> None:
    def fresh(**options: Any) -> Any:
        params = [
            torch.nn.Parameter(torch.tensor(run()[0], dtype=dtype)),
            torch.nn.Parameter(torch.ones(3, dtype=torch.float64)),
        ]
        return params, make(method, [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}], **options)

    (params, optimizer), (others, twin) = fresh(finite="skip"), fresh()
    for g in run()[1][:3]:
        step(optimizer, g, np.ones(3))
        step(twin, g, np.ones(3))
        step(optimizer, g, np.array([0.0, bad, 1.0]))
        step(optimizer, np.full((5, 4), bad), None)
        for group in twin.param_groups:
            group["count"] += 2  # such steps count for what depends on the step
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert all(np.array_equal(a, b) for a, b in zip(slots(optimizer, p), slots(twin, q), strict=True))
    assert (optimizer.skipped, twin.skipped) == (6, 0)
    assert copy.deepcopy(optimizer).skipped == 6


def test_an_error_names_the_gradients_that_are_not_finite() -> None:
    model = torch.nn.Linear(2, 3)
    optimizer = make("Momentum", model.named_parameters(), finite="error")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match=r"At step 0 .* not finite: \['bias'\]"):
        step(optimizer, np.ones((3, 2)), [0, np.nan, 0])
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    nameless = make("Momentum", list(model.parameters()), finite="error")
    with pytest.raises(FloatingPointError, match=r"\['group 0, parameter 1 of shape \(3,\)'\]"):
        step(nameless, np.ones((3, 2)), [0, np.nan, 0])


def test_the_guard_is_one_for_all_groups() -> None:
    p, q = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    with pytest.raises(ValueError, match="finite looks at the gradients of all groups together"):
        make("Lion", [{"params": [p]}, {"params": [q], "finite": "skip"}])
    with pytest.raises(ValueError, match='finite must be "error"'):
        make("Lion", [p], finite="raise")


@EVERY
def test_cautious_options_differ_between_groups(method: str) -> None:
    (w, gradients), decay = run(), family.decays(method)[-1]
    params = [torch.nn.Parameter(torch.tensor(w)) for _ in range(3)]
    of_groups: list[dict[str, Any]] = [{}, {"cautious": True}, {"cautious_decay": decay == "decoupled"}]
    groups = [{"params": [p], **options} for p, options in zip(params, of_groups, strict=True)]
    optimizer = make(method, groups, weight_decay=0.1, decay=decay)
    for g in gradients:
        step(optimizer, g, g, g)
    assert not torch.equal(params[0], params[1])
    assert torch.equal(params[0], params[2]) == (decay == "coupled")
    with pytest.raises(ValueError, match="cautious_decay=True has no effect"):
        make(method, [params[0]], cautious_decay=True, weight_decay=0.1, decay="coupled")


def test_words_that_no_method_has() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'wight_decay'"):
        make("Lion", [torch.nn.Parameter(torch.zeros(3))], wight_decay=0.1)


def test_complex_parameters_have_no_signs() -> None:
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    for method, options in (("Lion", {}), ("Signum", {}), ("Momentum", {"cautious": True})):
        with pytest.raises(
            TypeError, match=r"goes by signs, which complex numbers do not have; parameters of shapes \[\(3,\)\]"
        ):
            make(method, [p], **options)
    make("QHM", [p])
