"""`polyak.numpy.Muon`: the rule on arrays, roles by names, the second optimizer, guards, copies, and its errors."""

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import polyak.numpy.muon as module
import polyak.torch
from muon_cases import OPTIONS, OTHERS, SHAPES, SPLIT, WRONG, arrays, assert_near, expected, gradients
from polyak.matrices import Matrices
from polyak.numpy import LARS, Lion, Momentum, Muon, ScheduleFree
from polyak.rules.orthogonal import band
from polyak.schedules import linear

MATRICES = [name for name in SHAPES if name not in OTHERS]


def train(optimizer: Any, steps: int = 3, start: int = 0) -> None:
    for g in gradients(start + steps)[start:]:
        optimizer.step(g)


def assert_same(ours: Any, theirs: Any) -> None:
    for name in theirs:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def only(tree: Any, names: Any) -> Any:
    return {name: tree[name] for name in names}


# The step.


@pytest.mark.parametrize(("options", "pipeline"), OPTIONS)
def test_the_step_is_the_rule(options: dict[str, Any], pipeline: dict[str, Any]) -> None:
    params = arrays(0)
    optimizer = Muon(params, 0.02, 0.75, split=SPLIT, **options, **pipeline)
    for g, exact in zip(gradients(), expected(options, **pipeline), strict=True):
        optimizer.step(g)
        assert_near(params, exact)


def test_float64_is_exact() -> None:
    params = {name: np.float64(w) for name, w in arrays(0).items()}
    optimizer = Muon(params, 0.02, 0.75, split=SPLIT)
    for g in gradients():
        optimizer.step({name: np.float64(x) for name, x in g.items()})
    # 6 steps; rounding of float64 times the slope of the polynomials at 0, 1,000.
    assert_near(params, expected({})[-1], rtol=1e-12)
    assert optimizer.slots["velocity"]["a"].dtype == np.float64


def test_equal_to_torch() -> None:
    ours, options = arrays(0), {"weight_decay": 0.5, "polynomial": "quintic", "cautious": True}
    params = {name: torch.from_numpy(w).requires_grad_() for name, w in arrays(0).items()}
    theirs = polyak.torch.Muon(params.items(), 0.02, 0.75, split=SPLIT, output_axis={"*": -1}, **options)
    optimizer = Muon(ours, 0.02, 0.75, split=SPLIT, **options)
    for g in gradients():
        optimizer.step(g)
        for name, p in params.items():
            p.grad = torch.from_numpy(g[name])
        theirs.step()
        assert_near(ours, {name: p.detach().numpy() for name, p in params.items()})


def test_float32_and_float64_beside_each_other() -> None:
    mixed = arrays(0) | {"a": np.float64(arrays(0)["a"])}
    plain = arrays(0)
    one, other = Muon(mixed), Muon(plain)
    for g in gradients(3):
        one.step(g | {"a": np.float64(g["a"])})
        other.step(g)
    assert_near(mixed, plain)


def test_singular_values() -> None:
    """Tall, wide, square; of rank one, zero; a row; huge and tiny: each direction is as long as the polynomial promises."""
    rng = np.random.default_rng(0)
    grads = {
        "tall": rng.standard_normal((30, 8)),
        "wide": 1e-30 * rng.standard_normal((8, 30)),
        "square": 1e30 * rng.standard_normal((9, 9)),
        "row": rng.standard_normal((1, 7)),
        "one": np.outer(rng.standard_normal(6), rng.standard_normal(5)),
        "zero": np.zeros((4, 5)),
    }
    grads = {name: np.float32(g) for name, g in grads.items()}
    params = {name: np.zeros_like(g) for name, g in grads.items()}
    Muon(params, lr=1.0).step(grads)
    low, high = band("polar_express", 5)
    for name, w in params.items():
        s = np.linalg.svd(np.float64(w), compute_uv=False) / module.shape_scale("spectral", Matrices(w.shape, -1))
        rank = {"one": 1, "zero": 0}.get(name, min(w.shape))
        # Rounding of float32 adds about 1e-4, and that of singular values which are 0 is amplified by up to 1,000.
        assert np.all((s[:rank] > low - 1e-4) & (s[:rank] < high + 1e-4)), name
        assert np.all(s[rank:] < 1e-3), name


def test_batches_do_not_change_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {f"w{i}": (5, 8) for i in range(5)} | {"other": (8, 5)}
    together, apart = arrays(9, shapes), arrays(9, shapes)
    Muon(together).step(arrays(0, shapes))
    monkeypatch.setattr(module, "BATCH_BYTES", 2 * 5 * 8 * 4)
    sizes = []
    original = module.orthogonalise
    monkeypatch.setattr(module, "orthogonalise", lambda g, *rest: sizes.append(len(g)) or original(g, *rest))  # type: ignore[func-returns-value]
    Muon(apart).step(arrays(0, shapes))
    assert sizes == [2, 2, 1, 1]
    assert_near(apart, together)


def test_gradients_are_only_read_and_may_be_views() -> None:
    params, same = arrays(0), arrays(0)
    g = gradients(1)[0]
    view = {name: np.asfortranarray(x) for name, x in g.items()}
    before = {name: x.copy() for name, x in view.items()}
    Muon(params, max_norm=1.0).step(view)
    Muon(same, max_norm=1.0).step(g)
    assert_same(view, before)
    assert_same(params, same)


def test_schedules_and_assigned_numbers() -> None:
    scheduled, assigned = arrays(0), arrays(0)
    follows = Muon(scheduled, linear(0.5, 0.0, 2), lambda t: 0.5 + 0.1 * t)
    optimizer = Muon(assigned, 0.5, 0.5)
    for t, g in enumerate(gradients(3)):
        optimizer.lr, optimizer.momentum = 0.5 * (1 - t / 2), 0.5 + 0.1 * t
        follows.step(g)
        optimizer.step(g)
    assert_same(scheduled, assigned)
    assert (follows.lr, optimizer.lr, follows.count) == (0.0, 0.0, 3)


def test_maximize() -> None:
    up, down = arrays(0), arrays(0)
    options = {"max_norm": 2.0, "cautious": True}
    rising, falling = Muon(up, maximize=True, **options), Muon(down, **options)
    for g in gradients(3):
        rising.step(g)
        falling.step({name: -x for name, x in g.items()})
    assert_same(up, down)


# Roles.


def test_the_report() -> None:
    params = arrays(0) | {"tok_emb": np.zeros((5, 4)), "w/0": np.zeros((4, 8)), "scale": np.zeros(())}
    optimizer = Muon(params, roles={"b": "other"}, split=SPLIT, scale="match_rms_adamw", output_axis={"w/*": 0})
    lines = str(optimizer.report()).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "a 6 x 4 orthogonal 4 x 6 0.4899 a matrix",
        "b 6 x 4 other roles['b']",
        "kernel 2 x 2 x 3 x 5 orthogonal 5 x 12 0.6928 outputs x the rest",
        "qkv 4 x 24 orthogonal 3 of 8 x 4 0.5657 a matrix",
        "bias 6 other fewer than two dimensions",
        "head 3 x 4 other named as an output head",
        "tok_emb 5 x 4 other named as an embedding",
        "w/0 4 x 8 orthogonal 4 x 8 0.5657 a matrix",
        "scale scalar other fewer than two dimensions",
    ]
    assert sorted(optimizer.slots["velocity"]) == ["a", "kernel", "qkv", "w/0"]


# The second optimizer.


def test_by_default_the_second_rule_is_heavy_ball() -> None:
    params, alone = arrays(0), only(arrays(0), OTHERS)
    train(Muon(params))
    others = Momentum(alone, lr=0.01, momentum=0.9)
    for g in gradients(3):
        others.step(only(g, OTHERS))
    assert_same(params, alone)


@pytest.mark.parametrize(
    "others",
    [
        partial(Lion, lr=0.1, weight_decay=0.5, decay="decoupled", cautious=True),
        partial(LARS, lr=linear(0.5, 0.0, 3)),
        partial(ScheduleFree, lr=0.5, warmup_steps=2),
    ],
)
@pytest.mark.parametrize("guard", [{}, {"max_norm": 1e6, "finite": "error"}])
def test_any_optimizer_may_be_the_second(others: Any, guard: dict[str, Any]) -> None:
    params, rest = arrays(0), only(arrays(0), OTHERS)
    optimizer, alone = Muon(params, others=others, **guard), others(rest)
    for g in gradients(3):
        optimizer.step(g)
        alone.step(only(g, OTHERS))
    assert_same(params, rest)
    assert optimizer.others is not None
    assert optimizer.others.count == alone.count == optimizer.count


def test_matrices_alone_need_no_second_one() -> None:
    params = only(arrays(0), MATRICES)
    optimizer = Muon(params, others=lambda rest: pytest.fail(f"called with {rest}"), finite="skip")
    optimizer.step(only(gradients(1)[0], MATRICES))
    assert optimizer.others is None


def test_no_step_while_the_second_has_its_average() -> None:
    params = arrays(0)
    optimizer = Muon(params, others=partial(ScheduleFree, lr=0.5))
    train(optimizer, 2)
    assert isinstance(optimizer.others, ScheduleFree)
    before = {name: w.copy() for name, w in params.items()}
    with optimizer.others.averaged(), pytest.raises(RuntimeError, match="A step within"):
        optimizer.step(gradients(1)[0])
    assert optimizer.count == 2
    assert_same(params, before)


# Guards.


@pytest.mark.parametrize(("name", "value"), [("kernel", np.nan), ("bias", np.inf)])
def test_a_step_left_out_changes_nothing_of_either_rule(name: str, value: float) -> None:
    params, same = arrays(0), arrays(0)
    optimizer, other = Muon(params, weight_decay=0.5, finite="error"), Muon(same, weight_decay=0.5)
    train(optimizer, 2)
    train(other, 2)
    bad = gradients(1)[0]
    bad[name].flat[-1] = value
    with pytest.raises(FloatingPointError, match=rf"At step 2 .* not finite: \['{name}'\]"):
        optimizer.step(bad)
    for mine, theirs in ((params, same), (optimizer.slots["velocity"], other.slots["velocity"])):
        assert_same(mine, theirs)
    assert optimizer.others is not None
    assert other.others is not None
    assert_same(optimizer.others.slots["velocity"], other.others.slots["velocity"])
    assert (optimizer.skipped, optimizer.count, optimizer.others.count) == (1, 3, 3)
    train(optimizer, 2, start=2)
    train(other, 2, start=2)
    assert_same(params, same)


def test_without_a_guard_a_matrix_with_a_nan_spoils_no_other() -> None:
    params = arrays(0)
    bad = gradients(1)[0]
    bad["a"][0, 0] = np.inf
    Muon(params).step(bad)
    assert np.isnan(params["a"]).all()
    assert all(np.isfinite(params[name]).all() for name in SHAPES if name != "a")


def test_the_norm_is_that_of_all_gradients() -> None:
    params, same = arrays(0), arrays(0)
    optimizer, other = Muon(params, max_norm=4.0), Muon(same)
    for g in gradients(3):
        norm = np.sqrt(sum(np.square(np.float64(x)).sum() for x in g.values()))
        assert norm > 5
        optimizer.step(g)
        assert optimizer.grad_norm == pytest.approx(norm, rel=1e-12)  # sums of float64
        other.step({name: np.float32(x * (4 / norm)) for name, x in g.items()})
    assert_near(params, same)


# Copies.


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301  (our own)
def test_copies_go_on_alone(copied: Any) -> None:
    params = arrays(0)
    optimizer = Muon(params, others=partial(Lion, lr=0.1), max_norm=2.0)
    train(optimizer, 2)
    both = copied({"optimizer": optimizer, "params": params})
    before = {name: w.copy() for name, w in params.items()}
    train(both["optimizer"], 2, start=2)
    assert_same(params, before)
    train(optimizer, 2, start=2)
    assert_same(both["params"], params)
    assert str(both["optimizer"].report()) == str(optimizer.report())


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "learning_rate must be"),
        *WRONG,
        ({"roles": {"*": "other"}}, "no parameter to orthogonalise"),
        ({"roles": {"x": "other"}}, "roles has patterns that fit no parameter"),
        ({"others": partial(Momentum, max_norm=1.0)}, r"`others` was made with max_norm=1\.0, .*Muon\(\.\.\., max_norm=1\.0\)"),
        ({"others": partial(Momentum, finite="skip")}, "`others` was made with finite='skip'"),
        ({"others": partial(Momentum, maximize=True)}, "Muon has maximize=False, and `others` was made with maximize=True"),
        ({"others": lambda rest: Momentum({"bias": rest["bias"]})}, r"all parameters that it is given, \['bias', 'head'\]"),
    ],
)
def test_wrong_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(arrays(0), **options)


@pytest.mark.parametrize("others", [lambda _: torch.optim.SGD([torch.zeros(1)]), lambda _: Muon({"w": np.eye(2)})])
def test_another_kind_of_second_optimizer(others: Any) -> None:
    with pytest.raises(TypeError, match=r"others must make another optimizer of polyak\.numpy"):
        Muon(arrays(0), others=others)
