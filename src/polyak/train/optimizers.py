"""The optimizers of `polyak train`: the name and the settings that a person gives, and what they make.

All is checked without a framework, by the checks that the optimizers themselves have; `build_optimizer` then makes one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from polyak import arguments
from polyak.arguments import check_fraction, check_learning_rate, check_max_norm, number
from polyak.groups import Groups
from polyak.methods import METHODS, MUON_METHOD, Check, Method
from polyak.schedules.lines import OneCycle
from polyak.schedules.schedule import checked_steps
from polyak.train.schedules import Length, made, number_or_schedule
from polyak.train.settings import call, is_call
from polyak.train.words import choice, unknown
from polyak.update import pipeline

if TYPE_CHECKING:
    from polyak.train.options import Options


@dataclass(frozen=True)
class Choice:
    """An optimizer that can be chosen by name.

    Attributes:
        method: The method.
        settings: Its arguments, with their values where nobody sets them. All but the learning rate are those of its class.
        fixed: The arguments that make it what it is called, which cannot be set.
        without_default: The arguments that may be left out and have no value then.
        decay: The kind of its weight decay where it has only one, which is not asked for.
    """

    method: Method
    settings: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    without_default: tuple[str, ...] = ()
    decay: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that can be set."""
        return (*self.settings, *self.without_default, *COMMON)


def _heavy_ball(learning_rate: float, **fixed: Any) -> Choice:
    settings = {"momentum": 0.9, "nesterov": False, "velocity": "gradient", "dampening": 0.0}
    free = {name: x for name, x in settings.items() if name not in fixed}
    return Choice(METHODS["Momentum"], {"learning_rate": learning_rate, **free}, fixed)


# The learning rates are for small networks, batches of some hundred examples and some hundred steps, such as digits.
OPTIMIZERS: dict[str, Choice] = {
    # No velocity adds gradients up, to ten times a gradient. It could not take ten times the rate: it diverges sooner.
    "descent": _heavy_ball(0.3, momentum=0.0, nesterov=False, velocity="gradient", dampening=0.0),
    "momentum": _heavy_ball(0.1),
    "nesterov": _heavy_ball(0.1, nesterov=True, dampening=0.0),
    # Its velocity is an average, a tenth of heavy ball's sum.
    "qhm": Choice(METHODS["QHM"], {"learning_rate": 1.0, "momentum": 0.999, "nu": 0.7}),
    # Along a gradient that stays it moves by 37 lr in the end, and heavy ball by 10 lr.
    "aggmo": Choice(METHODS["AggMo"], {"learning_rate": 0.025, "momenta": [0.0, 0.9, 0.99]}),
    # A distance, not a factor.
    "signum": Choice(METHODS["Signum"], {"learning_rate": 1e-3, "momentum": 0.9}),
    "lion": Choice(METHODS["Lion"], {"learning_rate": 3e-4, "b1": 0.9, "b2": 0.99}),
    # With the trust coefficient, a part of the norm of a tensor.
    "lars": Choice(METHODS["LARS"], {"learning_rate": 1.0, "momentum": 0.9, "trust_coefficient": 0.001}),
    "schedule_free": Choice(METHODS["ScheduleFree"], {"learning_rate": 1.0, "momentum": 0.9, "warmup_steps": 0}),
    "muon": Choice(
        MUON_METHOD,
        {
            "learning_rate": 0.02,
            "momentum": 0.95,
            "nesterov": True,
            "polynomial": "polar_express",
            "steps": 5,
            "scale": "spectral",
            "roles": {},
            "split": {},
            "output_axis": {},
            "others": "momentum(learning_rate=0.01)",
        },
        without_default=("product_dtype",),
        decay="decoupled",
    ),
}


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false; got {value!r}.")
    return value


# What every optimizer can be given. Decay, cautious steps and groups are checked together, below.
COMMON: dict[str, Check] = {
    "weight_decay": partial(number, "weight_decay"),
    "decay": lambda x: x,
    "cautious": partial(_switch, "cautious"),
    "cautious_decay": partial(_switch, "cautious_decay"),
    "finite": arguments.check_finite,
    "groups": lambda x: x,
    "global_clipnorm": partial(check_max_norm, name="global_clipnorm"),
    "clipnorm": partial(check_max_norm, name="clipnorm"),
    "clipvalue": partial(check_max_norm, name="clipvalue"),
    "use_ema": partial(_switch, "use_ema"),
    "ema_momentum": partial(check_fraction, "ema_momentum"),
    "ema_overwrite_frequency": partial(checked_steps, "ema_overwrite_frequency"),
    "loss_scale_factor": partial(check_max_norm, name="loss_scale_factor"),
    "gradient_accumulation_steps": partial(checked_steps, "gradient_accumulation_steps", least=2),
}


def build_optimizer(options: "Options", *, steps: int, steps_per_epoch: int) -> Any:
    """The optimizer of a run, from `polyak.keras`. Unless `finite` is set, a gradient that is not finite is an error.

    Args:
        options: The options of the run.
        steps: How many steps the run has, for schedules that do not say it.
        steps_per_epoch: For schedules that count in epochs.

    Raises:
        ValueError: An option that does not fit the length of the run.
    """
    return _build(options.optimizer, {"finite": "error", **options.chosen}, Length(steps, steps_per_epoch))


def _build(name: str, given: Mapping[str, Any], length: Length) -> Any:
    import polyak.keras

    values = checked(name, given, length)
    if "others" in values:
        other = call(values["others"])
        values["others"] = _build(other.name, other.kwargs, length)
    return getattr(polyak.keras, OPTIMIZERS[name].method.name)(**values)


def checked(name: str, given: Mapping[str, Any], length: Length | None = None) -> dict[str, Any]:
    """All arguments of an optimizer, by name.

    Args:
        name: Its name in `OPTIMIZERS`.
        given: What was set.
        length: Of the run. None if it is not known yet: what depends on it is not looked at then.

    Raises:
        ValueError: An unknown name, a number out of its range, or settings of which one would have no effect.
        TypeError: A value of another type.
    """
    chosen = OPTIMIZERS[choice("--optimizer", name, OPTIMIZERS)]
    for setting in given:
        if setting in chosen.fixed:
            what = " and ".join(
                f"{key}={chosen.fixed[key]}".lower() for key in ("momentum", "nesterov") if chosen.fixed.get(key)
            )
            raise ValueError(
                f"{name} is momentum with {what or 'momentum=0'}: leave {setting} out, or choose --optimizer momentum."
            )
        if setting not in chosen.names:
            raise ValueError(unknown(f"{name} has no setting {setting!r}", setting, chosen.names))
    values = {**chosen.settings, **given, **chosen.fixed, **_cycle(name, chosen.method, given, length)}
    values = {setting: _checked(setting, value, chosen, length) for setting, value in values.items()}
    _check_together(values, chosen, length)
    if "others" in values:
        _check_others(values["others"], length)
    return values


def _checked(setting: str, value: Any, chosen: Choice, length: Length | None) -> Any:
    """One value, checked by itself."""
    method = chosen.method
    if setting == "learning_rate" or setting in method.varying:
        return number_or_schedule(setting, value, method.varying.get(setting, _check_rate), length)
    if check := method.constants.get(setting) or COMMON.get(setting):
        return check(value)
    usual = chosen.settings.get(setting, value)  # an option that chooses the rule, which the method looks at
    if setting in chosen.settings and type(value) is not type(usual):
        wanted = {bool: "true or false", int: "a whole number", str: "a word", dict: "a table"}[type(usual)]
        raise TypeError(f"{setting} must be {wanted}; got {value!r}.")
    return value


def _check_rate(value: Any) -> float:
    rate = check_learning_rate(value)
    if rate == 0:
        raise ValueError("learning_rate must be above 0; got 0, with which nothing is learned. Start from 0.1 or 0.01.")
    return rate


def _cycle(name: str, method: Method, given: Mapping[str, Any], length: Length | None) -> dict[str, Any]:
    """Learning rate and momentum, where the learning rate is given as a cycle of both."""
    rate = given.get("learning_rate")
    if not is_call(rate) or (written := call(rate)).name != "one_cycle":
        return {}
    if "momentum" not in method.varying:
        raise ValueError(f"learning_rate={rate} gives a momentum too, which {name} does not have. Try cosine.")
    if "momentum" in given:
        raise ValueError(f"learning_rate={rate} gives the momentum too: leave momentum={given['momentum']} out.")
    cycle = made("learning_rate", written, length)
    return cycle._asdict() if isinstance(cycle, OneCycle) else {"learning_rate": cycle, "momentum": cycle}


def _check_together(values: dict[str, Any], chosen: Choice, length: Length | None) -> None:
    """Check what has an effect only with something else, and make the schedules of groups."""
    method = chosen.method
    decay = values.get("decay", chosen.decay if values.get("weight_decay") else None)
    arguments.check_decay(values.get("weight_decay", 0.0), decay)
    arguments.check_cautious(values.get("cautious", False), values.get("cautious_decay", False), decay)
    pipeline(method.choose(**{name: values[name] for name in method.arguments}), decay)
    if "groups" in values:
        groups = Groups(
            values["groups"],
            method,
            decay or chosen.decay,
            lambda name, x, check: check(x) if name == "weight_decay" else number_or_schedule(name, x, check, length),
        )
        values["groups"] = groups.overrides
    clips = [name for name in ("global_clipnorm", "clipnorm", "clipvalue") if name in values]
    if len(clips) > 1:
        raise ValueError(f"{' and '.join(clips)} bound the same gradients: give one of them.")
    for name in ("ema_momentum", "ema_overwrite_frequency"):
        if name in values and not values.get("use_ema"):
            raise ValueError(f"{name} has no effect without use_ema: set use_ema=true, or leave {name} out.")


def _check_others(written: str, length: Length | None) -> None:
    """The optimizer that Muon has for what is no matrix."""
    other = call(written)
    if other.args:
        raise ValueError(f"others={written}: give its arguments by their names, as in momentum(learning_rate=0.1).")
    choice("optimizer in others:", other.name, [name for name in OPTIMIZERS if name not in ("muon", "schedule_free")])
    try:
        checked(other.name, other.kwargs, length)
    except (TypeError, ValueError) as error:
        raise type(error)(f"others={written}: {error}") from None
