"""Unwanted gradients: what is a property, what is a defect, and how long it stays."""

import pytest
import torch

from check.checking import checked, found
from check.zoo.torch_sound import SGD, AdamW
from polyak.check.checks.gradients import kept, missing, written
from polyak.check.checks.poison import poison, scale

STAYS = "A gradient of nan stays in the state: all steps of its element after it are NaN or infinite."
SPOILS = "A gradient of nan spoils the step of its element; later ones are finite."


class Clipped(SGD):
    """Gradients are scaled down where the norm of all of them is above 1."""

    def step_group(self, params, group):
        norm = sum(p.grad.square().sum() for p in params) ** 0.5
        for p in params:
            self.update(p, self.gradient(p) * (1 / norm).clamp(max=1.0), group)


class Cautious(SGD):
    """Leaves out a step with a gradient that is not finite."""

    def step_group(self, params, group):
        if all(p.grad.isfinite().all() for p in params):
            super().step_group(params, group)


@pytest.mark.parametrize(("momentum", "note"), [(0.9, STAYS), (0.0, SPOILS)])
def test_how_long_a_nan_stays(momentum, note):
    outcome = checked(poison, "torch.optim:SGD", lr=0.1, momentum=momentum)
    assert outcome.status == "pass"
    assert note in outcome.notes


def test_a_norm_of_all_parameters_spreads_a_nan_by_design():
    outcome = checked(poison, Clipped)
    assert outcome.status == "pass"
    assert any("another parameter, as a norm" in note for note in outcome.notes)


def test_a_step_may_be_left_out():
    outcome = checked(poison, Cautious)
    assert outcome.status == "pass"
    assert "A gradient of nan makes no step that is not finite." in outcome.notes


def test_a_tensor_alone_is_poisoned_by_its_own_norm():
    class OfATensor(SGD):
        def gradient(self, p):
            return super().gradient(p) / (p.grad.norm() + 1e-12)

    notes = checked(poison, OfATensor).notes
    assert any("other elements of its tensor" in note for note in notes)
    assert not any("another parameter" in note for note in notes)


@pytest.mark.parametrize("what", ["torch.optim:SGD", "torch.optim:Adam", "torch.optim:LBFGS", "optax:sgd"])
def test_scales_that_float32_does_not_hold_are_no_finding(what):
    options = {"learning_rate": 0.1} if "optax" in what else {"lr": 0.1}
    assert found(checked(scale, what, **options)) == set()


def test_from_where_on_tiny_gradients_are_others_to_adam_is_said():
    (note,) = checked(scale, "torch.optim:Adam").notes
    assert note == "From gradients of 6e-08 down, steps are others in float32."  # eps is 1e-8


def test_a_written_gradient_is_found_with_the_option_that_writes_it():
    class DecaysTheGradient(AdamW):
        def gradient(self, p):
            return p.grad.add_(p, alpha=self.param_groups[0]["weight_decay"])

    (finding,) = checked(written, DecaysTheGradient).findings
    assert finding.option == "weight_decay"
    assert finding.trials[0].options == {"weight_decay": 0.5}


def test_a_gradient_that_is_taken_away_is_written_to():
    class TakesItAway(SGD):
        def step_group(self, params, group):
            super().step_group(params, group)
            for p in params:
                p.grad = None

    (finding,) = checked(written, TakesItAway).findings
    assert finding.what.endswith("is None.")


def test_only_torch_can_keep_a_gradient():
    assert checked(kept, "torch.optim:SGD", lr=0.1, momentum=0.9).status == "pass"
    assert checked(kept, "optax:sgd", learning_rate=0.1, momentum=0.9).status == "not applicable"


def test_a_parameter_that_moves_without_a_gradient_is_noted():
    class Coasts(SGD):
        """Without a gradient, the velocity goes on."""

        def step_group(self, params, group):  # noqa: ARG002  (those with a gradient)
            for p in group["params"]:
                self.update(p, torch.zeros_like(p) if p.grad is None else p.grad, group)

    outcome = checked(missing, lambda params: Coasts(params))
    assert outcome.status == "pass"
    assert "in a step without a gradient" in outcome.notes[0]


def test_missing_gradients_are_not_there_in_jax():
    assert checked(missing, "optax:sgd", learning_rate=0.1).status == "not applicable"
