"""An optimizer as its recursion, with its numbers: what one step does, for people."""

from collections.abc import Callable, Mapping
from typing import Any


def recursion(config: Mapping[str, Any]) -> list[str]:
    """The lines of one step.

    g is the gradient of the loss with respect to a weight w, v the velocity, which starts at 0. Numbers stand in their places;
    what follows a schedule keeps its name, and a line says which schedule.

    Args:
        config: Of an optimizer in `polyak.keras`, with the name of its class as `class`.

    Example:
        >>> config = {"class": "Momentum", "learning_rate": 0.1, "momentum": 0.9, "velocity": "gradient", "nesterov": False}
        >>> recursion({**config, "dampening": 0.0, "weight_decay": None, "decay": None})
        ['v = 0.9 v + g', 'w = w - 0.1 v']
    """
    number = _Numbers(config)
    write = _RULES.get(config["class"])
    lines = write(number) if write else [f"{config['class']}(learning_rate={number('learning_rate')})"]
    return [*_before(number), *lines, *_after(number), *number.schedules]


class _Numbers:
    """The numbers of an optimizer as text, and the schedules that were met among them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._schedules: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        value = self.config[name]
        if isinstance(value, Mapping):
            short = _SHORT.get(name, name)
            self._schedules[short] = _schedule(value)
            return short
        # The learning rate comes back from a float32.
        return f"{value:.6g}" if isinstance(value, int | float) else str(value)

    def complement(self, name: str) -> str:
        """1 - x."""
        text = self(name)
        return f"(1 - {text})" if isinstance(self.config[name], Mapping) else f"{1 - self.config[name]:.6g}"

    @property
    def schedules(self) -> list[str]:
        """A line for each."""
        return [f"{name} = {text}" for name, text in self._schedules.items()]


_SHORT = {"learning_rate": "lr", "momentum": "m"}


def _schedule(value: Any) -> str:
    """A schedule as a call, from what Keras keeps of it."""
    inner = value.get("config", {})
    if isinstance(inner, Mapping) and isinstance(inner.get("function"), Mapping):  # a function of the step in its wrapping
        return _schedule(inner["function"])
    name = value.get("class_name", "schedule")
    if not isinstance(inner, Mapping):
        return f"{inner}(step)"
    return f"{name}({', '.join(f'{key}={item}' for key, item in inner.items() if key != 'name')})"


def _momentum(number: _Numbers) -> list[str]:
    config = number.config
    lr = number("learning_rate")
    if config["momentum"] == 0:
        return [f"w = w - {lr} g"]
    m, look = number("momentum"), config["nesterov"]
    g = "g" if not config["dampening"] else f"{number.complement('dampening')} g"
    lr_g = f"{lr} g" if not config["dampening"] else f"{lr} * {g}"
    if config["velocity"] == "step":
        return [f"v = {m} v + {lr_g}", f"w = w - ({m} v + {lr_g})" if look else "w = w - v"]
    if config["velocity"] == "average":
        rest = number.complement("momentum")
        return [f"v = v + {rest} (g - v)", f"w = w - {lr} ({m} v + {rest} g)" if look else f"w = w - {lr} v"]
    return [f"v = {m} v + {g}", f"w = w - {lr} ({m} v + g)" if look else f"w = w - {lr} v"]


def _qhm(number: _Numbers) -> list[str]:
    step = f"w = w - {number('learning_rate')} ({number.complement('nu')} g + {number('nu')} v)"
    return [f"v = v + {number.complement('momentum')} (g - v)", step]


def _aggmo(number: _Numbers) -> list[str]:
    momenta = number.config["momenta"]
    mean = " + ".join(f"v{i}" for i in range(1, len(momenta) + 1))
    return [
        *(f"v{i} = {m:.6g} v{i} + g" for i, m in enumerate(momenta, 1)),
        f"w = w - {number('learning_rate')} ({mean}) / {len(momenta)}",
    ]


def _signum(number: _Numbers) -> list[str]:
    if number.config["momentum"] == 0:
        return [f"w = w - {number('learning_rate')} sign(g)"]
    return [f"v = v + {number.complement('momentum')} (g - v)", f"w = w - {number('learning_rate')} sign(v)"]


def _lion(number: _Numbers) -> list[str]:
    step = f"w = w - {number('learning_rate')} sign({number('b1')} v + {number.complement('b1')} g)"
    return [step, f"v = {number('b2')} v + {number.complement('b2')} g"]


def _lars(number: _Numbers) -> list[str]:
    decay = number("weight_decay") if number.config["weight_decay"] else ""
    denominator, g = (f"(|g| + {decay} |w|)", f"(g + {decay} w)") if decay else ("|g|", "g")
    return [
        f"trust = {number('trust_coefficient')} |w| / {denominator}   for each matrix; 1 for vectors",
        f"v = {number('momentum')} v + {number('learning_rate')} trust {g}",
        "w = w - v",
    ]


def _schedule_free(number: _Numbers) -> list[str]:
    b = number("momentum")
    return [
        f"y = {number.complement('momentum')} z + {b} x    where the gradient g is taken",
        f"z = z - {number('learning_rate')} g",
        "x = (1 - c) x + c z    the average, which is evaluated",
    ]


def _muon(number: _Numbers) -> list[str]:
    m, rest = number("momentum"), number.complement("momentum")
    along = f"{m} V + {rest} G" if number.config["nesterov"] else "V"
    return [
        f"V = V + {rest} (G - V)",
        f"W = W - {number('learning_rate')} f orthogonalise({along})    matrices of hidden layers; f by their shape",
        "the other weights take another rule",
    ]


_RULES: Mapping[str, Callable[[_Numbers], list[str]]] = {
    "Momentum": _momentum,
    "QHM": _qhm,
    "AggMo": _aggmo,
    "Signum": _signum,
    "Lion": _lion,
    "LARS": _lars,
    "ScheduleFree": _schedule_free,
    "Muon": _muon,
}


def _before(number: _Numbers) -> list[str]:
    """What becomes of the gradient before the rule."""
    config = number.config
    lines = []
    if config.get("global_clipnorm"):
        lines.append(f"g = g min(1, {number('global_clipnorm')} / |all g|)")
    if config.get("clipnorm"):
        lines.append(f"g = g min(1, {number('clipnorm')} / |g|)")
    if config.get("clipvalue"):
        lines.append(f"g between -{number('clipvalue')} and {number('clipvalue')}")
    if config.get("weight_decay") and config.get("decay") == "coupled" and config["class"] != "LARS":
        lines.append(f"g = g + {number('weight_decay')} w")
    return lines


def _after(number: _Numbers) -> list[str]:
    """What comes beside the step."""
    config = number.config
    lines = []
    if config.get("weight_decay") and config.get("decay") == "decoupled":
        where = " where the step makes w smaller" if config.get("cautious_decay") else ""
        lines.append(f"w = w - {number('learning_rate')} * {number('weight_decay')} w{where}")
    if config.get("cautious"):
        lines.append("cautious: only weights whose step goes down the present gradient move")
    for pattern, numbers in (config.get("groups") or {}).items():
        own = ", ".join(
            f"{name} {_Numbers({name: x})(name) if not isinstance(x, Mapping) else _schedule(x)}" for name, x in numbers.items()
        )
        lines.append(f"weights like {pattern}: {own}")
    return lines
