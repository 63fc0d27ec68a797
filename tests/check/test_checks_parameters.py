"""Parameters do not mix: what is found, what is by design, and that what is shown is small."""

import numpy as np
import pytest
import torch

from check.checking import checked, found, shows_in_two_trials
from check.zoo.torch_sound import SGD, AdamW
from check.zoo.torch_state import OneCountForAllParameters, VelocityByShape
from polyak.check.checks.comparing import difference, rounding, trial_of
from polyak.check.checks.parameters import groups, parameters
from polyak.check.drivers.loading import load
from polyak.check.identity import Identity


class Clipped(SGD):
    """Gradients are scaled down where the norm of all of them is above `max_norm`."""

    max_norm = 1.0

    def step_group(self, params, group):
        norm = sum(p.grad.square().sum() for p in params) ** 0.5
        for p in params:
            self.update(p, self.gradient(p) * (self.max_norm / norm).clamp(max=1.0), group)


class TrustRatio(SGD):
    """Steps of a tensor are as long as a hundredth of it, as in LARS."""

    def gradient(self, p):
        g = super().gradient(p)
        return g * 0.01 * p.norm() / (g.norm() + 1e-12)


class SharedSize(AdamW):
    """One size of steps for all, from the squares of all gradients, as in Prodigy."""

    def step_group(self, params, group):
        self.total = sum(p.grad.square().sum() for p in params) ** 0.5
        super().step_group(params, group)

    def update(self, p, g, group):
        super().update(p, g, {**group, "lr": group["lr"] * float(self.total)})


class FirstParameterTwice(SGD):
    """The first parameter, whichever it is, is moved twice as far."""

    def step_group(self, params, group):
        for i, p in enumerate(params):
            self.update(p, self.gradient(p) * (2.0 if i == 0 else 1.0), group)


class InTwos(SGD):
    """Each two that follow each other are factors of one matrix, say: they take steps together or not at all."""

    def step_group(self, params, group):
        for one, other in zip(params[::2], params[1::2], strict=False):
            self.update(one, self.gradient(one) * other.grad.norm(), group)
            self.update(other, self.gradient(other) * 2, group)


class InTwosThatDependOnTheOthers(InTwos):
    """The first two take steps that are twice as long."""

    def step_group(self, params, group):
        super().step_group(params[:2], {**group, "lr": 2 * group["lr"]})
        super().step_group(params[2:], group)


def test_parameters_in_twos_are_said_and_mixed_only_if_two_depend_on_others():
    outcome = checked(parameters, InTwos, Identity("unknown"))
    assert found(outcome) == set()
    assert "in twos" in outcome.notes[0]
    assert found(checked(parameters, InTwosThatDependOnTheOthers, Identity("unknown"))) == {"parameters-mixed"}


@pytest.mark.parametrize("cls", [Clipped, TrustRatio, SharedSize, SGD, AdamW, torch.optim.Adafactor])
def test_what_is_taken_over_tensors_or_all_parameters_by_design_is_no_finding(cls):
    assert found(checked(parameters, lambda params: cls(params))) == set()


def test_a_factor_that_all_parameters_have_in_common_is_said():
    outcome = checked(parameters, SharedSize)
    assert "depends on all of them" in outcome.notes[0]
    assert found(checked(groups, SharedSize)) == set()


@pytest.mark.parametrize("cls", [FirstParameterTwice, VelocityByShape, OneCountForAllParameters])
def test_mixed_parameters_are_shown_with_two_numbers_in_two_steps(cls):
    outcome = checked(parameters, cls)
    assert found(outcome) == {"parameters-mixed"}
    (finding,) = outcome.findings
    assert shows_in_two_trials(load(f"{cls.__module__}:{cls.__qualname__}", {}), finding)
    for trial in finding.trials:
        assert all(w.size == 1 for w in trial.weights.values())
        assert len(trial.gradients) == 2


def test_groups_of_torch_have_their_own_options():
    outcome = checked(groups, "torch.optim:SGD", lr=0.1, momentum=0.9)
    assert outcome.status == "pass"
    assert "lr, momentum, weight_decay" in outcome.evidence


def test_optax_has_no_groups():
    assert checked(groups, "optax:sgd", learning_rate=0.1).status == "not applicable"


def test_parameters_of_a_trial_are_the_same_whatever_is_beside_them():
    alone, beside = trial_of({"b": (2,)}, 2, np.float32), trial_of({"a": (3,), "b": (2,)}, 2, np.float32)
    assert (alone.weights["b"] == beside.weights["b"]).all()
    assert all((one["b"] == other["b"]).all() for one, other in zip(alone.gradients, beside.gradients, strict=True))


def test_the_first_difference_is_told_in_words():
    one, other = {"w": np.array([[1.0, np.nan], [2.0, 3.0]])}, {"w": np.array([[1.0, np.nan], [2.0, 3.5]])}
    assert str(difference(one, other)) == "after step 2, w[1] is 3.5 and not 3"
    assert difference(one, other, allowed=0.6) is None
    assert difference(one, one) is None


def test_only_rounding_is_allowed():
    subject = load("torch.optim:SGD", {"lr": 0.1})
    came = subject.run(trial_of({"w": (3,)}, 2, np.float64))
    largest = np.abs(came.steps("w")).max()
    assert rounding(came, Identity("descent")) < 2e-5 * largest < rounding(came, Identity("unknown")) < 2e-3 * largest
