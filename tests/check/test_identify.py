"""Identification of linear optimizers: ours and their peers, with random settings and with those at the edge."""

from typing import Any

import pytest

from check.settings import Draw, Rng, Setting, apart, decay, drawn, momentum, of_ours, rate
from polyak.check.drivers.loading import load
from polyak.check.identification import identify
from polyak.check.trial import Subject

# The rules of pytorch_optimizer are among ours, and what differs in float32 is the noise: fewer do there.
COUNT = {("polyak", "float64"): 200, ("torch", "float64"): 200, ("pytorch_optimizer", "float64"): 60}
FEWER = 20
WITHIN = {"float64": 1e-6, "float32": 1e-3}


def subject(name: str, options: dict[str, Any], dtype: str = "float64") -> Subject:
    found = load(name, options)
    if dtype == "float32":
        found.double = False
    return found


def ours(rng: Rng) -> Setting:
    m = momentum(rng)
    options, told = of_ours(rng, m)
    velocity = rng.choice(["gradient", "step", "average"])
    nesterov = bool(rng.integers(2))
    dampened = not nesterov and velocity != "average" and rng.random() < 0.5
    dampening = float(rng.uniform(0.05, 0.95)) if dampened else 0.0
    options |= {"momentum": m, "velocity": velocity, "nesterov": nesterov, "dampening": dampening}
    more = {
        "nesterov": nesterov,
        "velocity": "step" if velocity == "step" else "gradient",
        "dampening": m if velocity == "average" else dampening,
        "first_step": None,
        "sign": 1,
    }
    return Setting(options, "momentum", momenta=(m,), more=more, **told)


def our_qhm(rng: Rng) -> Setting:
    m, nu = momentum(rng), float(rng.uniform(0.05, 0.95))
    options, told = of_ours(rng, m)
    more = {"nu": nu, "velocity": "gradient", "first_step": None}
    return Setting(options | {"momentum": m, "nu": nu}, "qhm", momenta=(m,), more=more, **told)


def our_aggmo(rng: Rng) -> Setting:
    momenta = apart(rng)
    options, told = of_ours(rng)
    more = {"velocity": "gradient", "first_step": None}
    return Setting(options | {"momenta": momenta}, "several", momenta=momenta, more=more, **told)


def torchs(rng: Rng) -> Setting:
    lr, m = rate(rng), momentum(rng)
    nesterov, maximize, decays = (bool(rng.integers(2)) for _ in range(3))
    dampening = 0.0 if nesterov or rng.random() < 0.5 else float(rng.uniform(0.05, 0.95))
    wd = decay(rng, lr) if decays else 0.0
    options = {"lr": lr, "momentum": m, "nesterov": nesterov, "dampening": dampening, "maximize": maximize, "weight_decay": wd}
    more = {
        "nesterov": nesterov,
        "velocity": "gradient",
        "dampening": dampening,
        "first_step": "dampening not applied" if dampening else None,
        "sign": -1 if maximize else 1,
    }
    return Setting(options, "momentum", lr, (m,), "coupled" if decays else "none", wd if decays else None, more)


def of_pytorch_optimizer(rng: Rng, momentum: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same as `of_ours`, with a decay beside that is independent of the learning rate."""
    options, told = of_ours(rng, momentum)
    kind = options.pop("decay", "none")
    if kind == "decoupled":
        options["weight_decouple"] = True
        if rng.integers(2):
            options["fixed_decay"] = True
            told["decay"] = "independent"
            options["weight_decay"] = told["weight_decay"] = float(10 ** rng.uniform(-5, -1))
    return options, told


def their_qhm(rng: Rng) -> Setting:
    m, nu = momentum(rng), float(rng.uniform(0.05, 0.95))
    options, told = of_pytorch_optimizer(rng, m)
    return Setting(options | {"momentum": m, "nu": nu}, "qhm", momenta=(m,), more={"nu": nu}, **told)


def their_aggmo(rng: Rng) -> Setting:
    momenta = apart(rng)
    options, told = of_pytorch_optimizer(rng)
    return Setting(options | {"betas": momenta}, "several", momenta=momenta, **told)


TORCH = {
    "polyak.torch:Momentum": ours,
    "polyak.torch:QHM": our_qhm,
    "polyak.torch:AggMo": our_aggmo,
    "torch.optim:SGD": torchs,
    "pytorch_optimizer:QHM": their_qhm,
    "pytorch_optimizer:AggMo": their_aggmo,
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TORCH)
def test_random_settings(name: str, dtype: str) -> None:
    draw: Draw = TORCH[name]
    for setting in drawn(draw, COUNT.get((name.split(":")[0].split(".")[0], dtype), FEWER)):
        setting.assert_is(identify(subject(name, setting.options, dtype)), WITHIN[dtype])


def optax_sgd(rng: Rng) -> Setting:
    lr, m, nesterov = rate(rng), momentum(rng), bool(rng.integers(2))
    more = {"nesterov": nesterov, "velocity": "gradient", "dampening": 0.0, "first_step": None}
    options = {"learning_rate": lr, "momentum": m, "nesterov": nesterov}
    return Setting(options, "momentum", lr, (m,), more=more)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_settings_of_optax(dtype: str) -> None:
    for setting in drawn(optax_sgd, 5, seed=1):  # each takes 0.3 s: JAX runs its operations one by one
        setting.assert_is(identify(subject("optax:sgd", setting.options, dtype)), WITHIN[dtype])


SGD = "torch.optim:SGD"
SETTINGS = {
    "still": (SGD, {"lr": 0.0, "momentum": 0.9}, "still", {}),
    "no momentum": (SGD, {"lr": 0.1}, "descent", {"learning_rate": 0.1, "sign": 1}),
    "up": (SGD, {"lr": 0.1, "maximize": True}, "descent", {"learning_rate": 0.1, "sign": -1}),
    "tiny": (SGD, {"lr": 1e-12, "momentum": 0.9}, "momentum", {"learning_rate": 1e-12}),
    "huge": (SGD, {"lr": 1e6, "momentum": 0.9}, "momentum", {"learning_rate": 1e6}),
    "long": (SGD, {"lr": 0.1, "momentum": 0.99999}, "momentum", {"momenta": (0.99999,)}),
    "for ever": (SGD, {"lr": 0.1, "momentum": 1.0}, "momentum", {"momenta": (1.0,)}),
    "long mean": (
        "polyak.torch:AggMo",
        {"lr": 0.1, "momenta": (0.9, 0.99, 0.999)},
        "several",
        {"momenta": (0.999, 0.99, 0.9), "learning_rate": 0.1},
    ),
    "a momentum of 0": ("polyak.torch:AggMo", {"lr": 0.1, "momenta": (0.0, 0.9)}, "several", {"momenta": (0.9, 0.0)}),
    "one velocity": ("polyak.torch:AggMo", {"lr": 0.1, "momenta": (0.9,)}, "momentum", {"momenta": (0.9,), "nesterov": False}),
    "nu is 0": ("polyak.torch:QHM", {"lr": 0.1, "momentum": 0.9, "nu": 0.0}, "descent", {"learning_rate": 0.1}),
    "nu is 1": (
        "polyak.torch:QHM",
        {"lr": 0.1, "momentum": 0.9, "nu": 1.0},
        "momentum",
        {"nesterov": False, "dampening": 0.9},
    ),
    "nu is the momentum": (
        "polyak.torch:QHM",
        {"lr": 0.1, "momentum": 0.9, "nu": 0.9},
        "momentum",
        {"nesterov": True, "dampening": 0.9, "learning_rate": 0.1},
    ),
    "clipped": ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "max_norm": 2.0}, "momentum", {"linear": False}),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", SETTINGS)
def test_settings_at_the_edge(case: str, dtype: str) -> None:
    name, options, kind, told = SETTINGS[case]
    identity = identify(subject(name, options, dtype))
    assert identity.kind == kind, identity
    for field, expected in told.items():
        found = getattr(identity, field)
        if field == "momenta":
            assert [number.value for number in found] == pytest.approx(expected, abs=1e-6)
        elif isinstance(expected, float):
            assert found.value == pytest.approx(expected, rel=1e-6)
        else:
            assert found == expected
    assert identity.dtype == dtype
    if identity.clip:
        assert identity.clip[0].value == pytest.approx(2.0, rel=1e-3)
        assert identity.clip[1] == "all"
