"""keras.optimizers.SGD is velocity="step", torch.optim.SGD is velocity="gradient", also while the learning rate changes.

keras.optimizers.Lion is Lion with other names for b1 and b2.
"""

import keras
import numpy as np
import pytest
import torch

from keras_support import BACKEND, numpy, variable
from polyak.keras import Lion, Momentum

RATES = [0.1] * 10 + [0.01] * 10 + [0.2] * 10
GRADIENTS = np.random.default_rng(0).standard_normal((30, 6)).astype("float32")
START = np.ones(6, "float32")
# 30 float32 steps on weights of up to 5: each rounds by 2.4e-7 at most, here and in the peer.
TOLERANCE = {"atol": 1e-5}


def weights(optimizer):
    w = variable(START)
    for rate, g in zip(RATES, GRADIENTS, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(g)], [w])
    return numpy(w)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [None, 0.01])
def test_keras_sgd(nesterov, decay):
    if decay and BACKEND == "torch":
        pytest.skip("keras.optimizers.SGD (3.15) on PyTorch hands torch a Variable for its decay factor, and fails")
    peer = weights(keras.optimizers.SGD(0.1, 0.9, nesterov=nesterov, weight_decay=decay))
    options = {"weight_decay": decay, "decay": "decoupled"} if decay else {}
    ours = weights(Momentum(0.1, 0.9, nesterov=nesterov, velocity="step", **options))
    np.testing.assert_allclose(ours, peer, **TOLERANCE)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [None, 0.01])
def test_torch_sgd(nesterov, decay):
    w = torch.nn.Parameter(torch.tensor(START))
    sgd = torch.optim.SGD([w], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=decay or 0)
    for rate, g in zip(RATES, GRADIENTS, strict=True):
        sgd.param_groups[0]["lr"] = rate
        w.grad = torch.tensor(g)
        sgd.step()
    options = {"weight_decay": decay, "decay": "coupled"} if decay else {}
    ours = weights(Momentum(0.1, 0.9, nesterov=nesterov, **options))
    np.testing.assert_allclose(ours, w.detach().numpy(), **TOLERANCE)


def test_the_two_differ_when_the_learning_rate_changes():
    assert np.abs(weights(Momentum(0.1, 0.9)) - weights(Momentum(0.1, 0.9, velocity="step"))).max() > 0.1


@pytest.mark.parametrize("decay", [None, 0.01])
def test_keras_lion(decay):
    if decay and BACKEND == "torch":
        pytest.skip("keras.optimizers.Lion (3.15) on PyTorch fails as SGD does")
    peer = weights(keras.optimizers.Lion(0.1, beta_1=0.8, beta_2=0.95, weight_decay=decay))
    options = {"weight_decay": decay, "decay": "decoupled"} if decay else {}
    np.testing.assert_allclose(weights(Lion(0.1, b1=0.8, b2=0.95, **options)), peer, **TOLERANCE)
