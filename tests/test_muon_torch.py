"""`polyak.torch.Muon`: the rule, its peers, roles by the modules, the second optimizer, state, schedulers."""

import copy
import io
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, lr_scheduler

import polyak.torch.matrices as module
from muon_cases import WRONG
from polyak.rules.muon import Matrices, muon
from polyak.torch import Momentum
from polyak.torch.muon import Muon
from polyak.update import pipeline

SHAPES = {"a": (6, 4), "b": (6, 4), "c": (4, 20), "conv": (4, 3, 2, 2), "bias": (6,), "head": (3, 4)}


def make(shapes: Any = None, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = SHAPES if shapes is None else shapes
    return {name: torch.randn(shape, generator=rng).to(dtype).requires_grad_() for name, shape in shapes.items()}


def give_gradients(step: int, *of: dict[str, Tensor]) -> None:
    """The same gradients to each."""
    for params in of:
        rng = torch.Generator().manual_seed(1000 + step)
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=rng).to(p.dtype)


def train(optimizer: Any, params: dict[str, Tensor], steps: int = 5, start: int = 0) -> None:
    for t in range(start, start + steps):
        give_gradients(t, params)
        optimizer.step()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


# The step.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"nesterov": False, "scale": "match_rms_adamw"}, {"polynomial": "quintic", "steps": 3}]
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_step_is_the_rule(dtype: torch.dtype, options: dict[str, Any], weight_decay: float) -> None:
    params = make(dtype=dtype)
    expected = {name: p.detach().double() for name, p in make(dtype=dtype).items()}
    slots = {name: (torch.zeros_like(w),) for name, w in expected.items()}
    optimizer = Muon(params.items(), 0.25, 0.75, weight_decay=weight_decay, split={"c": 2}, **options)
    for t in range(5):
        give_gradients(t, params)
        optimizer.step()
        for name in ("a", "b", "c", "conv"):
            rule = muon(Matrices(tuple(params[name].shape), split=2 if name == "c" else 1), **options)
            update = pipeline(rule, "decoupled" if weight_decay else None)
            h = update.Hyperparameters(*(0.25, 0.75, weight_decay)[: 2 + bool(weight_decay)])
            g: Any = params[name].grad
            expected[name], slots[name] = update.apply(g.double(), expected[name], slots[name], h)
    for name in ("a", "b", "c", "conv"):
        # 5 steps, whose matrices have rounding errors of float32 and float64 times the slope of the polynomials at 0, 1,000.
        atol = {torch.float32: 1e-3, torch.float64: 1e-11}[dtype]
        torch.testing.assert_close(params[name].double(), expected[name], rtol=0, atol=atol)
        slot = optimizer.state[params[name]]["momentum_buffer"]
        torch.testing.assert_close(slot.double(), slots[name][0], rtol=0, atol=1e-6)
        assert slot.dtype == dtype


def test_the_rest_goes_to_the_second_rule() -> None:
    ours, theirs = make(), make()
    optimizer = Muon(ours.items(), others=partial(Momentum, lr=0.5, momentum=0.5))
    alone = Momentum([theirs["bias"], theirs["head"]], lr=0.5, momentum=0.5)
    for t in range(4):
        give_gradients(t, ours, theirs)
        optimizer.step()
        alone.step()
    assert_same({k: ours[k] for k in ("bias", "head")}, theirs)
    assert isinstance(optimizer.others, Momentum)


def test_by_default_the_second_rule_is_heavy_ball() -> None:
    ours, theirs = make(), make()
    alone = Momentum([theirs["bias"], theirs["head"]], lr=0.01, momentum=0.9)
    train(Muon(ours.items()), ours)
    train(alone, theirs)
    assert_same({k: ours[k] for k in ("bias", "head")}, theirs)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), [("spectral", "original"), ("match_rms_adamw", "match_rms_adamw")])
@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96)])
def test_equal_to_torch_muon(shape: tuple[int, int], ours: Any, theirs: str, nesterov: bool) -> None:
    mine, other = make({"w": shape}), make({"w": shape})
    start = mine["w"].detach().clone()
    common: dict[str, Any] = {"lr": 0.02, "momentum": 0.75, "nesterov": nesterov, "weight_decay": 0.5}
    train(Muon(mine.items(), polynomial="quintic", scale=ours, product_dtype=torch.float32, **common), mine)
    train(torch.optim.Muon(other.values(), adjust_lr_fn=theirs, **common), other)
    moved = torch.linalg.norm(other["w"] - start)
    # torch's products are bfloat16, rounded by 2^-9 in each of 15: a few hundredths of the smallest singular values' parts.
    assert torch.linalg.norm(mine["w"] - other["w"]) < 0.03 * moved


def test_bfloat16_products_are_near() -> None:
    shapes = {"square": (24, 24), "tall": (96, 24)}
    exact, rounded = make(shapes), make(shapes)
    before = {name: p.detach().clone() for name, p in exact.items()}
    train(Muon(exact.items()), exact)
    train(Muon(rounded.items(), product_dtype=torch.bfloat16), rounded)
    for name, p in exact.items():
        error = torch.linalg.norm(p - rounded[name]) / torch.linalg.norm(p - before[name])
        assert 1e-4 < error < 0.05  # as above; and not as exact as float32


def test_half_precision_weights_have_float32_slots() -> None:
    params, exact = make(dtype=torch.bfloat16), make(dtype=torch.bfloat16)
    exact = {name: p.detach().float().requires_grad_() for name, p in exact.items()}
    ours = Muon(params.items(), 0.25)
    give_gradients(0, params)
    for name, p in exact.items():
        p.grad = params[name].grad.float()  # type: ignore[union-attr]
    ours.step()
    Muon(exact.items(), 0.25).step()
    for name in ("a", "c", "conv"):
        assert ours.state[params[name]]["momentum_buffer"].dtype == torch.float32
        torch.testing.assert_close(params[name].float(), exact[name].bfloat16().float(), rtol=2**-8, atol=1e-3)


def test_weights_in_another_order_of_memory() -> None:
    plain, other = make(), make()
    other["a"] = other["a"].detach().mT.contiguous().mT.requires_grad_()
    other["conv"] = other["conv"].detach().to(memory_format=torch.channels_last).requires_grad_()
    train(Muon(plain.items()), plain)
    train(Muon(other.items()), other)
    for name, p in plain.items():
        # The momentum without fused multiply-adds, times the slope of the polynomials at 0.
        torch.testing.assert_close(other[name], p, rtol=0, atol=1e-4)


def test_batches_do_not_change_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {f"w{i}": (5, 8) for i in range(7)} | {"other": (8, 5)}
    together, apart = make(shapes), make(shapes)
    train(Muon(together.items()), together)
    monkeypatch.setattr(module, "BATCH_BYTES", 2 * 5 * 8 * 4)
    sizes = []
    original = module.orthogonalise
    monkeypatch.setattr(module, "orthogonalise", lambda g, *rest: sizes.append(len(g)) or original(g, *rest))  # type: ignore[func-returns-value]
    train(Muon(apart.items()), apart, 5)
    assert sizes == 5 * [2, 2, 2, 1, 1]
    for name, p in together.items():
        # Other kernels of the matrix product, times the slope of the polynomials at 0.
        torch.testing.assert_close(apart[name], p, rtol=0, atol=1e-4)


def test_gradients_are_not_written_to_and_missing_ones_pass() -> None:
    params, same = make(), make()
    optimizer = Muon(params.items())
    give_gradients(0, params)
    params["b"].grad = params["bias"].grad = None
    before = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
    optimizer.step()
    for name, g in before.items():
        assert torch.equal(g, params[name].grad)  # type: ignore[arg-type]
    assert_same({k: params[k] for k in ("b", "bias")}, same)
    assert not torch.equal(params["a"], same["a"])
    assert params["b"] not in optimizer.state


def test_zero_gradients_move_nothing() -> None:
    params, same = make(), make()
    optimizer = Muon(params.items())
    for p in params.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert_same(params, same)


def test_a_closure() -> None:
    params = make()
    optimizer = Muon(params.items())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = sum(p.square().sum() for p in params.values())  # type: ignore[assignment]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


# Roles.


class Net(nn.Module):
    """Of everything a little."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.conv = nn.Conv1d(8, 8, 3)
        self.up = nn.ConvTranspose1d(8, 4, 2)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Linear(8, 8)
        self.out = nn.Linear(8, 10, bias=False)
        if tied:
            self.out.weight = self.words.weight


def test_modules_tell_the_roles() -> None:
    report = {p.name: p for p in Muon(Net(), scale="match_rms_adamw").report().parameters}
    assert [name for name, p in report.items() if p.role == "orthogonal"] == ["conv.weight", "up.weight", "inner.weight"]
    assert report["words.weight"].why == "the weight of an embedding"
    assert report["out.weight"].why == "the last Linear: the output head"
    assert report["up.weight"].matrices == Matrices((8, 4, 2), output_axis=1)
    assert (report["up.weight"].matrices.rows, report["up.weight"].matrices.cols) == (4, 16)
    assert report["up.weight"].scale == 0.2 * 4
    assert report["norm.bias"].scale is None


def test_tied_weights_are_one_parameter() -> None:
    report = {p.name: p for p in Muon(Net(tied=True)).report().parameters}
    assert "out.weight" not in report
    assert report["words.weight"].role == "other"
    assert report["inner.weight"].role == "orthogonal"  # the head has been found


def test_a_linear_that_is_named_as_the_head_is_the_head() -> None:
    model = nn.ModuleDict({"head": nn.Linear(4, 4), "last": nn.Linear(4, 4)})
    report = {p.name: p for p in Muon(model).report().parameters}
    assert (report["head.weight"].role, report["last.weight"].role) == ("other", "orthogonal")


def test_the_report_prints() -> None:
    lines = str(Muon(Net(), roles={"words.*": "orthogonal"}, split={"words.weight": 2}).report()).splitlines()
    assert " ".join(lines[1].split()) == "words.weight 10 x 8 orthogonal 2 of 5 x 8 1 roles['words.*']"
    assert len(lines) == 1 + len(list(Net().parameters()))


def test_the_report_follows_the_groups() -> None:
    params = make({"a": (8, 2), "b": (2, 8)})
    groups = [{"params": [("a", params["a"])], "scale": "match_rms_adamw"}, {"params": [("b", params["b"])]}]
    optimizer = Muon(groups)
    assert [p.scale for p in optimizer.report().parameters] == [0.2 * 8**0.5, 1.0]


def test_no_matrix_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"(?s)no parameter to orthogonalise.*weight.*the last Linear"):
        Muon(nn.Linear(4, 4))


@pytest.mark.parametrize("params", [lambda: Net().parameters(), lambda: [{"params": list(Net().parameters())}]])
def test_names_are_needed(params: Any) -> None:
    with pytest.raises(TypeError, match=r"names of parameters.*got Parameter.*model.named_parameters\(\)"):
        Muon(params())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "learning_rate must be"),
        *WRONG,
        ({"roles": {"x": "other"}}, "roles has patterns"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(Net(), **options)


def test_complex_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'w' is of dtype torch\.complex64"):
        Muon([("w", torch.zeros(2, 2, dtype=torch.complex64, requires_grad=True))])


def test_an_option_that_became_wrong_changes_nothing() -> None:
    params, same = make(), make()
    optimizer = Muon([{"params": [("a", params["a"])]}, {"params": [("b", params["b"])]}])
    optimizer.param_groups[1]["momentum"] = 2.0
    give_gradients(0, params)
    with pytest.raises(ValueError, match="momentum must be"):
        optimizer.step()
    assert_same(params, same)


# Groups, schedulers, state.


def test_groups_have_options_of_their_own() -> None:
    params, alone = make(), make()
    optimizer = Muon([{"params": [("a", params["a"])], "lr": 0.5}, {"params": [("b", params["b"]), ("bias", params["bias"])]}])
    a, b = Muon([("a", alone["a"])], 0.5), Muon([("b", alone["b"])])
    train(optimizer, params)
    for t in range(5):
        give_gradients(t, alone)
        a.step()
        b.step()
    assert_same({k: params[k] for k in "ab"}, alone)


def test_options_of_a_group_without_matrices_are_refused() -> None:
    params = make()
    groups = [{"params": [("a", params["a"])]}, {"params": [("bias", params["bias"])], "lr": 0.5}]
    with pytest.raises(ValueError, match=r"options \(lr\) but no matrix.*bias"):
        Muon(groups)


def test_no_group_can_be_added() -> None:
    params = make()
    optimizer = Muon(params.items())
    with pytest.raises(ValueError, match="decides about all parameters at once"):
        optimizer.add_param_group({"params": [("new", torch.zeros(2, 2, requires_grad=True))]})


def test_schedulers_serve_both() -> None:
    params, same = make(), make()
    optimizer = Muon(params.items(), lr=0.25, others=partial(SGD, lr=0.5))
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    for t in range(3):
        give_gradients(t, params)
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25 / 8, 0.5 / 8]
    expected = same["bias"].detach().clone()
    for t in range(3):
        give_gradients(t, same)
        expected -= 0.5 / 2**t * same["bias"].grad  # type: ignore[operator]
    torch.testing.assert_close(params["bias"].detach(), expected)
    one_cycle = lr_scheduler.OneCycleLR(optimizer, [0.1, 0.2], total_steps=4, cycle_momentum=False)
    train(optimizer, params, 1)
    one_cycle.step()


OTHERS = [partial(Momentum, lr=0.5, momentum=0.5), partial(AdamW, lr=0.5)]


@pytest.mark.parametrize("others", OTHERS, ids=["Momentum", "AdamW"])
@pytest.mark.parametrize("way", ["state_dict", "file", "deepcopy", "pickle"])
def test_state_goes_on(way: str, others: Any) -> None:
    straight, stopped = make(), make()
    train(Muon(straight.items(), lr=0.25, others=others), straight, 6)
    optimizer = Muon(stopped.items(), lr=0.25, others=others)
    train(optimizer, stopped, 3)
    match way:
        case "deepcopy":
            optimizer, stopped = copy.deepcopy((optimizer, stopped))
        case "pickle":
            optimizer, stopped = pickle.loads(pickle.dumps((optimizer, stopped)))  # noqa: S301
        case _:
            saved = optimizer.state_dict()
            if way == "file":
                file = io.BytesIO()
                torch.save(saved, file)
                file.seek(0)
                saved = torch.load(file, weights_only=True)
            stopped = {name: p.detach().clone().requires_grad_() for name, p in stopped.items()}
            optimizer = Muon(stopped.items(), lr=7.0, others=others)
            optimizer.load_state_dict(saved)
    assert len(optimizer.state) == len(SHAPES)
    train(optimizer, stopped, 3, start=3)
    assert_same(stopped, straight)
    # The groups are still those of both.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: p.detach().clone() for name, p in stopped.items()}
    train(optimizer, stopped, 1)
    assert_same(stopped, before)


def test_matrices_are_found_by_name() -> None:
    params = make({"a": (4, 6), "b": (4, 6)})
    optimizer = Muon(params.items())
    train(optimizer, params, 2)
    turned = dict(reversed(make({"a": (4, 6), "b": (4, 6)}).items()))
    other = Muon(turned.items())
    other.load_state_dict(optimizer.state_dict())
    for name, p in params.items():
        ours, theirs = optimizer.state[p]["momentum_buffer"], other.state[turned[name]]["momentum_buffer"]
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: Muon(make({"a": (6, 4)}).items()), "1 groups of matrices and 0 others, this optimizer has 1 and 1"),
        (lambda: SGD(make().values(), lr=0.1), "0 groups of matrices and 1 others"),
        (lambda: torch.optim.Muon(make({"a": (6, 4)}).values()), r"groups with \[1\] parameters; this optimizer has .* \[4\]"),
        (lambda: Muon(make({"x": (6, 4), "bias": (6,)}).items()), r"Missing from the saved state: \['a', 'b', 'c', 'conv'\]"),
    ],
)
def test_another_state_is_refused_and_changes_nothing(saved: Any, message: str) -> None:
    params = make()
    optimizer = Muon(params.items())
    train(optimizer, params, 1)
    before = copy.deepcopy(optimizer.state_dict())
    groups = list(optimizer.param_groups)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved().state_dict())
    torch.testing.assert_close(optimizer.state_dict()["state"], before["state"], rtol=0, atol=0)
    assert all(a is b for a, b in zip(groups, optimizer.param_groups, strict=True))


def test_it_trains_a_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    x = torch.randn(256, 8)
    y = (x[:, :1] * x[:, 1:2]).tanh()
    optimizer = Muon(model, lr=0.05, others=partial(Momentum, lr=0.05))
    losses = []
    for _ in range(150):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
