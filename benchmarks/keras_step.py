"""One optimizer step in Keras on TensorFlow, beside keras.optimizers.SGD and TensorFlow's own momentum kernel.

    python benchmarks/keras_step.py [--quick]

Every contender makes one step in turn, over and over, so that each sees the same machine; the table has medians. `ratio` is
the time of keras.optimizers.SGD in the same mode over ours, `raw op` that of TensorFlow's ResourceApplyMomentum, in a graph,
over ours. GB/s counts 20 bytes a parameter (gradient, weight and velocity read; weight and velocity written), beside the
bandwidth of copying an array over another (4 bytes read and 4 written an element), which no update can exceed by much.

Before all that, the loop of the text that the project started from (forward, backward and update, eager) with either.
"""

import argparse
import os
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from shapes import GPT2_SMALL, MLP, ONE_TENSOR, RESNET50
from sklearn.datasets import load_digits
from timing import race

import polyak.keras

# Each function here is traced once for each of four models, which TensorFlow takes for a mistake.
tf.get_logger().setLevel("ERROR")

MODELS = {"64 M in one tensor": ONE_TENSOR, "ResNet-50": RESNET50, "GPT-2 small": GPT2_SMALL, "MLP": MLP}


def copy_bandwidth() -> float:
    """GB/s, by both threads, of copying an array that does not fit the caches."""
    a = tf.Variable(tf.zeros(64 << 20))
    b = tf.Variable(tf.ones(64 << 20))

    @tf.function(jit_compile=True)
    def copy() -> None:
        a.assign(b + 0.0)  # without the sum, XLA would not copy

    return 8 * (64 << 20) / race({"copy": copy}, 15)["copy"] / 1e9


def steps(optimizer: keras.Optimizer, shapes: list[tuple[int, ...]], grads: list[tf.Tensor]) -> dict[str, Callable[[], object]]:
    """A step in each mode, each with variables of its own kind of use."""
    variables = [keras.Variable(np.zeros(s, "float32"), name=f"v{i}") for i, s in enumerate(shapes)]
    optimizer.build(variables)

    def apply(g: list[tf.Tensor]) -> None:
        optimizer.apply(g, variables)

    graph = tf.function(apply, autograph=False)
    xla = tf.function(apply, autograph=False, jit_compile=True)
    return {"eager": lambda: apply(grads), "graph": lambda: graph(grads), "XLA": lambda: xla(grads)}


def raw_op(shapes: list[tuple[int, ...]], grads: list[tf.Tensor]) -> Callable[[], object]:
    """TensorFlow's kernel, called on every variable in one graph."""
    pairs = [(tf.Variable(np.zeros(s, "float32")), tf.Variable(np.zeros(s, "float32"))) for s in shapes]

    @tf.function(autograph=False)
    def step(grads: list[tf.Tensor]) -> None:
        for (w, v), g in zip(pairs, grads, strict=True):
            tf.raw_ops.ResourceApplyMomentum(var=w.handle, accum=v.handle, lr=0.01, grad=g, momentum=0.9)

    return lambda: step(grads)


def seed_loop(optimizer: keras.Optimizer) -> Callable[[], object]:
    """An epoch of the eager loop on digits."""
    images, labels = load_digits(return_X_y=True)
    data = tf.data.Dataset.from_tensor_slices(((images / 16).astype("float32"), labels)).batch(32).cache()
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def epoch() -> None:
        for x, y in data:
            with tf.GradientTape() as tape:
                loss = loss_fn(y, model(x))
            optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )

    return epoch


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 7 if parser.parse_args().quick else 25
    print(f"copy bandwidth {copy_bandwidth():.1f} GB/s; medians of {rounds} rounds")
    # First, while Python's heap is small: to collect the garbage of the models below would count as the loop's time.
    t = race({"keras": seed_loop(keras.optimizers.SGD(0.1, 0.9)), "polyak": seed_loop(polyak.keras.Momentum(0.1, 0.9))}, rounds)
    print(f"{'eager loop, digits':<27}{t['keras'] * 1e3:>8.1f} ms{t['polyak'] * 1e3:>8.1f} ms{t['keras'] / t['polyak']:>7.2f}x")
    print(f"{'model':<20}{'mode':<7}{'Keras SGD':>11}{'Polyak':>11}{'ratio':>8}{'raw op':>9}{'GB/s':>8}")
    for name, shapes in MODELS.items():
        size = sum(int(np.prod(s)) for s in shapes)
        grads = [tf.random.normal(s) for s in shapes]
        contenders = {("keras", mode): s for mode, s in steps(keras.optimizers.SGD(0.01, 0.9), shapes, grads).items()}
        contenders |= {("polyak", mode): s for mode, s in steps(polyak.keras.Momentum(0.01, 0.9), shapes, grads).items()}
        contenders["raw", "graph"] = raw_op(shapes, grads)
        t = race(contenders, rounds if size > 1_000_000 else 8 * rounds)
        for mode in ("eager", "graph", "XLA"):
            peer, ours = t["keras", mode], t["polyak", mode]
            print(
                f"{name:<20}{mode:<7}{peer * 1e3:>8.2f} ms{ours * 1e3:>8.2f} ms{peer / ours:>7.2f}x"
                f"{t['raw', 'graph'] / ours:>8.2f}x{20 * size / ours / 1e9:>8.1f}",
                flush=True,
            )
        del contenders


if __name__ == "__main__":
    main()
