"""Is the weight decay the one that was asked for?"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.asked import agrees
from polyak.check.checks.measures import LINEAR, attempt, named, not_applicable, number, outcome, small, usual, with_options
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity, Number
from polyak.check.trial import Subject, Trial

_CHECK = "weight decay is as it was asked for"
_FLAGS = ("decoupled", "decoupled_weight_decay", "weight_decouple", "decouple", "decoupled_decay", "decoupled_wd")


def decay(subject: Subject, identity: Identity) -> Outcome:
    """The kind of decay and its coefficient against the options, the name of the class, and its documentation."""
    if identity.decay == "unknown":
        if finding := _disproportionate(subject, identity):
            return outcome(_CHECK, finding.what, [finding])
        return not_applicable(_CHECK, "What it does to weights by itself could not be told.")
    findings = list(_amount(subject, identity)) or list(_kind(subject, identity))
    kind, _ = stated(subject)
    notes = []
    if kind is None and identity.decay != "none":
        notes.append(f"The decay is {identity.decay}; neither an option nor its name says which kind it is.")
    found = "none" if identity.weight_decay is None else f"{identity.decay}, {identity.weight_decay.value:.6g}"
    return outcome(_CHECK, f"Found: {found}.", findings, notes)


def stated(subject: Subject) -> tuple[str | None, str]:
    """The kind of decay that is said to be there, and by what; None where nothing is said."""
    word = subject.defaults.get("decay")
    if word in ("coupled", "decoupled"):
        return str(word), f"decay={word!r}"
    for flag in _FLAGS:
        if isinstance(value := subject.defaults.get(flag), bool):
            if value and subject.defaults.get("fixed_decay") is True:
                return "independent", f"{flag}=True and fixed_decay=True"
            return ("decoupled" if value else "coupled"), f"{flag}={value}"
    if named(subject, r"^[a-z]*(sgd|adam|adamax|radam|rmsprop|adagrad|lion)w$"):
        return "decoupled", "W at the end of its name, as in AdamW"
    if named(subject, r"^lion"):
        return "decoupled", "the rule of that name has it so"
    line = re.search(r"^\s*weight_decay\b.*$", subject.documentation, re.MULTILINE)
    if line and re.search(r"\bdecoupled\b", line[0], re.IGNORECASE):
        return "decoupled", f"its documentation: {line[0].strip()}"
    return None, ""


def _amount(subject: Subject, identity: Identity) -> Iterator[Finding]:
    asked = number(subject, "weight_decay")
    found = identity.weight_decay
    if asked is None or (found is None and identity.decay != "none"):
        return
    if found is None:
        if asked:
            said = f"weight_decay={asked:.6g} was asked for; weights do not decay."
            yield Finding("decay-amount", said, (_still(subject),), "weight_decay")
    elif not agrees(found, asked, identity) and not _implicit(subject, identity, found, asked):
        was = f"weight_decay={asked:.6g} was asked for" if asked else "No decay was asked for"
        said = f"{was}; the coefficient that was found is {found.value:.6g} ({identity.decay})."
        yield Finding("decay-amount", said, (_still(subject),), "weight_decay")


def _implicit(subject: Subject, identity: Identity, found: Number, asked: float) -> bool:
    """Whether weights are divided by 1 + lr wd, as in Adan's paper (Xie et al. 2022), not multiplied by 1 - lr wd."""
    lr = number(subject, subject.rate) or 0.0
    return identity.decay == "decoupled" and agrees(found, asked / (1 + lr * asked), identity)


_DONE = {
    "coupled": "it is added to the gradient",
    "decoupled": "it is taken from the weight itself, times the learning rate",
    "independent": "it is taken from the weight itself, whatever the learning rate",
}


def _kind(subject: Subject, identity: Identity) -> Iterator[Finding]:
    # Without a velocity, coupled and decoupled are one and the same.
    if identity.decay == "none" or identity.kind == "descent":
        return
    kind, why = stated(subject)
    if kind == "coupled" and identity.decay == "decoupled" and _frees_from_rate(subject):
        return
    if kind is not None and kind != identity.decay:
        said = f"The decay is to be {kind} ({why}); {_DONE[identity.decay]}."
        yield Finding("decay-kind", said, (_still(subject),), "weight_decay")


def _frees_from_rate(subject: Subject) -> bool:
    """Whether the option that speaks of decoupling means the learning rate, as that of lion-pytorch does, not the gradient."""
    rate = number(subject, subject.rate)
    flag = next((name for name in _FLAGS if name in subject.defaults), None)
    if not rate or subject.rate is None or flag is None:
        return False
    still = replace(_still(subject), options={flag: True}, held=True)
    one, other = attempt(subject, still), attempt(subject, with_options(still, {subject.rate: 2 * rate}))
    if one is None or other is None or not one.steps("w").any():
        return False
    return np.allclose(one.steps("w"), other.steps("w"), rtol=1e-6)


def _disproportionate(subject: Subject, identity: Identity) -> Finding | None:
    """Where steps are in proportion to gradients as long as nothing decays, the decay must be in proportion to weights."""
    if identity.kind not in ("unknown", *LINEAR) or not number(subject, "weight_decay"):
        return None
    plain, _ = usual(subject, 3)
    without = replace(plain, options={"weight_decay": 0.0}, held=True)
    if not _doubles(subject, without, replace(without, gradients=[_twice(step) for step in plain.gradients])):
        return None
    still = replace(_still(subject), held=True)
    larger = replace(still, weights=_twice(still.weights))
    if _doubles(subject, still, larger):
        return None
    return Finding("decay-kind", "The decay of a weight is not in proportion to the weight.", (still, larger), "weight_decay")


def _twice(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: 2 * array for name, array in arrays.items()}


def _doubles(subject: Subject, one: Trial, other: Trial) -> bool:
    """Whether the steps of another trial are twice those of one, but for rounding."""
    came, double = attempt(subject, one), attempt(subject, other)
    if came is None or double is None:
        return False
    steps = [(came.steps(name), double.steps(name)) for name in one.weights]
    return all(np.allclose(b, 2 * a, rtol=1e-3, atol=1e-3 * np.abs(a).max()) for a, b in steps)


def _still(subject: Subject) -> Trial:
    """A few steps without gradient, in which only the decay moves weights."""
    plain = small(subject, 3)
    return replace(plain, gradients=[{"w": np.zeros_like(plain.weights["w"])}] * 3)
