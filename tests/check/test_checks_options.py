"""Whether options count, and do what their names say: what the zoo does not have."""

import math
from typing import Any

import pytest
import torch

from check.zoo.torch_sound import SGD, AdamW, Group
from polyak.check.checks.effects import effects
from polyak.check.checks.options import options
from polyak.check.checks.values import opening, others, pairs, variations
from polyak.check.drivers.torch import of_class
from polyak.check.finding import Outcome
from polyak.check.identification import identify
from polyak.check.identity import Identity
from polyak.check.trial import Subject

UNKNOWN = Identity("unknown")


def torch_subject(cls: Any, **given: Any) -> Subject:
    return of_class(cls, f"here:{cls.__name__}", given)


def found(outcome: Outcome) -> list[str | None]:
    assert (outcome.status == "fail") == bool(outcome.findings)
    return [finding.option for finding in outcome.findings]


def test_other_values_do_not_repeat_and_keep_the_kind_of_a_count() -> None:
    for value in (0, 1, 5, 0.9, 1e-8, -0.8, True, float("inf")):
        tried = list(others(value))
        assert tried
        assert len(set(tried)) == len(tried)
        assert value not in tried
    assert list(others(False)) == [True]
    assert list(others(5))[:2] == [6, 2]
    assert max(others(1e-8)) >= 1  # far above: an eps counts at last


def test_what_is_varied_of_an_option() -> None:
    assert variations("foreach", False) == []
    assert variations("log_every", 5) == []
    assert variations("transform", None) == []
    assert variations("decay", "coupled") == []
    assert variations("momentum", None) == [("momentum", [0.9, 0.5])]
    (first, values), (second, _) = variations("betas", (0.9, 0.999))
    assert (first, second) == ("betas[0]", "betas[1]")
    assert all(isinstance(value, tuple) and value[1] == 0.999 for value in values)


def test_settings_name_only_options_that_there_are() -> None:
    assert opening({"lr": 0.1}) == []
    assert {"momentum": 0.9} in opening({"lr": 0.1, "momentum": 0.0})
    assert all("nesterov" not in setting for setting in pairs({"lr": 0.1, "nesterov": False}, "nesterov", "lr"))
    assert {"weight_decay": 0.1, "lr": 0.5, "b": True} in list(pairs({"lr": 1.0, "weight_decay": 0.0, "b": False}, "c", "lr"))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Rprop", "Adafactor", "ASGD", "Adadelta"])
def test_all_options_of_torch_count(name: str) -> None:
    outcome = options(torch_subject(getattr(torch.optim, name)), UNKNOWN)
    assert outcome.status == "pass", outcome.findings
    assert ("t0 counts in an average" in " ".join(outcome.notes)) == (name == "ASGD")


class Third(SGD):
    """The last of these options counts where both others are set."""

    def __init__(
        self, params: Any, lr: float = 0.1, *, on: bool = False, amount: float = 0.0, half: bool = False, idle: int = 3
    ) -> None:
        super().__init__(params, lr)
        self.on, self.amount, self.half, self.idle = on, amount, half, idle

    def gradient(self, p: torch.Tensor) -> torch.Tensor:
        return super().gradient(p) * (1 + self.on * self.amount * (0.5 if self.half else 1))


class Second(Third):
    def __init__(self, params: Any, lr: float = 0.1, *, on: bool = True, amount: float = 0.0, half: bool = False) -> None:
        super().__init__(params, lr, on=on, amount=amount, half=half)


def test_an_option_counts_if_it_does_with_another_value_of_any_other() -> None:
    assert found(options(torch_subject(Second), UNKNOWN)) == []
    outcome = options(torch_subject(Third, on=True), UNKNOWN)
    assert found(outcome) == ["idle"]
    wrong, right = outcome.findings[0].trials
    assert wrong.options == {"idle": 4}
    assert right.options == {}


class Rare(SGD):
    """With an amount that counts in rare circumstances, which each of the classes below says."""

    def __init__(self, params: Any, lr: float = 0.1, *, amount: float = 0.5, **more: Any) -> None:
        super().__init__(params, lr, amount=amount, **more)

    def counts(self, p: torch.Tensor, group: Group) -> bool:
        raise NotImplementedError

    def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        super().update(p, g * (1 + group["amount"] * self.counts(p, group)), group)


class WithASwitchThatIsNotNamed(Rare):
    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        return bool(group.get("special"))


class WithAnotherWord(Rare):
    """The rule is 'plain' or 'other'."""

    def __init__(self, params: Any, lr: float = 0.1, *, amount: float = 0.5, rule: str = "plain") -> None:
        if rule not in ("plain", "other"):
            raise ValueError(f"rule must be 'plain' or 'other', not {rule}")
        super().__init__(params, lr, amount=amount, rule=rule)

    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        return bool(group["rule"] == "other")


class WithALoss(Rare):
    def step(self, closure: Any = None) -> Any:
        self.given = closure is not None
        return super().step(closure)

    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        p.add_(self.given)
        return self.given


class WithFewSteps(Rare):
    """After a number of steps that no trial reaches."""

    def __init__(self, params: Any, lr: float = 0.1, *, amount: float = 0.5, after: int = 5000, ranks: int = 64) -> None:
        super().__init__(params, lr, amount=amount, after=after, ranks=ranks)

    def counts(self, p: torch.Tensor, group: Group) -> bool:
        t = self.state[p]["step"] = self.state[p].get("step", 0) + 1
        return bool(t > group["after"] and max(p.shape) > group["ranks"])


class WithSmallWeights(Rare):
    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        return bool(p.norm() < 0.01)


class WithHugeGradients(Rare):
    """Of which the square is infinite, and then it is an error."""

    def counts(self, p: torch.Tensor, group: Group) -> bool:
        if group["amount"] > 0.4 and math.isinf(float(p.grad.square().sum())):
            raise RuntimeError("infinite")
        return False


@pytest.mark.parametrize(
    "cls", [WithASwitchThatIsNotNamed, WithAnotherWord, WithALoss, WithFewSteps, WithSmallWeights, WithHugeGradients]
)
def test_an_option_counts_if_it_does_in_rare_circumstances(cls: Any) -> None:
    outcome = options(torch_subject(cls), UNKNOWN)
    assert found(outcome) == []
    assert "amount" in outcome.evidence.partition("refused")[0]


class WithAClosedWord(Rare):
    def __init__(self, params: Any, lr: float = 0.1, *, amount: float = 0.5, rule: str = "plain") -> None:
        if rule != "plain":
            raise KeyError(rule)
        super().__init__(params, lr, amount=amount, rule=rule)

    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        return False


class InAnAverage(Rare):
    """Which begins at 0, so that it is not between the weights."""

    def counts(self, p: torch.Tensor, group: Group) -> bool:
        self.slot(p, "mean").mul_(group["amount"]).add_(p, alpha=1 - group["amount"])
        return False


class InTheGradient(Rare):
    """What is left of it after the step, for the next gradient to be added to."""

    def counts(self, p: torch.Tensor, group: Group) -> bool:  # noqa: ARG002  (each is given both)
        return False

    def move(self, p: torch.Tensor, direction: torch.Tensor, group: Group) -> None:
        super().move(p, direction, group)
        p.grad.mul_(1 - group["amount"])


@pytest.mark.parametrize(
    ("cls", "note"),
    [
        (WithAClosedWord, "may count with another rule, of which no other value is known"),
        (InAnAverage, "counts in an average of the weights"),
        (InTheGradient, "counts in the gradients that a step leaves"),
    ],
)
def test_what_changes_no_weight_and_is_yet_not_said_to_be_without_effect(cls: Any, note: str) -> None:
    outcome = options(torch_subject(cls), UNKNOWN)
    assert found(outcome) == []
    assert note in " ".join(outcome.notes)


def test_what_is_kept_without_being_an_average_of_the_weights_is_none() -> None:
    class Kept(Rare):
        def counts(self, p: torch.Tensor, group: Group) -> bool:
            self.slot(p, "velocity of its own").mul_(group["amount"]).add_(p.grad)
            return False

    assert found(options(torch_subject(Kept), UNKNOWN)) == ["amount"]


def test_what_refuses_other_values_or_has_no_given_gradients_is_not_judged() -> None:
    class Fixed(Third):
        def __init__(self, params: Any, lr: float = 0.1, *, idle: int = 3) -> None:
            if idle != 3:
                raise ValueError("3, nothing else")
            super().__init__(params, lr)

    outcome = options(torch_subject(Fixed), UNKNOWN)
    assert found(outcome) == []
    assert "not told: idle" in outcome.evidence
    assert options(torch_subject(torch.optim.LBFGS), UNKNOWN).status == "not applicable"


class Wrong(SGD):
    """With the options that these tests break."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.0, dampening: float = 0.0, **given: Any) -> None:
        super().__init__(params, lr, momentum, dampening, **given)


class Squared(Wrong):
    def remember(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> torch.Tensor:
        return super().remember(p, g, {**group, "momentum": group["momentum"] ** 2})


class DampedTwice(Wrong):
    def remember(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> torch.Tensor:
        return super().remember(p, g, {**group, "dampening": group["dampening"] * (2 - group["dampening"])})


class HalfNesterov(Wrong):
    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.0, *, nesterov: bool = False) -> None:
        super().__init__(params, lr, momentum, nesterov=nesterov)

    def direction(self, v: torch.Tensor, g: torch.Tensor, group: Group) -> torch.Tensor:
        return g + v * group["momentum"] / 2 if group["nesterov"] else v


class Growing(AdamW):
    def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        super().update(p, g, {**group, "weight_decay": -group["weight_decay"]})


class RootOfTheRate(AdamW):
    def update(self, p: torch.Tensor, g: torch.Tensor, group: Group) -> None:
        super().update(p, g, {**group, "lr": group["lr"] ** 0.5})


@pytest.mark.parametrize(
    ("cls", "option"),
    [
        (Squared, "momentum"),
        (DampedTwice, "dampening"),
        (HalfNesterov, "nesterov"),
        (Growing, "weight_decay"),
        (RootOfTheRate, "lr"),
    ],
)
def test_an_effect_of_another_kind_is_found_where_the_option_is_not_set(cls: Any, option: str) -> None:
    subject = torch_subject(cls)
    assert found(effects(subject, identify(subject))) == [option]


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "maximize": True}),
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.Rprop, {}),
        (torch.optim.Muon, {}),
    ],
)
def test_options_of_torch_do_what_they_say(cls: Any, given: dict[str, Any]) -> None:
    subject = torch_subject(cls, **given)
    assert found(effects(subject, identify(subject))) == []


class Cancels(SGD):
    """What `share` does is undone, but for rounding."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, share: float = 0.7) -> None:
        super().__init__(params, lr, momentum, share=share)

    def move(self, p: torch.Tensor, direction: torch.Tensor, group: Group) -> None:
        share = group["share"] or 1.0
        p.sub_(direction * share * group["lr"] / share)


def test_rounding_is_no_effect_unless_nothing_more_is_to_be_expected() -> None:
    outcome = options(torch_subject(Cancels), UNKNOWN)
    assert found(outcome) == ["share"]
    assert "share changes nothing but last digits: with share=0.7" in outcome.findings[0].what
    small = options(torch_subject(Cancels, share=1e-8), UNKNOWN)
    assert found(small) == []
    assert "share changes the weights by some last digits at most" in small.notes[0]
