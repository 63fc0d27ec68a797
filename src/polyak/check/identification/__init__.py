"""What recurrence an optimizer follows, told from how it answers small probes."""

from dataclasses import replace

import numpy as np

from polyak.check.identification import clipping, probes, scaled, signs
from polyak.check.identification.lasting import lasting
from polyak.check.identification.linear import identified
from polyak.check.identification.probes import Probes
from polyak.check.identity import Identity
from polyak.check.trial import Refused, Subject

__all__ = ["identify"]


def identify(subject: Subject) -> Identity:
    """Tell what an optimizer does, with a name if training follows it to within the rounding, and "unknown" if in doubt.

    Args:
        subject: The optimizer.

    Returns:
        What it is. An optimizer that refuses the probes is "unknown", and its error is among the doubts.

    Example:
        >>> from polyak.check.drivers.loading import load
        >>> identity = identify(load("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9}))  # doctest: +SKIP
        >>> identity.kind, identity.momenta[0].value  # doctest: +SKIP
        ('momentum', 0.9)
    """
    try:
        with np.errstate(all="ignore"):  # an optimizer may make anything of weights, and what is not finite is seen
            return lasting(subject, _identified(subject))
    except Refused as refused:
        dtype = "float64" if subject.double else "float32"
        return Identity("unknown", dtype=dtype, doubts=(f"It refused to be measured: {refused}",), refused=True)


def _identified(subject: Subject) -> Identity:
    measured = probes.measure(subject)
    if measured.linear:
        return identified(subject, measured)
    if clip := clipping.clip(subject, measured):
        # With both tensors and rounding within it: a quarter is far from where gradients are scaled.
        small = probes.measure(subject, clip[0].value / 4)
        if small.linear:
            found = identified(subject, small)
            if found.kind != "unknown":  # else the first step alone is that of a clip
                return replace(found, clip=clip, linear=False)
    found = signs.sign(subject) or scaled.scaled(subject) or Identity("unknown", doubts=measured.doubts)
    return _completed(found, measured)


def _completed(found: Identity, measured: Probes) -> Identity:
    """What is known of every optimizer that is not linear."""
    return replace(
        found,
        linear=False,
        elementwise=measured.elementwise and found.elementwise is not False,
        impulse=found.impulse if np.any(found.impulse) else measured.response,
        dtype=measured.dtype.name,
        noise=measured.noise,
    )
