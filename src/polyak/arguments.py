"""The arguments that every front-end takes, checked in one place so that every front-end says the same."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

from polyak.update import Decay


def number(name: str, value: Any) -> float:
    """A real number as a float, or a TypeError that names the argument."""
    # An array without dimensions of any framework has __float__ too.
    if isinstance(value, bool) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"{name} must be a number; got {value!r} of type {type(value).__name__}.")
    return float(value)


def check_learning_rate(value: Any) -> float:
    """A learning rate: finite and not negative."""
    lr = number("learning_rate", value)
    if not (0 <= lr < math.inf):
        raise ValueError(f"learning_rate must be finite and at least 0; got {value!r}. Start from 0.1 or 0.01.")
    return lr


def check_momentum(value: Any) -> float:
    """A momentum: in [0, 1)."""
    m = number("momentum", value)
    if not (0 <= m < 1):
        raise ValueError(
            f"momentum must be in [0, 1); got {value!r}. At 1 the velocity never forgets a gradient; 0.9 is usual."
        )
    return m


def check_momentum_above_0(value: Any) -> float:
    """The momentum of ScheduleFree: in (0, 1]."""
    b = number("momentum", value)
    if not (0 < b <= 1):
        raise ValueError(
            f"momentum must be in (0, 1]; got {value!r}. At 0 nothing would be known of the average; 0.9 is usual."
        )
    return b


def check_dampening(value: Any) -> float:
    """A dampening: in [0, 1)."""
    d = number("dampening", value)
    if not (0 <= d < 1):
        raise ValueError(f"dampening must be in [0, 1); got {value!r}. At 1 no gradient would reach the velocity.")
    return d


def check_fraction(name: str, value: Any, *, below_one: bool = False) -> float:
    """A number in [0, 1], or in [0, 1)."""
    x = number(name, value)
    if not (0 <= x < 1 or (x == 1 and not below_one)):
        raise ValueError(f"{name} must be in {'[0, 1)' if below_one else '[0, 1]'}; got {value!r}.")
    return x


def check_momenta(value: Any) -> tuple[float, ...]:
    """Several momenta: a sequence of numbers in [0, 1)."""
    try:
        momenta = tuple(value)
    except TypeError:
        raise TypeError(f"momenta must be a sequence of numbers, such as (0.0, 0.9, 0.99); got {value!r}.") from None
    if not momenta:
        raise ValueError("momenta must have at least one number; got none. (0.0, 0.9, 0.99) is usual.")
    return tuple(check_fraction(f"momenta[{i}]", m, below_one=True) for i, m in enumerate(momenta))


def check_trust_coefficient(value: Any) -> float:
    """The trust coefficient of LARS: finite and above 0."""
    eta = number("trust_coefficient", value)
    if not (0 < eta < math.inf):
        raise ValueError(f"trust_coefficient must be finite and above 0; got {value!r}. 0.001 is usual.")
    return eta


def check_max_norm(value: Any, name: str = "max_norm") -> float | None:
    """A bound of the gradients' global norm: above 0, or None for no bound. Infinity only measures the norm."""
    if value is None:
        return None
    bound = number(name, value)
    if not bound > 0:
        raise ValueError(f"{name} must be above 0, or None; got {value!r}. 1.0 is usual.")
    return bound


def check_decay(weight_decay: Any, decay: Any) -> tuple[float, Decay | None]:
    """A weight decay and its kind: both or neither, for there is no kind that the ecosystems agree on."""
    wd = number("weight_decay", weight_decay)
    if not (0 <= wd < math.inf):
        raise ValueError(f"weight_decay must be finite and at least 0; got {weight_decay!r}.")
    if decay not in (None, "coupled", "decoupled"):
        raise ValueError(f'decay must be "coupled", "decoupled" or None; got {decay!r}.')
    if wd and decay is None:
        raise ValueError(
            f"weight_decay={weight_decay!r} needs decay, since the frameworks mean different things by it: "
            'decay="coupled" adds weight_decay * w to the gradient (torch.optim.SGD); '
            'decay="decoupled" shrinks w by lr * weight_decay beside the step (Keras, AdamW, optax.adamw).'
        )
    if decay and not wd:
        raise ValueError(f"decay={decay!r} has no effect with weight_decay=0: give a weight_decay, or leave decay out.")
    return wd, decay


def check_cautious(cautious: Any, cautious_decay: Any, decay: Any) -> None:
    """Two switches, of which the second needs a decay to be cautious with."""
    for name, value in (("cautious", cautious), ("cautious_decay", cautious_decay)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}.")
    if cautious_decay and decay != "decoupled":
        raise ValueError(
            f'cautious_decay=True has no effect with decay={decay!r}: give weight_decay and decay="decoupled", or leave it out.'
        )


Finite = Literal["error", "skip", "off"]


def check_finite(value: Any) -> Finite:
    """What becomes of a step whose gradients are not all finite."""
    if value not in ("error", "skip", "off"):
        raise ValueError(
            f'finite must be "error" (such a step is left out and reported), "skip" (it is left out and counted) or "off"; got '
            f"{value!r}."
        )
    finite: Finite = value
    return finite


def not_finite(names: list[str], step: int, before: Sequence[str] = ()) -> str:
    """What is said of a step that was left out; `before` are the parameters of earlier ones that nobody was told of."""
    earlier = f" In steps before that, those of {list(before)} were not finite." if before else ""
    return (
        f"At step {step} (counted from 0) the gradients of these parameters are not finite: {names}. The step was left out: "
        'weights and slots are as they were. A smaller learning rate or max_norm often helps; finite="skip" only counts such '
        f"steps.{earlier}"
    )


class Common(TypedDict, total=False):
    """The arguments that every method has in NumPy and PyTorch, for the signatures."""

    weight_decay: float
    decay: Decay | None
    max_norm: float | None
    maximize: bool
    cautious: bool
    cautious_decay: bool
    finite: Finite


def check_takes_step(name: str, function: Callable[..., Any]) -> None:
    """A function of the step: it can be called with one argument."""
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        raise TypeError(
            f"{name} was given a callable that does not take the step: {function!r}. Write it as a function of one argument, "
            f"such as `lambda step: 0.1 / (1 + step / 100)`."
        ) from None
    except ValueError:  # a function of C code, whose arguments cannot be told
        pass
