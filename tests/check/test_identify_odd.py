"""Identification of optimizers that are nearly those with a name, or that must not get one."""

from functools import partial
from typing import Any

import pytest
import torch

from polyak.check.drivers.loading import load, of
from polyak.check.identification import identify
from polyak.check.line import line

# Every rule is given all that any of them uses.
# ruff: noqa: ARG001, ARG005


class Odd(torch.optim.Optimizer):
    """An optimizer of a few lines, which are given to it: `rule(w, g, state, lr, t)` returns the new weights."""

    rule: Any

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(v=torch.zeros_like(p), past=torch.zeros_like(p), before=p.clone(), t=0)
                p.copy_(type(self).rule(p.clone(), p.grad, state, group["lr"], state["t"]))
                state["t"] += 1


def odd(given: Any) -> Any:
    """What an optimizer that follows a rule is identified as."""
    made = type("Made", (Odd,), {"rule": staticmethod(given)})
    return identify(of(made))


def velocity(g: Any, state: dict[str, Any], share: float = 1.0) -> Any:
    state["v"] = 0.9 * state["v"] + share * g
    return state["v"]


def test_a_velocity_that_begins_as_the_first_gradient() -> None:
    def rule(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        return w - lr * velocity(g, state, 0.1 if t else 1.0)

    identity = odd(rule)
    assert identity.kind == "momentum"
    assert identity.first_step == "dampening not applied"
    assert identity.dampening.value == pytest.approx(0.9)
    assert any("options" in doubt for doubt in identity.doubts)


@pytest.mark.parametrize(("times", "words"), [(0.0, "its gradient is forgotten"), (3.0, "its gradient counts 3 times")])
def test_a_first_step_with_another_size(times: float, words: str) -> None:
    def rule(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        return w - lr * velocity(g if t else times * g, state)

    identity = odd(rule)
    assert (identity.kind, identity.first_step) == ("momentum", words)


def test_a_first_step_without_a_velocity() -> None:
    def rule(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        return w - lr * (velocity(g, state) if t else g)

    identity = odd(rule)
    assert identity.kind == "momentum"
    assert identity.first_step.startswith("its gradient is answered by steps of 0.1, 0, 0")


def test_a_learning_rate_that_is_not_the_options() -> None:
    identity = odd(lambda w, g, state, lr, t: w - 0.99 * lr * velocity(g, state))
    assert identity.kind == "momentum"
    assert identity.learning_rate.value == pytest.approx(0.099)
    assert identity.dampening is None
    assert any("not what the options say" in doubt for doubt in identity.doubts)


def test_a_qhm_whose_learning_rate_is_not_the_options_has_no_name() -> None:
    identity = odd(lambda w, g, state, lr, t: w - lr * (0.81 * velocity(g, state) + g))
    assert identity.kind == "linear"
    assert [number.value for number in identity.momenta] == pytest.approx([0.9])
    assert any(doubt.startswith("It is qhm") for doubt in identity.doubts)


@pytest.mark.parametrize(
    ("rule", "kind", "coefficient"),
    [
        (lambda w, g, state, lr, t: w - lr * velocity(g + 0.01 * w, state), "coupled", 0.01),
        (lambda w, g, state, lr, t: w - lr * velocity(g, state) - lr * 0.01 * w, "decoupled", 0.01),
        (lambda w, g, state, lr, t: w - lr * velocity(g, state) - 0.01 * w, "independent", 0.01),
        (lambda w, g, state, lr, t: w - lr * velocity(g, state) - lr**2 * 0.01 * w, "decoupled", 0.001),
        (lambda w, g, state, lr, t: w - lr * velocity(g + lr * 0.01 * w, state), "coupled", 0.001),
        (lambda w, g, state, lr, t: w - lr * velocity(g, state) + lr * 0.01 * w, "decoupled", -0.01),
        (lambda w, g, state, lr, t: w + lr * velocity(g + 0.01 * w, state), "coupled", -0.01),
    ],
    ids=["coupled", "decoupled", "independent", "twice", "coupled twice", "growth", "up"],
)
def test_decays(rule: Any, kind: str, coefficient: float) -> None:
    identity = odd(rule)
    assert (identity.kind, identity.decay) == ("momentum", kind)
    assert identity.weight_decay.value == pytest.approx(coefficient, rel=1e-9)


def test_a_decay_that_enters_the_velocity_otherwise_than_the_gradient_has_no_name() -> None:
    def rule(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        state["past"] = 0.5 * state["past"] + 0.01 * w
        return w - lr * (velocity(g, state) + state["past"])

    identity = odd(rule)
    assert identity.kind not in ("momentum", "qhm", "several")
    assert identity.decay == "unknown"


def delayed(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    state["past"], past = g.clone(), state["past"]
    return w - lr * past


def by_weights(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    """The heavy ball from the last two weights: not the same where weights are put back."""
    state["before"], before = w.clone(), state["before"]
    return w - lr * g + 0.9 * (w - before)


def twice_at_100(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w - lr * velocity(g, state) * (2 if t == 100 else 1)


def warming_up(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w - lr * min(1.0, (t + 1) / 50) * velocity(g, state)


def every_fifth(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w - lr * velocity(g, state) * (t % 5 == 4)


def drifting(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w - lr * velocity(g, state) - 1e-3


def cubic(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w - lr * velocity(g + 1e-3 * g**3, state)


def not_finite(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
    return w / 0.0 * g


@pytest.mark.parametrize(
    "rule",
    [delayed, by_weights, twice_at_100, warming_up, every_fifth, drifting, cubic, not_finite],
    ids=lambda rule: rule.__name__,
)
def test_what_has_no_name_gets_none(rule: Any) -> None:
    identity = odd(rule)
    assert identity.kind in ("unknown", "linear")
    assert identity.learning_rate is None
    assert identity.doubts


@pytest.mark.parametrize(
    "name",
    ["polyak.torch:ScheduleFree", "schedulefree:SGDScheduleFree", "pytorch_optimizer:ScheduleFreeSGD", "torch.optim:ASGD"],
)
def test_linear_and_not_the_same_at_each_step(name: str) -> None:
    identity = identify(load(name, {"lr": 0.1}))
    assert (identity.kind, identity.linear, identity.time_invariant) == ("unknown", True, False)
    assert identity.momenta == ()
    assert identity.doubts[0].startswith("An impulse is answered by other steps at other times.")


def test_velocities_that_share_a_buffer() -> None:
    """AggMo of pytorch_optimizer keeps velocities by their momentum: two with the same momentum are one, updated twice."""
    identity = identify(load("pytorch_optimizer:AggMo", {"lr": 0.1, "betas": (0.9, 0.9)}))
    assert identity.kind == "linear"
    assert identity.momenta[0].value == pytest.approx(0.81)


def test_an_optimizer_that_refuses_is_unknown() -> None:
    def rule(w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        if w.numel() > 4:
            raise RuntimeError("too many weights")
        return w

    identity = odd(rule)
    assert identity.kind == "unknown"
    assert "too many weights" in identity.doubts[0]


class Later(Odd):
    """The heavy ball, and from a step on the sign of the velocity."""

    def __init__(self, params: Any, lr: float = 0.1, start: int = 300) -> None:
        torch.optim.Optimizer.__init__(self, params, {"lr": lr, "start": start})
        type(self).rule = staticmethod(partial(self.follow, start))

    @staticmethod
    def follow(start: int, w: Any, g: Any, state: dict[str, Any], lr: float, t: int) -> Any:
        v = velocity(g, state)
        return w - lr * (v if t < start else v.sign())


def test_a_rule_that_an_option_ends_is_not_named() -> None:
    identity = identify(of(lambda params: Later(params)))
    assert (identity.kind, identity.time_invariant) == ("unknown", False)
    assert identity.doubts[0].startswith("In the first 300 steps it is this, and later it is not: heavy ball: m = 0.9")


def test_a_rule_that_an_option_may_end_is_named_for_the_steps_that_were_seen() -> None:
    identity = identify(of(lambda params: Later(params, start=10_000)))
    assert identity.kind == "momentum"
    assert line(identity).endswith("; in the first 64 steps")
    assert "start=10000" in identity.doubts[-1]


def test_a_lion_of_which_tiny_gradients_vanish_is_one_where_they_do_not() -> None:
    identity = identify(load("check.zoo.torch_adaptive:TinyGradientsVanish", {"lr": 0.01}))
    assert identity.kind == "sign"
    assert identity.momenta[0].value == pytest.approx(0.99)


def test_a_pole_of_rounding_is_none() -> None:
    """Two velocities that take turns: one pole for their sum, and one for their difference."""
    found = identify(load("pytorch_optimizer:PNM", {}))
    assert found.kind == "linear"
    assert sorted(found.poles) == pytest.approx([-0.9, 0.9], abs=1e-6)
