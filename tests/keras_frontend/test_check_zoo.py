"""The zoo's optimizers of Keras: a broken one is found by the right identifier and no unrelated one, a sound one is clean."""

import pytest

from check.zoo import keras_zoo
from check.zoo.cases import Case, check_finds_nothing_else
from keras_support import on_jax
from polyak.check import check

pytestmark = on_jax  # one backend tells: the drivers of the others have tests of their own


@pytest.mark.parametrize("case", keras_zoo.CASES, ids=str)
def test_a_broken_one_is_found(case: Case) -> None:
    # The base class has a dozen options, each of which is varied in several ways.
    check_finds_nothing_else(case, without=("option-without-effect", "option-effect"))


def test_the_sound_one_is_clean() -> None:
    report = check("check.zoo.keras_zoo:SGD", nesterov=True, weight_decay=0.2)
    assert not report.findings
    identity = report.identity
    assert (identity.kind, identity.nesterov, identity.decay, identity.velocity) == ("momentum", True, "decoupled", "step")
