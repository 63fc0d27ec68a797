"""The guards and other common options of `polyak.torch.Muon`: over the parameters of both rules, or for the matrices."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, lr_scheduler

from polyak.matrices import Matrices
from polyak.rules.muon import muon
from polyak.torch import Lion, Momentum, Muon, ScheduleFree
from polyak.update import pipeline

SHAPES = {"a": (6, 4), "bias": (6,), "b": (4, 6), "head": (3, 4)}
OTHERS: list[Any] = [None, partial(Lion, lr=0.1), partial(AdamW, lr=0.1), partial(SGD, lr=0.1, momentum=0.5)]
EVERY = pytest.mark.parametrize("others", OTHERS, ids=["heavy ball", "Lion", "AdamW", "SGD"])


def make(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=rng, dtype=dtype).requires_grad_() for name, shape in SHAPES.items()}


def give(of: dict[str, Tensor], step: int, factor: float = 1.0) -> None:
    rng = torch.Generator().manual_seed(100 + step)
    for p in of.values():
        p.grad = factor * torch.randn(p.shape, generator=rng, dtype=p.dtype)


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 0.0) -> None:
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name], rtol=0, atol=atol, msg=name)


def snapshot(optimizer: Any, params: dict[str, Tensor]) -> Any:
    states = {k: {n: x.clone() for n, x in s.items()} for k, s in optimizer.state_dict()["state"].items()}
    return {name: p.detach().clone() for name, p in params.items()}, states


@EVERY
def test_the_bound_is_of_all_gradients(others: Any) -> None:
    """As after `clip_grad_norm_`, which writes to the gradients: here they stay as they are."""
    ours, theirs = make(), make()
    optimizer, plain = Muon(ours.items(), others=others, max_norm=6.0), Muon(theirs.items(), others=others)
    norms = []
    for t, factor in enumerate((2.0, 0.1, 1.0)):
        give(ours, t, factor)
        give(theirs, t, factor)
        before = {name: p.grad for name, p in ours.items()}
        values = {name: g.clone() for name, g in before.items()}  # type: ignore[union-attr]
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 6.0)
        optimizer.step()
        plain.step()
        assert optimizer.grad_norm == pytest.approx(norm.item(), rel=1e-13)
        norms.append(norm)
        for name, p in ours.items():
            assert p.grad is before[name]
            assert torch.equal(p.grad, values[name])  # type: ignore[arg-type]
    assert min(norms) < 6 < max(norms)
    # torch adds 1e-6 to the norm: a part in 1e-7 of the gradients.
    assert_close(ours, theirs, atol=1e-5)
    for name, p in ours.items():
        for key, slot in optimizer.state[p].items():
            torch.testing.assert_close(slot, plain.state[theirs[name]][key], rtol=1e-6, atol=1e-9)


@EVERY
@pytest.mark.parametrize("bad", list(SHAPES))
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_step_is_taken_with_all_parameters_or_not_at_all(others: Any, bad: str, max_norm: float | None) -> None:
    params = make()
    optimizer = Muon(params.items(), others=others, finite="skip", max_norm=max_norm)
    give(params, 0)
    optimizer.step()
    before = snapshot(optimizer, params)
    for value in (torch.nan, torch.inf):
        give(params, 1)
        params[bad].grad.view(-1)[1] = value  # type: ignore[union-attr]
        optimizer.step()
    torch.testing.assert_close(snapshot(optimizer, params), before, rtol=0, atol=0)
    assert optimizer.skipped == 2
    assert [group["count"] for group in optimizer.param_groups if "count" in group] == ([3, 3] if others in OTHERS[:2] else [3])


def test_an_error_names_the_parameters_of_both() -> None:
    params = make()
    optimizer = Muon(params.items(), finite="error")
    give(params, 0)
    for name in ("bias", "b"):
        params[name].grad.view(-1)[0] = torch.nan  # type: ignore[union-attr]
    before = {name: p.detach().clone() for name, p in params.items()}
    with pytest.raises(FloatingPointError, match=r"At step 0 .* not finite: \['b', 'bias'\]"):
        optimizer.step()
    assert_close(params, before)
    assert optimizer.skipped == 1


@pytest.mark.parametrize("guard", [{"max_norm": 1.0}, {"finite": "skip"}])
def test_a_guard_of_the_others_belongs_to_muon(guard: dict[str, Any]) -> None:
    ((name, value),) = guard.items()
    with pytest.raises(ValueError, match=rf"`others` was made with {name}={value!r}.*Muon\(\.\.\., {name}={value!r}\)"):
        Muon(make().items(), others=partial(Momentum, lr=0.1, **guard))


def test_a_guard_that_became_another_changes_nothing() -> None:
    params = make()
    optimizer = Muon(params.items(), max_norm=1.0)
    before = {name: p.detach().clone() for name, p in params.items()}
    give(params, 0)
    for i in (0, 1):
        optimizer.param_groups[i]["max_norm"] = 2.0
        with pytest.raises(ValueError, match=r"max_norm bounds the norm .* same in all of them"):
            optimizer.step()
        optimizer.param_groups[i]["max_norm"] = 1.0
    assert_close(params, before)
    assert [group["count"] for group in optimizer.param_groups] == [0, 0]
    optimizer.step()


@pytest.mark.parametrize("others", [OTHERS[0], partial(Lion, lr=0.1, maximize=True), partial(AdamW, lr=0.1, maximize=True)])
def test_up_is_down_with_the_gradients_turned_round(others: Any) -> None:
    ours, theirs = make(), make()
    up = Muon(ours.items(), others=others, maximize=True, max_norm=1.0, cautious=True)
    down = partial(others, maximize=False) if others else None
    down = Muon(theirs.items(), others=down, max_norm=1.0, cautious=True)
    for t in range(3):
        give(ours, t, -1.0)
        give(theirs, t)
        up.step()
        down.step()
    assert_close(ours, theirs)


def test_both_go_the_same_way() -> None:
    for mine, theirs in ((True, False), (False, True)):
        with pytest.raises(ValueError, match=f"Muon has maximize={mine}, and `others` was made with maximize={theirs}"):
            Muon(make().items(), maximize=mine, others=partial(Lion, maximize=theirs))
    Muon(make().items(), others=lambda named: Momentum([{"params": [p], "maximize": i > 0} for i, p in enumerate(named)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("cautious", "careful"), [(True, False), (False, True), (True, True)])
def test_cautious_steps_are_those_of_the_pipeline(dtype: torch.dtype, cautious: bool, careful: bool) -> None:
    params = make(dtype)
    options: dict[str, Any] = {"cautious": cautious, "cautious_decay": careful}
    optimizer = Muon(params.items(), 0.25, 0.75, weight_decay=0.5, product_dtype=torch.float64, **options)
    update = pipeline(muon(Matrices(SHAPES["a"])), "decoupled", **options)
    h = update.Hyperparameters(learning_rate=0.25, momentum=0.75, weight_decay=0.5)
    w, slots, changed = params["a"].detach().double().clone(), (torch.zeros(SHAPES["a"], dtype=torch.float64),), []
    for t in range(4):
        give(params, t)
        before = params["a"].detach().clone()
        optimizer.step()
        w, slots = update.apply(params["a"].grad.double(), w, slots, h)  # type: ignore[union-attr]
        # 2.0**-8: of bfloat16, in which the weight is stored, of numbers up to 4.
        atol = 1e-11 if dtype == torch.float64 else 4 * 2.0**-8
        torch.testing.assert_close(params["a"].detach().double(), w, rtol=0, atol=atol)
        w = params["a"].detach().double().clone()
        changed.append((params["a"] != before).double().mean())
    assert all(0.2 < share < 1 for share in changed) == (cautious and careful)


def test_groups_are_cautious_each_for_itself() -> None:
    def run(**options: Any) -> dict[str, Tensor]:
        params = make()
        groups = [{"params": [("a", params["a"])], "cautious": True, "maximize": True}, {"params": [("b", params["b"])]}]
        optimizer = Muon(groups if not options else [("a", params["a"]), ("b", params["b"])], **options)
        for t in range(3):
            give(params, t)
            optimizer.step()
        return params

    together, careful, plain = run(), run(cautious=True, maximize=True), run(cautious=False)
    assert_close({"a": together["a"], "b": together["b"]}, {"a": careful["a"], "b": plain["b"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_norm": 0.0}, "max_norm must be above 0"),
        ({"finite": "raise"}, "finite must be"),
        ({"momentum": 1.0, "finite": "skip"}, "momentum must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(make().items(), **options)


def test_cautious_decay_needs_a_decay() -> None:
    for make_optimizer in (Muon, Momentum):
        with pytest.raises(ValueError, match="cautious_decay=True has no effect"):
            make_optimizer(make().items(), cautious_decay=True)


def test_a_group_cannot_have_another_decay() -> None:
    params = make()
    with pytest.raises(ValueError, match=r'The decay of Muon is "decoupled"'):
        Muon([{"params": list(params.items()), "decay": "coupled"}], weight_decay=0.1)
    optimizer = Muon(params.items())
    optimizer.param_groups[0]["weight_decay"] = 0.5  # what a scheduler may do
    give(params, 0)
    for p in params.values():
        p.grad.zero_()  # type: ignore[union-attr]
    before = params["a"].detach().clone()
    optimizer.step()
    torch.testing.assert_close(params["a"].detach(), (1 - 0.02 * 0.5) * before, rtol=1e-15, atol=0)


# The second optimizer is still one that can be used by itself.


@EVERY
def test_hooks_and_schedulers_of_the_others_know_of_their_steps(others: Any) -> None:
    params = make()
    optimizer = Muon(params.items(), others=others, max_norm=1.0)
    calls: list[str] = []
    optimizer.others.register_step_post_hook(lambda *_: calls.append("stepped"))  # type: ignore[union-attr]
    scheduler = lr_scheduler.StepLR(optimizer.others, 1, 0.5)  # type: ignore[arg-type]
    first = optimizer.param_groups[1]["lr"]
    for t in range(3):
        give(params, t)
        optimizer.step()
        scheduler.step()  # which warns if it has not seen a step
    assert calls == 3 * ["stepped"]
    assert optimizer.param_groups[1]["lr"] == first / 8


@EVERY
@pytest.mark.parametrize("way", ["itself", "copy"])
def test_the_others_load_a_state_of_their_own(others: Any, way: str) -> None:
    params, source = make(), make()
    optimizer = Muon(params.items(), others=others, max_norm=1e9)  # which the others keep, whatever they load
    if way == "copy":
        optimizer, params = copy.deepcopy((optimizer, params))
    saved = Muon(source.items(), others=others)
    for t in range(2):
        for each, of in ((optimizer, params), (saved, source)):
            give(of, t)
            each.step()
    saved.param_groups[1]["lr"] = 0.7
    state = copy.deepcopy(saved.others.state_dict())  # type: ignore[union-attr]
    assert len(state["state"]) == 2
    optimizer.others.load_state_dict(state)  # type: ignore[union-attr]
    assert optimizer.param_groups[1] is optimizer.others.param_groups[0]  # type: ignore[union-attr]
    assert optimizer.param_groups[1]["lr"] == 0.7
    for t in range(2, 4):
        for each, of in ((optimizer, params), (saved, source)):
            give(of, t)
            each.step()
    assert_close(params, source)
    torch.testing.assert_close(optimizer.state_dict()["state"], saved.state_dict()["state"], rtol=0, atol=0)
    assert optimizer.grad_norm is not None


def test_the_dtype_of_products_may_be_set_between_steps() -> None:
    runs = []
    for later in (None, torch.bfloat16):
        params = make(torch.float32)
        optimizer = Muon(params.items(), product_dtype=torch.float32)
        for t in range(2):
            give(params, t)
            optimizer.step()
            optimizer.product_dtype = later or torch.float32
        runs.append(params)
    for name, p in runs[0].items():
        assert torch.equal(p, runs[1][name]) == (name in ("bias", "head"))


def test_no_half_of_a_step_while_the_others_are_averaged() -> None:
    params = make()
    optimizer = Muon(params.items(), others=partial(ScheduleFree, lr=0.1))
    give(params, 0)
    optimizer.step()
    before = {name: p.detach().clone() for name, p in params.items()}
    with optimizer.others.averaged():  # type: ignore[union-attr]
        with pytest.raises(RuntimeError, match="A step within"):
            optimizer.step()
        torch.testing.assert_close(params["a"].detach(), before["a"], rtol=0, atol=0)
    assert_close(params, before)
    optimizer.step()
