"""`polyak.torch.Momentum` as a torch optimizer: the recursion, options, groups, schedulers, clipping."""

import copy
import io
import itertools
import math
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, lr_scheduler

from polyak.compile import CHUNK
from polyak.rules.heavy_ball import HEAVY_BALL
from polyak.torch import Momentum
from textbook import train

SHAPES = [(), (0, 3), (1,), (5, 4)]


def make(shapes: Any = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=rng).requires_grad_() for shape in shapes]


def give_gradients(step: int, *lists: list[Tensor]) -> None:
    """The same gradients to each list of parameters."""
    for params in lists:
        rng = torch.Generator().manual_seed(1000 + step)
        for p in params:
            p.grad = torch.randn(p.shape, dtype=p.dtype, generator=rng)


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


SGD_OPTIONS = [
    dict(zip(("momentum", "dampening", "nesterov", "weight_decay", "maximize"), values, strict=True))
    for values in itertools.product((0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.01), (False, True))
    if (values[0] or not (values[1] or values[2])) and not (values[1] and values[2])
]


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items() if v) or "plain")
def test_equal_to_sgd(options: dict[str, Any]) -> None:
    """After its first step, which torch leaves undampened, SGD hands over to Momentum, and both go on alike."""
    ours, theirs = make(), make()
    sgd = SGD(theirs, lr=0.05, **options)
    give_gradients(0, theirs)
    sgd.step()
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            p.copy_(q)
    optimizer = Momentum(ours, 0.05, options["momentum"])
    optimizer.load_state_dict(sgd.state_dict())
    for t in range(1, 200):
        give_gradients(t, ours, theirs)
        optimizer.step()
        sgd.step()
    for p, q in zip(ours, theirs, strict=True):
        # 200 steps of float64 with terms of size 1, which fused products round elsewhere.
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
@pytest.mark.parametrize(("velocity", "nesterov", "dampened"), HEAVY_BALL)
def test_follows_the_literature(velocity: Any, nesterov: bool, dampened: bool, decay: Any) -> None:
    params = make()
    start = [p.detach().clone() for p in params]
    dampening = 0.25 if dampened else 0.0
    wd = 0.1 if decay else 0.0
    lr, m = [0.1 / (1 + t) for t in range(20)], [0.5 + 0.02 * t for t in range(20)]
    options = {"nesterov": nesterov, "velocity": velocity, "dampening": dampening, "weight_decay": wd, "decay": decay}
    optimizer = Momentum(params, lr[0], m[0], **options)
    gradients = []
    for t in range(20):
        optimizer.param_groups[0].update(lr=lr[t], momentum=m[t])
        give_gradients(t, params)
        gradients.append([p.grad for p in params])
        optimizer.step()
    name = velocity + ("_nesterov" if nesterov else "")
    for i, p in enumerate(params):
        weights, v = train(name, start[i], [g[i] for g in gradients], lr=lr, m=m, d=dampening, wd=wd, decay=decay)
        # Rounding of 20 steps with terms of size 10 at most.
        torch.testing.assert_close(p.detach(), weights[-1], rtol=0, atol=1e-13)
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], v, rtol=0, atol=1e-13)


def test_gradients_are_only_read() -> None:
    params = make()
    optimizer = Momentum(params, 0.1, nesterov=True, weight_decay=0.1, decay="coupled", max_norm=0.1, maximize=True)
    give_gradients(0, params)
    before = [p.grad.clone() for p in params]
    versions = [p.grad._version for p in params]
    optimizer.step()
    assert same_bits([p.grad for p in params], before)
    assert [p.grad._version for p in params] == versions


def test_the_number_of_threads_changes_no_bit() -> None:
    shapes = [(3 * CHUNK + 17,), (CHUNK,), (5,), (2 * CHUNK - 1,)]
    results = []
    try:
        threads = torch.get_num_threads()
        for n in (1, 2):
            torch.set_num_threads(n)
            params = make(shapes, torch.float32)
            optimizer = Momentum(params, 0.1, max_norm=1.0)
            for t in range(3):
                give_gradients(t, params)
                optimizer.step()
            results.append((params, optimizer.grad_norm))
    finally:
        torch.set_num_threads(threads)
    assert same_bits(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_a_tensor_that_moves_or_changes_is_found() -> None:
    """Whatever another does to parameters, gradients and state between two steps, SGD's result is the result."""
    ours, theirs = make([(3, 3), (4,)]), make([(3, 3), (4,)])
    pairs = [(Momentum(ours, 0.1), ours), (SGD(theirs, 0.1, momentum=0.9), theirs)]

    def other_storage(o: Any, params: list[Tensor]) -> None:  # noqa: ARG001
        params[0].data = params[0].data.clone()

    def same_gradient_transposed(o: Any, params: list[Tensor]) -> None:  # noqa: ARG001
        params[0].grad = params[0].grad.t()

    def one_gradient_missing(o: Any, params: list[Tensor]) -> None:  # noqa: ARG001
        params[1].grad = None

    def other_slot(o: Any, params: list[Tensor]) -> None:
        o.state[params[0]]["momentum_buffer"] = torch.ones(3, 3, dtype=torch.float64)

    def moved_slot(o: Any, params: list[Tensor]) -> None:
        o.state[params[0]]["momentum_buffer"].data = o.state[params[0]]["momentum_buffer"] * 2

    def other_state(o: Any, params: list[Tensor]) -> None:
        o.state[params[0]] = {"momentum_buffer": torch.ones(3, 3, dtype=torch.float64)}

    def no_slot(o: Any, params: list[Tensor]) -> None:
        del o.state[params[0]]["momentum_buffer"]

    def no_state(o: Any, params: list[Tensor]) -> None:  # noqa: ARG001
        o.state.clear()

    def no_state_of_one(o: Any, params: list[Tensor]) -> None:
        del o.state[params[1]]

    def other_parameter(o: Any, params: list[Tensor]) -> None:
        new = params[0].detach().clone().requires_grad_()
        o.state[new] = o.state.pop(params[0])
        new.grad, params[0].grad = params[0].grad, None
        params[0] = o.param_groups[0]["params"][0] = new

    def other_order(o: Any, params: list[Tensor]) -> None:  # noqa: ARG001
        o.param_groups[0]["params"].reverse()

    def shared(o: Any, params: list[Tensor]) -> None:
        o.state[params[0]]["momentum_buffer"].share_memory_()
        params[0].share_memory_()

    nothing = [lambda o, params: None] * 2  # noqa: ARG005
    changes = [
        other_storage,
        same_gradient_transposed,
        one_gradient_missing,
        other_slot,
        moved_slot,
        other_state,
        no_slot,
        no_state,
    ]
    changes += [no_state_of_one, other_parameter, other_order, shared]
    for t, change in enumerate(itertools.chain(*([each, *nothing] for each in changes))):
        for optimizer, params in pairs:
            give_gradients(t, params)
            change(optimizer, params)
            optimizer.step()
        for p, q in zip(ours, theirs, strict=True):
            # Rounding of float64 with terms of size 10.
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12, msg=lambda m, change=change: f"after {change.__name__}: {m}")


def test_parameters_frozen_without_gradient_and_late() -> None:
    ours, theirs = make([(3,), (4,), (5,)]), make([(3,), (4,), (5,)])
    pairs = [(Momentum(ours[:2], 0.1), ours), (SGD(theirs[:2], 0.1, momentum=0.9), theirs)]
    for t in range(9):
        for optimizer, params in pairs:
            give_gradients(t, params)
            if t < 3:
                params[1].grad = None
            if t == 5:
                params[0].grad = None
                optimizer.add_param_group({"params": [params[2]], "lr": 0.01, "momentum": 0.5})
            optimizer.step()
            if t == 0:
                assert params[1] not in optimizer.state
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-13)  # rounding of float64
    Momentum(make(), 0.1).step()  # no gradient at all


def test_groups_have_values_of_their_own() -> None:
    ours, theirs = make([(3,), (4,), (2,)]), make([(3,), (4,), (2,)])

    def groups(params: list[Tensor], **more: Any) -> list[dict[str, Any]]:
        return [
            {"params": params[:1], "lr": 0.2, "weight_decay": 0.0},
            {"params": params[1:2], "momentum": 0.5, "nesterov": True, **more},
            {"params": params[2:], "momentum": 0.0},
        ]

    optimizer = Momentum(groups(ours, velocity="gradient"), 0.1, weight_decay=0.01, decay="coupled")
    sgd = SGD(groups(theirs), 0.1, momentum=0.9, weight_decay=0.01)
    for t in range(5):
        give_gradients(t, ours, theirs)
        optimizer.step()
        sgd.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)  # rounding of float64
    assert ours[2] not in optimizer.state  # momentum 0 keeps no slot


def test_closure_hooks_zero_grad() -> None:
    (p,) = make([(3,)])
    optimizer, calls = Momentum([p], 0.1), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        calls.append("closure")
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert isinstance(loss, Tensor)
    assert calls == ["before", "closure", "after"]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_backward_pass_that_needs_the_old_weight_says_so() -> None:
    (p,) = make([(3,)])
    optimizer = Momentum([p], 0.1)
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_copies_and_pickles_go_on() -> None:
    params = make()
    optimizer = Momentum(params, 0.1, 0.8, nesterov=True, max_norm=2.0)
    give_gradients(0, params)
    optimizer.step()

    def saved_and_loaded(o: Any) -> Any:
        file = io.BytesIO()
        torch.save(o, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    others = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), saved_and_loaded(optimizer)]  # noqa: S301
    for o in (optimizer, *others):
        for t in range(1, 4):
            give_gradients(t, o.param_groups[0]["params"])
            o.step()
    for o in others:
        assert o.param_groups[0]["params"][3] is not params[3]
        assert same_bits(o.param_groups[0]["params"], params)


SCHEDULERS = [
    lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=12),
    lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=3),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=5),
    lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[4]),
    lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    lambda o: lr_scheduler.StepLR(o, step_size=3),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("tensor", [False, True])
def test_schedulers(scheduler: Any, tensor: bool) -> None:
    ours, theirs = make(), make()
    lr = [torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1 for _ in range(2)]
    pairs = [(Momentum(ours, lr[0]), ours), (SGD(theirs, lr[1], momentum=0.9), theirs)]
    schedulers = [scheduler(optimizer) for optimizer, _ in pairs]
    for t in range(12):
        give_gradients(t, ours, theirs)
        for (optimizer, _), each in zip(pairs, schedulers, strict=True):
            optimizer.step()
            if t < 11:
                each.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-13)  # rounding of float64


def test_momentum_from_zero_and_to_zero() -> None:
    p = torch.tensor([8.0], requires_grad=True)
    optimizer = Momentum([p], 0.5, momentum=0)

    def step(g: float, **options: float) -> None:
        optimizer.param_groups[0].update(options)
        p.grad = torch.tensor([g])
        optimizer.step()

    step(2.0)
    assert not optimizer.state
    step(2.0, momentum=0.5)  # v = 2
    step(2.0)  # v = 3
    step(1.0, momentum=0.0)  # v = 1
    assert p.item() == 8 - 1 - 1 - 1.5 - 0.5
    assert optimizer.state[p]["momentum_buffer"].item() == 1.0


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_max_norm(momentum: float) -> None:
    """As clip_grad_norm_ and a step, but for the 1e-6 that torch adds to the norm; below the bound no bit changes."""
    ours, theirs, free = make(), make(), make()
    groups = [{"params": ours[:2]}, {"params": ours[2:], "lr": 0.2}]
    optimizer = Momentum(groups, 0.1, momentum, max_norm=0.25)
    others = [Momentum([{"params": params[:2]}, {"params": params[2:], "lr": 0.2}], 0.1, momentum) for params in (theirs, free)]
    for t in range(5):
        give_gradients(t, ours, theirs)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.25)
        optimizer.step()
        others[0].step()
        assert optimizer.grad_norm == pytest.approx(norm.item(), rel=1e-14)
        for p, q in zip(ours, theirs, strict=True):
            # torch divides by norm + 1e-6, and the norm is at least 1.
            torch.testing.assert_close(p, q, rtol=0, atol=2e-6)
    with torch.no_grad():
        for p, q in zip(free, ours, strict=True):
            p.copy_(q)
    others[1].load_state_dict({**optimizer.state_dict(), "param_groups": others[1].state_dict()["param_groups"]})
    for group in optimizer.param_groups:
        group["max_norm"] = math.inf
    give_gradients(9, ours, free)
    optimizer.step()
    others[1].step()
    assert same_bits(ours, free)


@pytest.mark.parametrize(("value", "others"), [(math.inf, 1.0), (math.nan, math.nan)])
def test_a_norm_that_is_not_finite_shows(value: float, others: float) -> None:
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.tensor([value, 1.0, 1.0])
    optimizer = Momentum([p], 0.1, max_norm=1.0)
    optimizer.step()
    assert optimizer.grad_norm == pytest.approx(value, nan_ok=True)
    assert p.tolist() == pytest.approx([math.nan, others, others], nan_ok=True)


def test_grad_scaler_and_accumulation() -> None:
    """A scaler skips the step whose gradients overflowed, and unscales the others."""
    results = []
    for kind in (Momentum, SGD):
        (p,) = make([(4,)], torch.float32)
        optimizer = kind([p], lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for t in range(4):
            optimizer.zero_grad()
            for part in range(2):  # accumulation
                factor = math.inf if (t, part) == (1, 1) else 1.0 + t
                scaler.scale((p * p).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(p)
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=0)  # float32
    assert torch.isfinite(results[0]).all()


def test_several_threads() -> None:
    """Optimizers in threads of their own, each on kernels that use several threads."""
    shapes = [(2 * CHUNK,), (100,)]

    def run(params: list[Tensor]) -> None:
        optimizer = Momentum(params, 0.1)
        for t in range(10):
            give_gradients(t, params)
            optimizer.step()

    every = [make(shapes, torch.float32) for _ in range(5)]
    run(every[0])
    workers = [threading.Thread(target=run, args=(params,)) for params in every[1:]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(same_bits(every[0], params) for params in every[1:])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"lr": -1.0}, ValueError, "got -1.0"),
        ({"lr": "0.1"}, TypeError, "got '0.1'"),
        ({"momentum": 1.0}, ValueError, "got 1.0"),
        ({"dampening": 1.5}, ValueError, "got 1.5"),
        ({"velocity": "speed"}, ValueError, "got 'speed'"),
        ({"weight_decay": 0.1}, ValueError, "needs decay"),
        ({"decay": "coupled"}, ValueError, "no effect"),
        ({"max_norm": -1.0}, ValueError, "max_norm must be above 0"),
        ({"momentum": 0.0, "nesterov": True}, ValueError, "no effect"),
        ({"nesterov": True, "dampening": 0.1}, ValueError, "takes no dampening"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Momentum(make(), **options)
    good, bad = make(), make()
    optimizer = Momentum(good)
    if "decay" not in options:  # which a group without weight decay may have
        with pytest.raises((error, ValueError)):
            optimizer.add_param_group({"params": bad, **options})
        assert len(optimizer.param_groups) == 1


def test_what_a_scheduler_sets_is_checked() -> None:
    params = make()
    optimizer = Momentum(params)
    give_gradients(0, params)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    for name, value in {"momentum": 1.0, "lr": -1.0, "weight_decay": 0.1, "max_norm": 0.0}.items():
        was = optimizer.param_groups[0][name]
        optimizer.param_groups[0][name] = value
        with pytest.raises(ValueError, match=name.replace("lr", "learning_rate")):
            optimizer.step()
        optimizer.param_groups[0][name] = was
    assert same_bits(params, before)
    optimizer.step()


def test_max_norm_is_one_for_all_groups() -> None:
    optimizer = Momentum(make(), max_norm=1.0)
    with pytest.raises(ValueError, match=re.escape("got [1.0, 2.0]")):
        optimizer.add_param_group({"params": make(), "max_norm": 2.0})


def test_in_a_compiled_training_step() -> None:
    """torch.compile leaves the step to the kernel, which is compiled already."""
    ours, theirs = make([(3,)], torch.float32), make([(3,)], torch.float32)
    pairs = [(Momentum(params, 0.1, max_norm=1.0), params) for params in (ours, theirs)]

    def step(optimizer: Momentum, params: list[Tensor]) -> None:
        optimizer.zero_grad()
        params[0].square().sum().backward()
        optimizer.step()

    compiled = torch.compile(step, backend="eager")
    for _ in range(3):
        compiled(*pairs[0])
        step(*pairs[1])
    assert same_bits(ours, theirs)


class Numbers(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Tensor:
        return torch.full((2 * CHUNK,), float(i))


def train_beside_workers() -> None:
    """The workers are forked after the kernel has used several threads, and while it does."""
    p = torch.zeros(4 * CHUNK, requires_grad=True)
    optimizer, seen = Momentum([p], 0.1), []
    for epoch in range(2):
        for batch in torch.utils.data.DataLoader(Numbers(), batch_size=2, num_workers=2):
            p.grad = batch.flatten() + epoch
            optimizer.step()
            seen.append(batch.sum().item())
    assert len(seen) == 8
    assert torch.isfinite(p).all()


def test_beside_workers_that_load_data() -> None:
    """In a process of its own: other tests bring frameworks into this one that warn of every fork."""
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import test_torch; test_torch.train_beside_workers()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
