"""One framework's part of the proof that state moves: `python state_worker.py FRAMEWORK FOLDER`.

For each case it makes 50 steps, saves, and makes 50 more: the run that is not interrupted. Then it loads what another framework
saved and makes the last 50 steps from there. The weights and slots of all of these are written to FOLDER.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from polyak.state.contents import KNOWN
from state_cases import CASES, ELSEWHERE, FRAMEWORKS, SHAPES, origins, takes_part

FRAMEWORK, FOLDER = sys.argv[1], Path(sys.argv[2])
HALF, WHOLE = 50, 100

if FRAMEWORK.startswith("keras"):
    os.environ["KERAS_BACKEND"] = FRAMEWORK.removeprefix("keras-")
os.environ["JAX_ENABLE_X64"] = "1"


def numbers(seed, dtype):
    """Weights or gradients: float64 and float32 as they are, bfloat16 as the float32 of the same value."""
    rng = np.random.default_rng(seed)
    found = {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}
    if dtype == "bfloat16":
        return {
            name: (np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            for name, x in found.items()
        }
    return {name: x.astype(dtype) for name, x in found.items()}


class InNumPy:
    def __init__(self, method, weights, dtype, options):  # noqa: ARG002  (as the others)
        import polyak.numpy

        if options["lr"] == "schedule":
            options = options | {"lr": lambda t: 0.1 if t < 60 else 0.05}
        self.weights_ = {name: w.copy() for name, w in weights.items()}
        self.optimizer, self.params = getattr(polyak.numpy, method)(self.weights_, **options), None

    def step(self, grads):
        self.optimizer.step(grads)

    def weights(self):
        return self.weights_

    def loaded(self, report):
        pass


class InTorch:
    def __init__(self, method, weights, dtype, options):
        import torch

        import polyak.torch

        self.torch, self.dtype = torch, getattr(torch, dtype)
        self.params = {name: torch.tensor(w, dtype=self.dtype).requires_grad_() for name, w in weights.items()}
        params = self.params.items() if method == "Muon" else self.params.values()  # one that knows the names
        self.optimizer = getattr(polyak.torch, method)(params, **options)

    def step(self, grads):
        for name, p in self.params.items():
            p.grad = self.torch.tensor(grads[name], dtype=self.dtype)
        self.optimizer.step()

    def weights(self):
        wide = self.torch.promote_types(self.dtype, self.torch.float32)
        return {name: p.detach().to(wide).numpy() for name, p in self.params.items()}

    def loaded(self, report):
        pass


class InJAX:
    def __init__(self, method, weights, dtype, options):
        import jax
        import jax.numpy as jnp
        import optax

        import polyak.jax

        lr = options["lr"] if options["lr"] != "schedule" else lambda t: jnp.where(t < 60, 0.1, 0.05)
        make = getattr(polyak.jax, KNOWN[method].function)
        self.transformation = make(lr, **{name: x for name, x in options.items() if name != "lr"})
        self.jnp, self.dtype = jnp, dtype
        self.params = {name: jnp.asarray(w, dtype) for name, w in weights.items()}
        self.optimizer = self.transformation, self.transformation.init(self.params)

        @jax.jit
        def step(params, state, grads):
            updates, state = self.transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = step

    def step(self, grads):
        grads = {name: self.jnp.asarray(g, self.dtype) for name, g in grads.items()}
        self.params, state = self.compiled(self.params, self.optimizer[1], grads)
        self.optimizer = self.transformation, state

    def weights(self):
        return {name: np.asarray(w.astype(self.jnp.promote_types(w.dtype, "float32"))) for name, w in self.params.items()}

    def loaded(self, report):
        self.optimizer = self.transformation, report.state


class InKeras:
    def __init__(self, method, weights, dtype, options):
        import keras

        import polyak.keras

        lr = options["lr"] if options["lr"] != "schedule" else lambda t: keras.ops.where(t < 60, 0.1, 0.05)
        self.keras, self.dtype = keras, dtype
        self.params = {name: keras.Variable(w, dtype=dtype, name=name.replace("/", "_")) for name, w in weights.items()}
        self.optimizer = getattr(polyak.keras, method)(lr, **{name: x for name, x in options.items() if name != "lr"})

    def step(self, grads):
        grads = [self.keras.ops.convert_to_tensor(grads[name], dtype=self.dtype) for name in self.params]
        self.optimizer.apply(grads, list(self.params.values()))

    def weights(self):
        wide = "float32" if self.dtype == "bfloat16" else self.dtype
        return {
            name: np.asarray(self.keras.ops.convert_to_numpy(self.keras.ops.cast(w, wide))) for name, w in self.params.items()
        }

    def loaded(self, report):
        pass


RUN = {"numpy": InNumPy, "torch": InTorch, "jax": InJAX}.get(FRAMEWORK, InKeras)


def file(framework, case, kind):
    return FOLDER / f"{framework}.{case}.{kind}"


def train(run, dtype, steps):
    for t in steps:
        run.step(numbers(1000 + t, dtype))


def record(run, case, origin):
    """Write the weights, and the state, which holds the slots and the count."""
    from polyak import state

    np.savez(file(FRAMEWORK, case, f"{origin}.npz"), **run.weights())
    state.save(file(FRAMEWORK, case, f"{origin}.state"), run.optimizer, run.params)


def whole_run(case, method, dtype, options):
    run = RUN(method, numbers(0, dtype), dtype, options)
    train(run, dtype, range(HALF))
    record(run, case, "half")
    train(run, dtype, range(HALF, WHOLE))
    record(run, case, "whole")


def second_half(case, method, dtype, options, origin):
    """From what another framework saved, into an optimizer that was made with other numbers where they can be changed."""
    from polyak import state

    with np.load(file(origin, case, "half.npz")) as weights:
        others = {} if FRAMEWORK == "jax" else dict(ELSEWHERE[method])
        if case == "schedule" or options.get("velocity") == "average":
            others.pop("lr", None)
        run = RUN(method, dict(weights), dtype, options | others)
    run.loaded(state.load(file(origin, case, "half.state"), run.optimizer, run.params))
    train(run, dtype, range(HALF, WHOLE))
    record(run, case, origin)


def wait_for_the_others():
    """Until each has saved its half. They run at the same time, so that each framework is imported once."""
    (FOLDER / f"{FRAMEWORK}.ready").touch()
    for other in FRAMEWORKS:
        while not (FOLDER / f"{other}.ready").exists():
            if (FOLDER / "stop").exists():
                sys.exit("another one failed")
            time.sleep(0.05)


if __name__ == "__main__":
    own = {case: what for case, what in CASES.items() if takes_part(FRAMEWORK, case)}
    for case, (method, dtype, options) in own.items():
        whole_run(case, method, dtype, options)
    wait_for_the_others()
    for case, (method, dtype, options) in own.items():
        second_half(case, method, dtype, options, origins(case)[FRAMEWORK])
