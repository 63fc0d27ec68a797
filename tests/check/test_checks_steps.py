"""Changes between steps, long runs, first steps and implementations: what the zoo does not have."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from check.zoo.torch_sound import SGD, AdamW, Group, SGDOfLists
from polyak.check.checks.changes import changes, compilations, schedules
from polyak.check.checks.implementations import implementations
from polyak.check.checks.regular import first_step, regular
from polyak.check.drivers.torch import of_class
from polyak.check.finding import Outcome
from polyak.check.identification import identify
from polyak.check.identity import Identity
from polyak.check.response import answered
from polyak.check.trial import Subject, Trajectory, Trial

UNKNOWN = Identity("unknown")


def torch_subject(cls: Any, **given: Any) -> Subject:
    return of_class(cls, f"here:{cls.__name__}", given)


def found(outcome: Outcome) -> list[str]:
    return [finding.identifier for finding in outcome.findings]


def test_a_change_that_comes_a_step_late_is_noted() -> None:
    outcome = changes(torch_subject(torch.optim.ASGD), UNKNOWN)
    assert outcome.status == "pass"
    assert outcome.notes[0] == "A change of lr takes effect 1 step late in loop."


def test_a_change_of_the_sign_of_few_elements_is_seen() -> None:
    """Two elements' signs may stay as they are with another momentum; those of many do not."""
    assert changes(torch_subject(torch.optim.Rprop), UNKNOWN).findings[0].option == "lr"
    for name in ("Signum", "Lion"):
        import polyak.torch

        assert found(changes(torch_subject(getattr(polyak.torch, name), lr=0.1), UNKNOWN)) == []


def test_what_waits_before_it_begins_is_not_called_deaf() -> None:
    class Late(AdamW):
        def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
            later = self.state[p].get("step", 0) >= 8
            super().update(p, g, group if later else {**group, "lr": 0.0})

    subject = torch_subject(Late)
    assert found(changes(subject, UNKNOWN)) == []
    assert found(schedules(subject, UNKNOWN)) == []


class Compiled:
    """A subject that says how often it compiled."""

    implementations = ("loop",)

    def __init__(self, subject: Subject, each: int) -> None:
        self.subject, self.each = subject, each

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    def run(self, trial: Trial) -> Trajectory:
        return replace(self.subject.run(trial), compilations=1 + self.each * len(trial.changes))


@pytest.mark.parametrize(("each", "identifiers"), [(0, []), (1, ["recompiles"])])
def test_compilations_are_counted(each: int, identifiers: list[str]) -> None:
    assert found(compilations(Compiled(torch_subject(SGD), each), UNKNOWN)) == identifiers


class Every(AdamW):
    """Takes a step twice now and then."""

    def __init__(self, params: Any, lr: float = 0.01, **given: Any) -> None:
        super().__init__(params, lr)
        self.every = given.pop("every", 0)

    def often(self) -> int:
        return 7

    def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        before = p.clone()
        super().update(p, g, group)
        if self.state[p]["step"] % self.often() == 0:
            p.add_(p - before)


class Named(Every):
    def __init__(self, params: Any, lr: float = 0.01, *, every: int = 7) -> None:
        super().__init__(params, lr, every=every)


class Once(Every):
    """The once is late."""

    def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        super(Every, self).update(p, g, {**group, "lr": group["lr"] * (3 if self.state[p].get("step") == 206 else 1)})


def test_irregular_steps_of_an_adaptive_rule() -> None:
    assert found(regular(torch_subject(Every), UNKNOWN)) == ["irregular-steps"]
    outcome = regular(torch_subject(Once), UNKNOWN)
    assert "Steps 206 of 320" in outcome.findings[0].what
    (trial,) = outcome.findings[0].trials
    assert len(trial.gradients) == 208  # up to the step, with one after it to compare


def test_a_first_step_of_what_is_not_linear_is_noted() -> None:
    class Other(AdamW):
        """Of the difference to the gradient before, which at first is 0: as DiffGrad."""

        def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
            first = not self.state[p]
            super().update(p, g, {**group, "lr": 2 * group["lr"]} if first else group)

    outcome = first_step(torch_subject(Other), Identity("adaptive"))
    assert outcome.status == "pass"
    assert "the first step is 2 times the others" in outcome.notes[0]
    assert first_step(torch_subject(AdamW), Identity("adaptive")).notes == ()


def test_what_is_done_once_at_a_step_that_an_option_says_is_noted() -> None:
    class Interval(Every):
        def __init__(self, params: Any, lr: float = 0.01, *, interval: int = 200) -> None:
            super().__init__(params, lr)
            self.interval = interval

        def often(self) -> int:
            return self.interval

    outcome = regular(torch_subject(Interval), UNKNOWN)
    assert outcome.status == "pass"
    assert "interval=200" in outcome.notes[0]


def test_a_period_that_an_option_says_is_noted() -> None:
    outcome = regular(torch_subject(Named), UNKNOWN)
    assert outcome.status == "pass"
    assert "every=7" in outcome.notes[0]


class OnePercentMore(SGD):
    """Every hundredth step is longer by less than what changes slowly may make of it."""

    def move(self, p: torch.Tensor, direction: torch.Tensor, group: Group) -> None:
        t = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        p.sub_(direction, alpha=(1.01 if t % 100 == 0 else 1) * group["lr"])


class Stale(SGD):
    """Every hundredth gradient is that of four steps before: gradients of that period do not show it."""

    def gradient(self, p: torch.Tensor) -> torch.Tensor:
        past = self.state[p].setdefault("past", [])
        past.append(p.grad.clone())
        return past[-5] if len(past) % 100 == 1 and len(past) > 1 else p.grad


def test_a_linear_rule_is_compared_with_its_response() -> None:
    subject = torch_subject(OnePercentMore)
    outcome = regular(subject, identify(subject))
    assert "Steps 199, 299 of 320" in outcome.findings[0].what
    velocity = Identity("momentum", linear=True, time_invariant=True, poles=np.array([0.9]), residues=np.array([0.1]))
    velocity = replace(velocity, impulse=0.1 * 0.9 ** np.arange(8))
    (finding,) = regular(torch_subject(Stale), velocity).findings
    assert "Steps 100, 101, 102" in finding.what
    assert found(regular(torch_subject(SGD), velocity)) == []


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop", "RAdam", "Rprop", "Adafactor", "Muon"])
def test_steps_of_torch_are_regular(name: str) -> None:
    subject = torch_subject(getattr(torch.optim, name))
    identity = identify(subject)
    assert found(regular(subject, identity)) == []
    assert found(first_step(subject, identity)) == []


def test_a_response_is_the_recurrence_written_out() -> None:
    """One velocity with m = 0.5 and Nesterov's step, and two velocities that turn: v_t = (i/2) v_{t-1} + g and its mirror."""
    m, lr = 0.5, 0.1
    gradients = np.array([1.0, 0.0, -2.0, 3.0])
    v, steps = 0.0, []
    for g in gradients:
        v = m * v + g
        steps.append(lr * (g + m * v))
    nesterov = Identity("momentum", poles=np.array([m]), residues=np.array([lr * m]), direct=lr)
    np.testing.assert_allclose(answered(nesterov, gradients), steps, rtol=1e-15)
    turning = Identity("linear", poles=np.array([0.5j, -0.5j]), residues=np.array([0.5, 0.5]))
    np.testing.assert_allclose(answered(turning, np.array([1.0, 0, 0, 0, 0])), [1, 0, -0.25, 0, 0.0625], atol=1e-15)


def test_a_first_step_without_dampening_is_noted_where_it_is_documented() -> None:
    given: Mapping[str, Any] = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    subject = torch_subject(torch.optim.SGD, **given)
    outcome = first_step(subject, identify(subject))
    assert outcome.status == "pass"
    assert "as its documentation says" in outcome.notes[0]

    class Undocumented(torch.optim.SGD):
        """Descends."""

    subject = torch_subject(Undocumented, **given)
    assert found(first_step(subject, identify(subject))) == ["first-step-differs"]


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "ASGD", "NAdam", "Rprop"])
def test_implementations_of_torch_agree(name: str) -> None:
    outcome = implementations(torch_subject(getattr(torch.optim, name)), UNKNOWN)
    assert found(outcome) == []
    assert "loop, foreach" in outcome.evidence


def test_what_cannot_be_compiled_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("which TorchDynamo says in many lines")

    monkeypatch.setattr("polyak.check.drivers.torch.compiled.Compiled._backend", fails)
    subject = torch_subject(SGD)
    for check in (implementations, changes, compilations):
        outcome = check(subject, UNKNOWN)
        assert found(outcome) == []
        assert all("torch.compile: " in note and "\n" not in note for note in outcome.notes)
    assert "compiled refuses: torch.compile: " in implementations(subject, UNKNOWN).notes[0]


def test_a_difference_that_two_elements_do_not_show_is_shown_with_more() -> None:
    class FarApart(SGDOfLists):
        """In lists, the parameters of one dimension are forgotten."""

        def update_list(self, params: list[torch.Tensor], group: Group) -> None:
            super().update_list([p for p in params if p.ndim > 1], group)

    outcome = implementations(torch_subject(FarApart), UNKNOWN)
    assert found(outcome) == ["implementations-differ"]
    wrong, right = outcome.findings[0].trials
    assert (wrong.implementation, right.implementation) == ("foreach", "loop")
    assert set(wrong.weights) == {"w", "b"}
    assert len(wrong.gradients) == 1


def test_nothing_is_compared_where_there_is_nothing() -> None:
    assert implementations(torch_subject(torch.optim.LBFGS), UNKNOWN).status == "not applicable"
    assert regular(torch_subject(torch.optim.LBFGS), UNKNOWN).status == "not applicable"
    assert schedules(torch_subject(torch.optim.LBFGS), UNKNOWN).status == "not applicable"
