"""What is saved and loaded, copied and pickled, and two instances at a time, in optimizers as they are published."""

import copy
from functools import partial

import pytest
import torch

from check import checking
from check.checking import found, shows_in_two_trials
from check.zoo.torch_sound import SGD, Lion
from polyak.check.checks.instances import copies, instances
from polyak.check.checks.state import dtypes, order, resume
from polyak.check.drivers.loading import load
from polyak.check.identity import Identity

# None of these checks looks at what was identified.
UNKNOWN = Identity("unknown")
checked = partial(checking.checked, identity=UNKNOWN)


def test_loading_by_position_is_shown_by_two_trials():
    outcome = checked(order, "torch.optim:SGD", lr=0.1, momentum=0.9)
    assert found(outcome) == {"state-by-position"}
    assert shows_in_two_trials(load("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9}), outcome.findings[0])


def test_without_state_nothing_goes_to_the_wrong_parameter():
    assert checked(order, "torch.optim:SGD", lr=0.1).status == "pass"


@pytest.mark.parametrize("what", ["polyak.torch:Momentum", "check.zoo.torch_sound:SGD"])
def test_what_follows_names_passes(what):
    assert checked(order, what, lr=0.1, momentum=0.9).status == "pass"


def test_a_sign_shows_what_was_lost_or_went_to_another():
    class ByPosition(Lion):
        load_state_dict = torch.optim.Optimizer.load_state_dict

    class Forgets(Lion):
        def load_state_dict(self, state_dict):
            super().load_state_dict({**state_dict, "state": {}})

    outcome = checked(order, ByPosition)
    assert found(outcome) == {"state-by-position"}
    assert "after step 3" in outcome.findings[0].what
    assert found(checked(resume, ByPosition)) == set()
    assert found(checked(resume, Forgets)) == {"resume-differs"}


def test_asgd_is_loaded_by_position_though_tensors_of_one_shape_do_not_show_it():
    (finding,) = checked(order, "torch.optim:ASGD").findings
    assert "of other shapes" in finding.what


def test_a_refusal_is_as_good():
    class Refuses(SGD):
        def load_state_dict(self, state_dict):
            if self.param_groups[0]["param_names"] != state_dict["param_groups"][0]["param_names"]:
                raise ValueError("The state is of other parameters.")
            super().load_state_dict(state_dict)

    outcome = checked(order, Refuses)
    assert outcome.status == "pass"
    assert "The state is of other parameters." in outcome.evidence


def test_nadam_loses_the_precision_of_a_product():
    (finding,) = checked(dtypes, "torch.optim:NAdam").findings
    assert finding.identifier == "state-dtype"
    assert "mu_product from float32 to bfloat16" in finding.what


def test_it_is_said_in_which_precision_state_is_kept():
    outcome = checked(dtypes, "torch.optim:SGD", lr=0.1, momentum=0.9)
    assert outcome.status == "pass"
    assert outcome.notes == ("The state of bfloat16 parameters is kept in bfloat16.",)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_step_after_which_saving_fails_is_named(stop):
    class Forgets(SGD):
        """What is saved before one of the steps has no velocity."""

        taken = 0

        def step(self, closure=None):
            self.taken += 1
            return super().step(closure)

        def state_dict(self):
            saved = super().state_dict()
            return {**saved, "state": {}} if self.taken == stop - 1 else saved

    outcome = checked(resume, Forgets)
    if stop == 1:  # there is nothing to save
        assert outcome.status == "pass"
    else:
        (finding,) = outcome.findings
        assert finding.what.startswith(f"Saved and loaded before step {stop}, after step {stop}, ")
        assert len(finding.trials[0].gradients) == stop + 1


def test_loading_that_fails_is_a_finding():
    class Fails(SGD):
        def load_state_dict(self, state_dict):  # noqa: ARG002  (it fails whatever it is given)
            raise KeyError("velocity")

    (finding,) = checked(resume, Fails).findings
    assert finding.what == "Saved and loaded before step 1, it fails: KeyError: 'velocity'."


def test_lbfgs_cannot_go_on_after_a_copy():
    (finding,) = checked(copies, "torch.optim:LBFGS").findings
    assert "AttributeError: 'LBFGS' object has no attribute '_params'" in finding.what
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    copied = copy.deepcopy(torch.optim.LBFGS([parameter]))
    with pytest.raises(AttributeError, match="_params"):
        copied.step(lambda: torch.zeros(()))


def test_what_cannot_be_copied_is_said_and_is_no_finding():
    class Held(SGD):
        def __reduce_ex__(self, protocol):
            raise TypeError("it cannot be pickled")

    outcome = checked(copies, Held)
    assert outcome.status == "not applicable"
    assert "it cannot be pickled" in outcome.evidence


@pytest.mark.parametrize("check", [instances, copies, resume])
@pytest.mark.parametrize("what", ["optax:adam", "polyak.jax:momentum"])
def test_optimizers_of_jax_share_nothing(check, what):
    options = {"momentum": 0.9} if "polyak" in what else {}
    assert checked(check, what, learning_rate=0.1, **options).status == "pass"
