"""Identification of the linear optimizers of Keras, ours and its own, on the backend of this process."""

from typing import Any

import keras
import numpy as np
import pytest

from check.settings import WITHIN, Draw, Rng, Setting, assert_identified, decay, momentum, rate
from check.test_identify import called_learning_rate, our_aggmo, our_qhm, ours


def known(number: float) -> float:
    """What becomes of a number of keras.optimizers: on TensorFlow it is cast, which makes a Python number float32 first."""
    return float(np.float32(number)) if keras.backend.backend() == "tensorflow" else number


def keras_sgd(rng: Rng) -> Setting:
    lr, m, nesterov = rate(rng), momentum(rng), bool(rng.integers(2))
    options: dict[str, Any] = {"learning_rate": lr, "momentum": m, "nesterov": nesterov}
    more = {"nesterov": nesterov, "velocity": "step", "dampening": 0.0, "first_step": None}
    if m < 0.01 or rng.random() < 0.3:
        return Setting(options, "momentum", lr, (known(m),), more=more)
    wd = decay(rng, lr)
    return Setting(options | {"weight_decay": wd}, "momentum", lr, (known(m),), "decoupled", known(wd), more)


CASES: dict[str, Draw] = {
    "keras.optimizers:SGD": keras_sgd,
    "polyak.keras:Momentum": called_learning_rate(ours),
    "polyak.keras:QHM": called_learning_rate(our_qhm),
    "polyak.keras:AggMo": called_learning_rate(our_aggmo),
}


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("name", CASES)
def test_random_settings(name: str, dtype: str) -> None:
    assert_identified(name, dtype, CASES[name], 1, seed=3)  # each takes 0.2 to 2 s, in which a backend compiles
