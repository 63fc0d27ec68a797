"""An identity in a line, and as the recurrence written out."""

from collections.abc import Iterator

import numpy as np

from polyak.check.identity import Identity

_DECAYS = {
    "none": "",
    "coupled": "coupled decay",
    "decoupled": "decoupled decay",
    "independent": "decoupled decay, independent of the learning rate,",
    "unknown": "decay unknown",
}
_OVER = {"all": "all parameters", "tensor": "each tensor", "element": "each element"}


def line(identity: Identity) -> str:
    """What an optimizer is, in a line.

    Example:
        >>> from polyak.check.identity import Number
        >>> sgd = Identity("momentum", learning_rate=Number(0.1, 0), momenta=(Number(0.9, 0),), nesterov=True)
        >>> line(sgd)
        'Nesterov momentum: m = 0.9000, lr = 0.1000, decay unknown'
    """
    name, parts = _name(identity), list(_parts(identity))
    whole = f"{name}: {', '.join(parts)}" if parts else name
    if identity.first_step:
        whole += f"; first step differs: {identity.first_step}"
    return f"{whole}; in the first {identity.seen} steps" if identity.seen else whole


def recurrence(identity: Identity) -> tuple[str, ...]:
    """The recurrence of an optimizer, an assignment a line: g is the gradient, w the weight. () for what has none.

    Example:
        >>> from polyak.check.identity import Number
        >>> sgd = Identity("momentum", learning_rate=Number(0.1, 0), momenta=(Number(0.9, 0),), velocity="gradient")
        >>> recurrence(sgd)
        ('v = 0.9 v + g', 'w = w - 0.1 v')
    """
    if identity.kind == "still":
        return ("w = w",)
    if identity.kind == "unknown" or (identity.kind == "linear" and not np.any(identity.residues) and not identity.direct):
        return ()
    if identity.kind in ("adaptive", "normalised") and identity.learning_rate is None:
        return ()
    entering, x = _entering(identity)
    clipped = _clipped(identity)
    lines = [*clipped, *entering, *_steps(identity, x)]
    if identity.first_step and identity.first_step == "dampening not applied":
        new = f"{_short(identity.learning_rate.value)} {x}" if identity.velocity == "step" and identity.learning_rate else x
        lines.append(f"at the first step v = {new}")
    elif identity.first_step:
        lines.append(f"at the first step {identity.first_step}")
    return tuple(lines)


def _name(identity: Identity) -> str:
    up = " (UP the gradient)" if identity.sign == -1 else ""
    remembers = bool(identity.momenta)
    match identity.kind:
        case "still":
            name = "still: the weights never move"
        case "descent":
            name = "gradient descent"
        case "momentum":
            name = "Nesterov momentum" if identity.nesterov else "heavy ball"
        case "qhm":
            name = "QHM"
        case "several":
            name = f"mean of {len(identity.momenta)} velocities (AggMo)"
        case "linear":
            name = "linear, without a name"
        case "sign" if identity.nu is not None:
            name = "sign of a mean of gradient and velocity (Lion)"
        case "sign":
            name = f"sign of a {'Nesterov ' if identity.nesterov else ''}momentum" if remembers else "sign of the gradient"
        case "normalised" if not remembers and identity.learning_rate is None:
            name = f"normalised over {_OVER[identity.over or 'tensor']}"
        case "normalised":
            name = f"{'momentum' if remembers else 'gradient'} normalised over {_OVER[identity.over or 'tensor']}"
        case "adaptive":
            name = "adaptive: steps of each element do not depend on the size of its gradients"
        case "orthogonalised" if not remembers and identity.learning_rate is None:  # what of past gradients was not told
            name = "orthogonalised"
        case "orthogonalised":
            name = f"{'Nesterov ' if identity.nesterov else ''}{'momentum' if remembers else 'gradient'}, orthogonalised"
        case "unknown":
            properties = [
                *(["linear"] if identity.linear else ["not linear"] if identity.linear is False else []),
                *(["not the same at each step"] if identity.time_invariant is False else []),
                *(["not each element for itself"] if identity.elementwise is False else []),
            ]
            name = f"unknown{': ' if properties else ''}{', '.join(properties)}"
    return name + up


def _parts(identity: Identity) -> Iterator[str]:
    """What is said of it beside its name."""
    if identity.kind == "still":
        return
    momenta = [_fraction(m.value) for m in identity.momenta]
    if identity.kind == "several":
        yield f"m = ({', '.join(momenta)})"
    elif identity.kind == "linear":
        if momenta:
            yield f"{'pole' if len(momenta) == 1 else 'poles'} {' and '.join(momenta)}"
    elif momenta:
        yield f"m = {' and '.join(momenta)}"
    if identity.nu:
        yield f"nu = {_fraction(identity.nu.value)}"
    if identity.squares:
        b2 = _fraction(identity.squares.value)
        yield "squares added up" if identity.squares.agrees(1) else f"squares remembered with {b2}"
    if rough := _rough(identity):
        yield f"steps of about {rough}"
    elif identity.learning_rate:
        yield f"lr = {_amount(identity.learning_rate.value)}"
    if identity.dampening and not identity.dampening.agrees(0):
        if _averages(identity):
            yield "velocity is an average"
        else:
            yield f"dampening = {_fraction(identity.dampening.value)}"
    if identity.relative:
        yield "in proportion to the weights' norm"
    if identity.velocity and not (identity.velocity == "gradient" and _averages(identity)):
        yield f"velocity in {identity.velocity} units"
    if decay := _DECAYS[identity.decay]:
        if identity.weight_decay:
            yield f"{decay} {_small(identity.weight_decay.value)}"
        else:
            yield decay.rstrip(",")
    if identity.clip:
        norm, over = identity.clip
        c = _amount(norm.value)
        yield f"gradients cut off at {c}" if over == "element" else f"gradients scaled down to a norm of {c} over {_OVER[over]}"


def _rough(identity: Identity) -> str | None:
    """The size of steps that tell no learning rate: a polynomial leaves singular values some way from 1."""
    rate = identity.learning_rate
    return (
        _small(float(f"{rate.value:.1e}"))
        if identity.kind == "orthogonalised" and rate and rate.error > 0.01 * rate.value
        else None
    )


def _averages(identity: Identity) -> bool:
    """Whether the velocity is an average of gradients."""
    if not (identity.dampening and identity.momenta):
        return False
    momentum = identity.momenta[0]
    return abs(identity.dampening.value - momentum.value) <= identity.dampening.error + momentum.error


def _clipped(identity: Identity) -> Iterator[str]:
    if identity.clip:
        norm, over = identity.clip
        c = _short(norm.value)
        yield f"g = max(-{c}, min({c}, g))" if over == "element" else f"g = g min(1, {c} / |g|)   |g| of {_OVER[over]}"


def _entering(identity: Identity) -> tuple[list[str], str]:
    """How the gradient enters, as lines, and by which letter it goes then."""
    wd = _wd(identity)
    g = "-g" if identity.sign == -1 and identity.kind != "linear" else "g"
    if identity.decay == "coupled" and wd:
        return [f"x = {g} + {wd} w"], "x"
    return ([f"x = {g}"], "x") if g == "-g" else ([], "g")


def _steps(identity: Identity, x: str) -> Iterator[str]:
    """The lines of the velocities and of the weight."""
    rough = _rough(identity)
    lr = _short(identity.learning_rate.value) if identity.learning_rate and not rough else "lr"
    momenta = [_short(m.value) for m in identity.momenta]
    decay = _beside(identity, lr)
    if identity.kind == "descent":
        yield f"w = w - {lr} {x}{decay}"
    elif identity.kind == "momentum":
        in_step = identity.velocity == "step"
        share = 1 - identity.dampening.value if identity.dampening and not identity.dampening.agrees(0) else 1.0
        new = f"{' * '.join([*([lr] if in_step else []), *([_short(share)] if share != 1 else [])])} {x}".strip()
        yield f"v = {momenta[0]} v + {new}"
        direction = f"({momenta[0]} v + {new})" if identity.nesterov else "v"
        yield f"w = w - {direction if in_step else f'{lr} {direction}'}{decay}"
    elif identity.kind == "qhm" and identity.nu:
        nu = identity.nu.value
        yield f"v = {momenta[0]} v + {_short(1 - identity.momenta[0].value)} {x}"
        yield f"w = w - {lr} ({_short(1 - nu)} {x} + {_short(nu)} v){decay}"
    elif identity.kind == "several":
        remembering = [m for m in momenta if m != "0"]
        for i, momentum in enumerate(remembering, 1):
            yield f"v{i} = {momentum} v{i} + {x}"
        terms = [f"v{i}" for i in range(1, len(remembering) + 1)] + [x] * (len(momenta) - len(remembering))
        yield f"w = w - {lr} / {len(momenta)} ({' + '.join(terms)}){decay}"
    elif identity.kind == "linear":
        yield from _of_system(identity, x, decay)
    else:
        yield from _of_direction(identity, x, rough or lr, decay)


def _of_system(identity: Identity, x: str, decay: str) -> Iterator[str]:
    """Any linear system, from its poles."""
    for i, pole in enumerate(identity.poles, 1):
        yield f"v{i} = {_short(float(pole))} v{i} + {x}"
    shares = [(float(r), f"v{i}") for i, r in enumerate(identity.residues, 1)]
    if abs(identity.direct) > 1e-6 * max(abs(r) for r, _ in [*shares, (identity.direct, "")]):
        shares = [(identity.direct, x), *shares]
    yield "w = w" + "".join(f" {'-' if r > 0 else '+'} {_short(abs(r))} {v}" for r, v in shares) + decay


def _of_direction(identity: Identity, x: str, lr: str, decay: str) -> Iterator[str]:
    """What steps along some function of a velocity: its sign, what it is divided by ..."""
    m = identity.momenta[0].value if identity.momenta else 0.0
    along = x
    root, norm = "", "|w| " if identity.relative else ""
    corrected = identity.corrected or (True, True)
    if identity.kind == "adaptive" and identity.squares:
        b2 = identity.squares.value
        mean = not identity.squares.agrees(1)
        if (mean and corrected[1]) or (identity.momenta and corrected[0] and not identity.scaled_first):
            yield "t = t + 1"
        yield f"s = {_short(b2)} s + {_short(1 - b2)} {x}^2" if mean else f"s = s + {x}^2"
        root = f"sqrt(s / (1 - {_short(b2)}^t))" if mean and corrected[1] else "sqrt(s)"
    scaled = bool(identity.momenta and identity.scaled_first)
    if scaled:
        new = f"{x} / {root}" if identity.kind == "adaptive" else f"{norm}{x} / |{x}|"
        along = "v"
        yield f"v = {_short(m)} v + {new}"
    elif identity.momenta and identity.nu:
        b1 = identity.nu.value
        along = "u"
        yield f"u = {_short(b1)} v + {_short(1 - b1)} {x}"
        yield f"v = {_short(m)} v + {_short(1 - m)} {x}"
    elif identity.momenta:
        new = f"{_short(1 - m)} {x}" if identity.kind == "adaptive" else x
        along = "u" if identity.nesterov else "v"
        yield f"v = {_short(m)} v + {new}"
        if identity.nesterov:
            yield f"u = {_short(m)} v + {new}"
    match identity.kind:
        case "sign":
            step = f"sign({along})"
        case "orthogonalised":
            step = f"orthogonal({along})"
        case "normalised":
            step = along if scaled else f"{norm}{along} / |{along}|"
        case _:
            filled = f" / (1 - {_short(m)}^t)" if identity.momenta and corrected[0] else ""
            step = along if scaled else f"{along}{filled} / {root}"
    yield f"w = w - {lr} {step}{decay}"


def _wd(identity: Identity) -> str:
    return _small(identity.weight_decay.value) if identity.weight_decay else ""


def _beside(identity: Identity, lr: str) -> str:
    """The decay beside the step."""
    wd = _wd(identity)
    if not wd or identity.decay not in ("decoupled", "independent"):
        return ""
    return f" - {lr} * {wd} w" if identity.decay == "decoupled" else f" - {wd} w"


def _fraction(value: float) -> str:
    """A number in [0, 1), with as many digits as tell it from 1."""
    away = abs(1 - value)
    digits = 4 if away >= 0.999e-3 or away == 0 else min(1 - int(np.floor(np.log10(away))), 12)
    return f"{value:.{digits}f}" if abs(value) >= 1e-3 or value == 0 else _small(value)


def _amount(value: float) -> str:
    """A number of any size, with four digits."""
    return f"{value:#.4g}".rstrip(".") if 1e-3 <= abs(value) < 1e4 or value == 0 else _small(value)


def _small(value: float) -> str:
    """A number as 5.0e-4, with up to four digits."""
    digits, exponent = f"{value:.3e}".split("e")
    digits = digits.rstrip("0")
    return f"{digits}0e{int(exponent)}" if digits.endswith(".") else f"{digits}e{int(exponent)}"


def _short(value: float) -> str:
    """A number in a recurrence: as few digits as say it to six places."""
    rounded = f"{value:.6g}"
    return _small(value) if "e" in rounded or 0 < abs(value) < 1e-3 else rounded
