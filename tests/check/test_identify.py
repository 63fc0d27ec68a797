"""Identification of linear optimizers: ours and their peers, with random settings and with those at the edge."""

from typing import Any

import pytest

from check.settings import WITHIN, Draw, Rng, Setting, apart, assert_identified, decay, momentum, of_ours, rate, subject
from polyak.check.identification import identify

# Ours are drawn most often, and in float64; what differs elsewhere is the driver or the noise. CONTRIBUTING.md says how each of
# them is drawn 200 times.
COUNT = {("polyak.torch:Momentum", "float64"): 100, ("polyak.torch:QHM", "float64"): 30, ("polyak.torch:AggMo", "float64"): 30}
FEWER = 6


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


def optax_sgd(rng: Rng) -> Setting:
    lr, m, nesterov = rate(rng), momentum(rng), bool(rng.integers(2))
    more = {"nesterov": nesterov, "velocity": "gradient", "dampening": 0.0, "first_step": None}
    options = {"learning_rate": lr, "momentum": m, "nesterov": nesterov}
    return Setting(options, "momentum", lr, (m,), more=more)


def called_learning_rate(draw: Draw) -> Draw:
    """The settings of an optimizer of polyak.torch for its twin in another front-end."""

    def renamed(rng: Rng) -> Setting:
        setting = draw(rng)
        setting.options["learning_rate"] = setting.options.pop("lr")
        return setting

    return renamed


TORCH: dict[str, Draw] = {
    "polyak.torch:Momentum": ours,
    "polyak.torch:QHM": our_qhm,
    "polyak.torch:AggMo": our_aggmo,
    "torch.optim:SGD": torchs,
    "pytorch_optimizer:QHM": their_qhm,
    "pytorch_optimizer:AggMo": their_aggmo,
}
JAX: dict[str, Draw] = {
    "polyak.jax:momentum": called_learning_rate(ours),
    "polyak.jax:qhm": called_learning_rate(our_qhm),
    "polyak.jax:aggmo": called_learning_rate(our_aggmo),
    "optax:sgd": optax_sgd,
}


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", TORCH)
def test_random_settings(name: str, dtype: str) -> None:
    assert_identified(name, dtype, TORCH[name], COUNT.get((name, dtype), FEWER))


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", JAX)
def test_random_settings_in_jax(name: str, dtype: str) -> None:
    # Each takes 0.2 to 1 s: JAX runs its operations one by one, or compiles them for each setting.
    assert_identified(name, dtype, JAX[name], 1, seed=1)


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
    # The mean of seven velocities, six of them alike, answers so too, at another learning rate.
    "nu is near 6/7": ("polyak.torch:QHM", {"lr": 0.4035691412281663, "momentum": 1.264381828e-4, "nu": 0.85738247}, "qhm", {}),
    # It adds each velocity to the weight by itself, which rounds it as often.
    "four velocities": (
        "pytorch_optimizer:AggMo",
        {
            "lr": 3.70926308099101e-05,
            "weight_decay": 0.00017148915900626392,
            "betas": (0.9921109561749148, 0.944801070367044, 0.6561479355367392, 0.9975417127792146),
        },
        "several",
        {},
    ),
    "clipped": ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "max_norm": 2.0}, "momentum", {"linear": False}),
}


@pytest.mark.parametrize("dtype", WITHIN)
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
