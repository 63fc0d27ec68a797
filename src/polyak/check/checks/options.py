"""Has every option an effect?"""

from typing import Any

from polyak.check.checks import regimes
from polyak.check.checks.measures import attempt, incomparable, not_applicable, outcome, short, small, with_options
from polyak.check.checks.searching import Effect, Search
from polyak.check.checks.values import is_number, variations
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Subject

_LARGE = 1e-3

_CHECK = "every option has an effect"


def options(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (every check has both)
    """Each numeric or boolean option is varied, in the given setting and in others; one that never changes a weight is found.

    An option of how a step is computed is left out, and one that only takes what cannot be guessed. An option counts as having
    an effect if it has one in any setting: eps counts where gradients are tiny, amsgrad where they become smaller.

    Where a word chooses among rules and no other word is known, an option may be one of another rule: that is noted.
    """
    if why := incomparable(subject, random=True):  # seeds are set, so that other options draw the same numbers
        return not_applicable(_CHECK, why)
    search = Search(subject, regimes.beginning(subject))
    if not regimes.moves(subject, search.uneven):
        return not_applicable(_CHECK, "Weights do not move here, so that no option can change where they go.")
    without: list[Finding] = []
    notes, effective, refused = [], [], []
    for name, value in subject.defaults.items():
        for what, values in variations(name, value):
            match search.effect(name, values):
                case "none" if search.closed:
                    said = f"{what} changed nothing, and may count with another {' or '.join(search.closed)}"
                    notes.append(f"{said}, of which no other value is known: not told.")
                case "none" | "rounding" as effect if effect == "none" or _is_large(value):
                    without.append(_finding(subject, name, what, values, effect))
                case "rounding":
                    notes.append(f"{what} changes the weights by some last digits at most, which may be all that it is for.")
                case "average":
                    notes.append(f"{what} counts in an average of the weights that is kept, and in no weight.")
                case "gradients":
                    notes.append(f"{what} counts in the gradients that a step leaves, and in no weight if they are replaced.")
                case "refused":
                    refused.append(what)
                case "weights":
                    effective.append(what)
    evidence = f"Varied, and it changes the weights: {', '.join(effective) or 'none'}."
    if refused:
        evidence += f" Another value was refused, so that it was not told: {', '.join(refused)}."
    return outcome(_CHECK, evidence, without, notes)


def _is_large(value: Any) -> bool:
    """Whether an option is a number, or has only such, of which more than rounding is expected, as of an epsilon it is not."""
    if isinstance(value, tuple | list):
        return all(map(_is_large, value))
    return not is_number(value) or abs(value) >= _LARGE


def _finding(subject: Subject, name: str, what: str, values: list[Any], effect: Effect) -> Finding:
    """With the same few steps with another value and in the given setting."""
    plain = small(subject, 3)
    taken = [value for value in values if attempt(subject, with_options(plain, {name: value})) is not None]
    other = taken[0] if taken else values[0]
    given = subject.defaults[name]
    but, bits = (" but last digits", " to within rounding") if effect == "rounding" else ("", " bits")
    return Finding(
        "option-without-effect",
        f"{what} changes nothing{but}: with {name}={short(given)} and with {name}={short(other)} the weights are the "
        f"same{bits}, and so they are with the other values and in the other settings that were tried.",
        (with_options(plain, {name: other}), plain),
        name,
    )
