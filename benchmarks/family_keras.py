"""How long a step of each method takes in Keras on TensorFlow: polyak.keras against the optimizers of Keras that offer it.

    python benchmarks/family_keras.py [--quick] [--models MLP] [--methods Lion,Muon]

A step is `optimizer.apply` in the mode of each line, as in keras_step.py. All take turns, step by step, in an order that
changes; a figure is the median over the rounds. "ratio" is the time of the peer over Polyak's: above 1, Polyak is faster.
"guarded" is a step with global_clipnorm and finite="skip", as a multiple of the plain one. Muon has the matrices of GPT-2
small's blocks or of an MLP instead.
"""

import argparse
import random
from collections.abc import Callable
from typing import Any

import keras_step as base  # sets the backend; so it is the first
import tensorflow as tf
from keras_step import keras
from shapes import GPT2_MATRICES, MLP_MATRICES
from timing import race

import polyak.keras

LR = 1e-4
MODES = ("eager", "graph", "XLA")
GUARD = {"global_clipnorm": 1.0, "finite": "skip"}
# Method -> what of Keras has the same recursion. Keras offers none of the others; its schedule-free optimizer is AdamW's.
PEERS: dict[str, Callable[[], Any] | None] = {
    "Momentum": lambda: keras.optimizers.SGD(LR, 0.9),
    "QHM": None,
    "AggMo": None,
    "Signum": None,
    "Lion": lambda: keras.optimizers.Lion(LR),
    "LARS": None,
    "ScheduleFree": None,
    "Muon": lambda: keras.optimizers.Muon(LR, weight_decay=None, adam_weight_decay=None),
}
MATRICES = {"GPT-2 small": GPT2_MATRICES, "MLP": MLP_MATRICES}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--models", default=",".join(base.MODELS), help="names, with commas between them")
    parser.add_argument("--methods", default=",".join(PEERS), help="names, with commas between them")
    arguments = parser.parse_args()
    rounds = 7 if arguments.quick else 25
    random.seed(0)
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}; copying {base.copy_bandwidth():.1f} GB/s")
    for model in arguments.models.split(","):
        for method in arguments.methods.split(","):
            shapes = MATRICES.get(model, []) if method == "Muon" else base.MODELS[model]
            if not shapes:
                continue
            grads = [tf.random.normal(shape) for shape in shapes]
            make, peer = getattr(polyak.keras, method), PEERS[method]
            optimizers = {"polyak": make(LR), "guarded": make(LR, **GUARD), **({"keras": peer()} if peer else {})}
            contenders = {
                (name, mode): step for name, o in optimizers.items() for mode, step in base.steps(o, shapes, grads).items()
            }
            size = sum(tf.size(g) for g in grads)
            t = race(contenders, rounds if size > 1_000_000 else 8 * rounds)
            for mode in MODES:
                ours = t["polyak", mode]
                ratio = f"keras {1e3 * t['keras', mode]:9.3f} ms  ratio {t['keras', mode] / ours:5.2f}" if peer else "no peer"
                guarded = f"guarded {t['guarded', mode] / ours:4.2f}"
                print(f"{model:20} {method:13} {mode:6} {1e3 * ours:9.3f} ms  {guarded}  {ratio}", flush=True)
            del contenders


if __name__ == "__main__":
    main()
