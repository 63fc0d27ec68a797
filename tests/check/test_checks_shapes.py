"""Unusual tensors, and all of torch.optim through the checks of parameters, state, gradients and shapes."""

import ml_dtypes
import pytest
import torch

from check.checking import checked, found
from check.zoo.torch_sound import SGD
from polyak.check.checks import CHECKS
from polyak.check.checks.gradients import kept, missing, written
from polyak.check.checks.instances import copies, instances
from polyak.check.checks.parameters import groups, parameters
from polyak.check.checks.poison import poison, scale
from polyak.check.checks.precision import bfloat
from polyak.check.checks.shapes import layout, shapes, sparse
from polyak.check.checks.state import dtypes, order, resume
from polyak.check.drivers.loading import load, of
from polyak.check.identification import identify
from polyak.check.identity import Identity

OURS = (
    *(parameters, groups, resume, order, dtypes, bfloat, shapes, layout, sparse),
    *(poison, written, kept, missing, scale, instances, copies),
)

# All load by position; SparseAdam takes no dense gradients. The others were confirmed by hand with torch 2.13.
BY_POSITION = "state-by-position"
OF_TORCH = {
    "ASGD": {BY_POSITION, "state-dtype"},
    "Adadelta": {BY_POSITION},
    "Adafactor": {BY_POSITION, "shape-fails"},
    "Adagrad": {BY_POSITION},
    "Adam": {BY_POSITION},
    "AdamW": {BY_POSITION},
    "Adamax": {BY_POSITION},
    "LBFGS": {BY_POSITION, "copy-shares-state"},
    "Muon": {BY_POSITION},
    "NAdam": {BY_POSITION, "state-dtype"},
    "RAdam": {BY_POSITION},
    "RMSprop": {BY_POSITION},
    "Rprop": {BY_POSITION},
    "SGD": set(),
}


@pytest.mark.parametrize(("name", "expected"), OF_TORCH.items(), ids=OF_TORCH)
def test_all_of_torch_has_these_findings_and_no_others(name, expected):
    subject = load(f"torch.optim:{name}", {})
    identity = identify(subject)
    outcomes = {check: check(subject, identity) for check in OURS}
    assert set().union(*map(found, outcomes.values())) == expected
    for check, outcome in outcomes.items():
        assert found(outcome) <= set(CHECKS[check])


class Clipped(SGD):
    """Gradients are scaled down where the norm of `over` is above 1."""

    over = ""

    def step_group(self, params, group):
        grads = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in params]
        for p, g in zip(params, grads, strict=True):
            if self.over == "element":
                g = g.clamp(-1, 1)
            else:
                norm = sum(h.square().sum() for h in (grads if self.over == "all" else [g])) ** 0.5
                g = g * (1 / (norm + 1e-12)).clamp(max=1.0)
            self.update(p, g, group)


@pytest.mark.parametrize("over", ["all", "tensor", "element"])
def test_an_optimizer_that_clips_has_no_finding(over):
    cls = type("Clips", (Clipped,), {"over": over})
    subject = of(cls)
    identity = identify(subject)
    assert {identifier for check in OURS for identifier in found(check(subject, identity))} == set()


def test_adafactor_divides_by_the_number_of_elements():
    (finding,) = checked(shapes, "torch.optim:Adafactor").findings
    assert finding.what == "A tensor of shape (0,) or (0, 2): ZeroDivisionError: float division by zero."
    empty = torch.nn.Parameter(torch.zeros(0))
    empty.grad = torch.zeros(0)
    with pytest.raises(ZeroDivisionError):
        torch.optim.Adafactor([empty]).step()


def test_an_optimizer_of_matrices_is_asked_for_matrices():
    outcome = checked(shapes, "torch.optim:Muon")
    assert outcome.status == "pass"
    assert outcome.evidence.startswith("Tensors of the shapes (1, 1), (0, 2) ")


@pytest.mark.parametrize(
    ("what", "status"),
    [("torch.optim:SGD", "pass"), ("torch.optim:Adagrad", "pass"), ("torch.optim:Adam", "not applicable")],
)
def test_sparse_gradients_where_they_are_taken(what, status):
    assert checked(sparse, what, lr=0.1).status == status


def test_arrays_of_jax_have_no_layout():
    assert checked(layout, "optax:sgd", learning_rate=0.1).status == "not applicable"


def test_plain_bfloat16_stalls_by_nature():
    outcome = checked(bfloat, "torch.optim:AdamW", weight_decay=0.1)
    assert outcome.status == "pass"
    assert [note.split()[0] for note in outcome.notes] == ["Steps", "Weight"]
    assert all("are lost: 8 of them changed nothing" in note for note in outcome.notes)


def test_steps_in_proportion_to_the_weights_stall_however_small_these_are():
    subject = load("optax:lars", {"learning_rate": 0.1})
    outcome = bfloat(subject, Identity("normalised"))
    assert outcome.status == "pass"
    assert outcome.evidence.startswith("Steps are too small")


class Compensated(SGD):
    """What bfloat16 weights lose in a step is added to the next."""

    def move(self, p, direction, group):
        lost = self.slot(p, "lost").float()
        target = p.float() - group["lr"] * direction.float() + lost
        p.copy_(target)
        self.state[p]["lost"] = (target - p.float()).to(p.dtype)


def test_a_compensation_is_seen_to_keep_small_steps():
    outcome = checked(bfloat, Compensated)
    assert outcome.status == "pass"
    assert any("not lost" in note for note in outcome.notes)


def test_bfloat16_that_goes_elsewhere_is_found():
    class WithoutVelocityInBfloat16(SGD):
        def move(self, p, direction, group):
            super().move(p, -direction if p.dtype == torch.bfloat16 else direction, group)

    (finding,) = checked(bfloat, WithoutVelocityInBfloat16).findings
    assert finding.identifier == "implementations-differ"
    assert {trial.weights["w"].dtype.name for trial in finding.trials} == {ml_dtypes.bfloat16.__name__, "float32"}


def test_what_refuses_to_be_measured_has_no_unusual_shapes():
    class OfExamples(SGD):
        """Its gradients have an axis more than the parameters."""

        def gradient(self, p):
            if p.ndim != 2 or len(p) > 2:
                raise IndexError("no examples")
            return super().gradient(p)

    subject = of(OfExamples)
    identity = identify(subject)
    assert identity.refused
    assert shapes(subject, identity).status == "not applicable"


@pytest.mark.parametrize(("check", "name"), [(parameters, "momo"), (poison, "prodigy")])
def test_what_is_estimated_from_all_and_from_how_far_weights_have_come_is_by_design(check, name):
    subject = load(f"optax.contrib:{name}", {})
    outcome = check(subject, identify(subject))
    assert not outcome.findings
    assert any("norm that is taken over" in note or "norm is taken over" in note for note in outcome.notes)
