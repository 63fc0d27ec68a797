"""What the tests of the checks share."""

from polyak.check.checks.comparing import difference
from polyak.check.drivers.loading import load, of
from polyak.check.identification import identify
from polyak.check.trial import Refused


def checked(check, what, identity=None, **options):
    """The outcome of a check of an optimizer of a name, or that a function makes; with any identity where it needs none."""
    subject = load(what, options) if isinstance(what, str) else of(what)
    return check(subject, identity or identify(subject))


def found(outcome):
    """The identifiers of an outcome's findings."""
    assert (outcome.status == "fail") == bool(outcome.findings)
    return {finding.identifier for finding in outcome.findings}


def shows_in_two_trials(subject, finding):
    """Whether the trials of a finding come to other weights, or one of them is refused: so a person sees it by running them."""
    try:
        one, other = (subject.run(trial).after for trial in finding.trials)
    except Refused:
        return True
    return difference(one, other) is not None
