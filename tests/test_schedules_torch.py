"""`polyak.torch.Schedule`: any hyperparameter of any torch optimizer by its name, groups, state, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.optim import SGD, AdamW

from polyak.schedules import constant, cosine, demon, linear, one_cycle, piecewise
from polyak.torch import Momentum
from polyak.torch.schedule import Schedule

STAIRS = piecewise((1, 2, 4), (1.0, 0.5, 0.25, 0.125))


def parameter(value: float = 0.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value]))


def step(optimizer, schedule, parameters):
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    schedule.step()


@pytest.mark.parametrize("make", [SGD, Momentum])
def test_the_first_update_takes_the_value_of_step_0(make):
    w = parameter()
    optimizer = make([w], lr=9.0, momentum=0.9)
    schedule = Schedule(optimizer, lr=STAIRS, momentum=piecewise((1, 3), (0.5, 0.25, 0.75)))
    expected, v = 0.0, 0.0
    for t, m in enumerate([0.5, 0.25, 0.25, 0.75, 0.75]):
        step(optimizer, schedule, [w])
        v = m * v + 1
        expected -= STAIRS(t) * v
        assert w.item() == expected
    assert schedule.count == 5


def test_values_are_floats_that_are_float32():
    cycle = one_cycle(0.7, 30)
    optimizer = Momentum([parameter()])
    schedule = Schedule(optimizer, lr=cycle.learning_rate, momentum=cycle.momentum, weight_decay=lambda t: 0.1 / (t + 3))
    optimizer.param_groups[0]["decay"] = "decoupled"
    for t in range(35):
        group = optimizer.param_groups[0]
        assert group["lr"] == cycle.learning_rate(t)
        assert group["momentum"] == cycle.momentum(t)
        assert group["weight_decay"] == float(np.float32(0.1 / (t + 3)))  # a float32 would be compared in float32
        assert type(group["lr"]) is type(group["momentum"]) is type(group["weight_decay"]) is float
        schedule.step()


def test_a_momentum_that_goes_to_0_and_stays():
    w = parameter()
    optimizer = Momentum([w], lr=1.0, momentum=0.5)
    schedule = Schedule(optimizer, momentum=demon(0.5, 2))
    for expected in (-1.0, -1.0 - (1 + 1 / 3), -1.0 - (1 + 1 / 3) - 1.0):
        step(optimizer, schedule, [w])
        assert w.item() == pytest.approx(expected, rel=1e-6)  # three float32 steps


def test_any_hyperparameter_of_any_optimizer_and_tensors_are_filled():
    rate = torch.tensor(1.0)
    optimizer = AdamW([parameter()], lr=rate, weight_decay=0.5, capturable=False, foreach=False)
    schedule = Schedule(optimizer, lr=linear(0.5, 0.0, 2), weight_decay=constant(0.25))
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    schedule.step()
    assert rate == 0.25


def test_groups():
    optimizer = SGD([{"params": [parameter()]}, {"params": [parameter()], "lr": 3.0}], lr=2.0, momentum=0.9)
    schedule = Schedule(optimizer, lr=[linear(1.0, 0.0, 4), None], momentum=linear(0.5, 0.0, 4))
    schedule.step()
    first, second = optimizer.param_groups
    assert (first["lr"], first["momentum"]) == (0.75, 0.375)
    assert (second["lr"], second["momentum"]) == (3.0, 0.375)
    # A group that comes later follows what drives all groups.
    optimizer = SGD([parameter()], lr=2.0)
    schedule = Schedule(optimizer, lr=linear(1.0, 0.0, 4))
    optimizer.add_param_group({"params": [parameter()]})
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.75, 0.75]


def test_after_an_error_nothing_has_changed():
    optimizer = SGD([parameter()], lr=2.0, momentum=0.5)
    schedule = Schedule(optimizer, lr=linear(1.0, 0.0, 4), momentum=[linear(0.5, 0.0, 4)])
    optimizer.add_param_group({"params": [parameter()]})
    with pytest.raises(ValueError, match="momentum was given 1 functions for 2 parameter groups"):
        schedule.step()
    assert schedule.count == 0
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_saved_state_goes_on(tmp_path):
    def make():
        optimizer = Momentum([parameter()], lr=1.0)
        return optimizer, Schedule(optimizer, lr=cosine(0.5, 10, warmup=3), momentum=demon(0.9, 10))

    optimizer, schedule = make()
    for _ in range(4):
        step(optimizer, schedule, optimizer.param_groups[0]["params"])
    assert schedule.state_dict() == {"count": 4}
    torch.save(schedule.state_dict(), tmp_path / "state")
    other, loaded = make()
    loaded.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for _ in range(2):
        for name in ("lr", "momentum"):
            assert other.param_groups[0][name] == optimizer.param_groups[0][name]
        schedule.step()
        loaded.step()


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])  # noqa: S301
def test_copies_drive_the_copy_of_the_optimizer(copied):
    optimizer = SGD([parameter()], lr=1.0)
    schedule = Schedule(optimizer, lr=linear(1.0, 0.0, 4))
    schedule.step()
    other = copied(schedule)
    other.step()
    assert (schedule.count, other.count) == (1, 2)
    assert optimizer.param_groups[0]["lr"] == 0.75
    assert other.optimizer.param_groups[0]["lr"] == 0.5


def test_repr():
    schedule = Schedule(SGD([parameter()], lr=1.0), lr=constant(0.5))
    assert repr(schedule) == "<Schedule of SGD at step 0, lr=piecewise(boundaries=(), values=(0.5,))>"


def test_a_schedule_in_torchs_own_lambda_scheduler():
    optimizer = Momentum([parameter()], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, STAIRS)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [STAIRS(t) for t in range(5)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs a hyperparameter to drive"),
        (
            {"rate": STAIRS},
            ValueError,
            "group 0 of SGD has no 'rate'. It has the numbers dampening, lr, momentum, weight_decay",
        ),
        ({"nesterov": STAIRS}, ValueError, "has nesterov=False, which is no number"),
        ({"params": STAIRS}, ValueError, "which is no number"),
        ({"lr": 0.1}, TypeError, "lr must be a function of the step.* got 0.1"),
        ({"lr": [0.1]}, TypeError, "lr must be a function of the step.* got 0.1"),
        ({"lr": None}, TypeError, "lr must be a function of the step.* got None"),
        ({"lr": [STAIRS, STAIRS]}, ValueError, "lr was given 2 functions for 1 parameter groups"),
        ({"lr": lambda: 0.1}, TypeError, "does not take the step"),
        ({"lr": lambda t: "0.1"}, TypeError, "lr at step 0 must be a number; got '0.1'"),  # noqa: ARG005
    ],
)
def test_bad_arguments(arguments, error, message):
    optimizer = SGD([parameter()], lr=2.0)
    with pytest.raises(error, match=message):
        Schedule(optimizer, **arguments)
    assert optimizer.param_groups[0]["lr"] == 2.0


def test_bad_optimizer_and_state():
    with pytest.raises(TypeError, match="needs a torch optimizer; got"):
        Schedule([parameter()], lr=STAIRS)
    schedule = Schedule(SGD([parameter()], lr=2.0), lr=STAIRS)
    for state in ({}, {"count": -1}, {"count": 1.5}, {"count": 1, "last_epoch": 1}):
        with pytest.raises(ValueError, match=r"no state of polyak\.torch\.Schedule"):
            schedule.load_state_dict(state)
