"""TensorFlow's own ways of training: the eager loop of the text that the project started from, and tf.distribute."""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_support import BACKEND
from polyak.keras import Momentum

if BACKEND != "tensorflow":
    pytest.skip("about TensorFlow alone", allow_module_level=True)

import tensorflow as tf

TESTS = Path(__file__).parents[1]


def test_the_loop_of_the_text(capsys):
    example = runpy.run_path(str(TESTS.parent / "examples/understanding_momentum.py"))
    losses = example["main"](num_epochs=3)
    assert losses[0] < 1.0
    assert losses[-1] < 0.15
    assert "epoch 3: loss 0." in capsys.readouterr().out


def test_the_loop_of_the_text_follows_its_recursion():
    """v = m v + g; w = w - lr v, on a quadratic whose gradient is w."""
    w = tf.Variable([1.0, -2.0])
    optimizer = Momentum(learning_rate=0.1, momentum=0.9)
    expected, v = np.array([1.0, -2.0]), 0.0
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w**2) / 2
        gradients = tape.gradient(loss, [w])
        optimizer.apply_gradients(zip(gradients, [w], strict=True))
        v = 0.9 * v + expected
        expected = expected - 0.1 * v
    np.testing.assert_allclose(w.numpy(), expected, atol=1e-5)  # 20 float32 steps on weights of up to 2


def test_one_program_a_set_of_variables():
    """An eager step is one call of one compiled program, whatever the number of variables."""
    variables = [tf.Variable([float(i)]) for i in range(5)]
    optimizer = Momentum(0.1)
    for _ in range(3):
        optimizer.apply([tf.ones(1)] * 5, variables)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.ones(1)] * 4 + [None], variables)
    programs = optimizer._state.step._programs
    assert list(programs) == [(0, 1, 2, 3, 4), (0, 1, 2, 3)]
    assert all(p.experimental_get_tracing_count() == 1 for p in programs.values())


def train(optimizer, x, y, strategy=None, steps=8):
    """The GradientTape loop, with the loss averaged over the whole batch, on one process or under a strategy."""
    w = tf.Variable([[0.5], [-0.5]])
    b = tf.Variable([0.0])

    def replica_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((x @ w + b - y) ** 2) / 16
        optimizer.apply_gradients(zip(tape.gradient(loss, [w, b]), [w, b], strict=True))

    step = tf.function(
        lambda x, y: strategy.run(replica_step, args=(x, y)) if strategy else replica_step(x, y), autograph=False
    )
    for _ in range(steps):
        step(x, y)
    return np.concatenate([w.numpy().ravel(), b.numpy()])


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((16, 2)).astype("float32"), rng.standard_normal((16, 1)).astype("float32")


def make_optimizer():
    return Momentum(lambda step: 0.1 / (1 + step), 0.9, nesterov=True, weight_decay=0.01, decay="coupled")


def test_mirrored_strategy_on_one_device():
    alone = train(make_optimizer(), *data())
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        mirrored = train(make_optimizer(), *data(), strategy)
    np.testing.assert_allclose(mirrored, alone, rtol=1e-5)  # 8 steps in which sums may round in another order


def test_two_workers_give_the_weights_of_one_process():
    ports = []
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{p}" for p in ports]}
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(TESTS / "tensorflow_worker.py")]
        workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        outputs = [w.communicate(timeout=300) for w in workers]
    finally:
        for w in workers:
            w.kill()
    assert [w.returncode for w in workers] == [0, 0], outputs[0][1][-3000:] + outputs[1][1][-3000:]
    weights = [np.array(json.loads(out.splitlines()[-1]), "float32") for out, _ in outputs]
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_allclose(weights[0], train(make_optimizer(), *data()), rtol=1e-5)  # sums in another order
