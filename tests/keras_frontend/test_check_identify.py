"""Identification of the linear optimizers of Keras, ours and its own, on the backend of this process."""

from typing import Any

import numpy as np
import pytest

from check.settings import Draw, Rng, Setting, decay, drawn, momentum, rate
from check.test_identify import our_aggmo, our_qhm, ours, subject
from polyak.check.identification import identify


def keras_sgd(rng: Rng) -> Setting:
    lr, m, nesterov = rate(rng), momentum(rng), bool(rng.integers(2))
    options: dict[str, Any] = {"learning_rate": lr, "momentum": m, "nesterov": nesterov}
    more = {"nesterov": nesterov, "velocity": "step", "dampening": 0.0, "first_step": None}
    if m < 0.01 or rng.random() < 0.3:
        return Setting(options, "momentum", lr, (m,), more=more)
    wd = decay(rng, lr)
    return Setting(options | {"weight_decay": wd}, "momentum", lr, (m,), "decoupled", wd, more)


def in_keras(draw: Draw) -> Draw:
    """The settings of an optimizer of polyak.torch for its twin."""

    def drawn_in_keras(rng: Rng) -> Setting:
        setting = draw(rng)
        setting.options["learning_rate"] = setting.options.pop("lr")
        return setting

    return drawn_in_keras


CASES = {
    "keras.optimizers:SGD": keras_sgd,
    "polyak.keras:Momentum": in_keras(ours),
    "polyak.keras:QHM": in_keras(our_qhm),
    "polyak.keras:AggMo": in_keras(our_aggmo),
}


@pytest.mark.parametrize("name", CASES)
def test_random_settings(name: str) -> None:
    for setting in drawn(CASES[name], 3, seed=3):  # each takes 0.2 s
        setting.assert_is(identify(subject(name, setting.options, "float32")), 1e-3)


def test_a_setting_in_float64() -> None:
    (setting,) = drawn(keras_sgd, 1, seed=4)
    identity = identify(subject("keras.optimizers:SGD", setting.options))
    assert identity.kind == "momentum"
    assert identity.dtype == "float64"
    # On TensorFlow, Keras passes numbers through float32.
    assert identity.momenta[0].value == pytest.approx(setting.momenta[0], abs=float(np.finfo(np.float32).eps))
