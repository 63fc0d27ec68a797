"""Is momentum faster than descent on real data, when each has its own best learning rate?

A network with one hidden layer learns a task of `polyak train` with descent, momentum and Nesterov, at every learning rate of a
grid, from several seeds, with small and with large batches. What counts is how many steps it takes until the loss on a thousand
training examples falls to a target.

    python examples/best_rates.py digits            prints the table; with a path at its end, draws the picture there too
    python examples/best_rates.py mnist1d picture.png
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import polyak.jax
from polyak.train.tasks import find

HIDDEN = 64
SEEDS = 3
RATES = 2.0 ** np.arange(-8, 3)
BATCHES = (16, 256)
LOOKED_AT = 1_000  # training examples, the same ones at each look
METHODS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "descent": lambda lr: polyak.jax.momentum(lr, 0.0),
    "momentum": lambda lr: polyak.jax.momentum(lr, 0.9),
    "nesterov": lambda lr: polyak.jax.momentum(lr, 0.9, nesterov=True),
}


class Sweep(NamedTuple):
    """What the loss has to fall to, in how many steps at most, and how often it is looked at."""

    target: float
    steps: int
    every: int = 10


SWEEPS = {"digits": Sweep(0.1, 2_000), "mnist1d": Sweep(0.8, 4_000)}


def loss(params: Any, x: Any, y: Any) -> Any:
    """The mean cross-entropy."""
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["w2"] + params["b2"], y).mean()


def start(key: Any, inputs: int, classes: int) -> Any:
    """The weights at the start, as He et al., 2015, have them."""
    one, two = jax.random.split(key)
    return {
        "w1": jax.random.normal(one, (inputs, HIDDEN)) * (2 / inputs) ** 0.5,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(two, (HIDDEN, classes)) * (1 / HIDDEN) ** 0.5,
        "b2": jnp.zeros(classes),
    }


def losses(method: Callable[[Any], optax.GradientTransformation], x: Any, y: Any, batch: int, sweep: Sweep) -> np.ndarray:
    """The loss by learning rate, seed and look, of shape (rates, seeds, looks)."""
    classes = int(y.max()) + 1

    def run(lr: Any, seed: Any) -> Any:
        optimizer = method(lr)
        first, order = jax.random.split(jax.random.key(seed))
        params = start(first, x.shape[1], classes)

        def step(carry: Any, key: Any) -> Any:
            params, state = carry
            some = jax.random.randint(key, (batch,), 0, len(x))
            updates, state = optimizer.update(jax.grad(loss)(params, x[some], y[some]), state, params)
            return (optax.apply_updates(params, updates), state), None

        def look(carry: Any, keys: Any) -> Any:
            carry, _ = jax.lax.scan(step, carry, keys)
            return carry, loss(carry[0], x[:LOOKED_AT], y[:LOOKED_AT])

        keys = jax.random.split(order, (sweep.steps // sweep.every, sweep.every))
        return jax.lax.scan(look, (params, optimizer.init(params)), keys)[1]

    all_seeds = jax.jit(jax.vmap(run, (None, 0)))
    return np.array([all_seeds(jnp.float32(lr), jnp.arange(SEEDS)) for lr in RATES])


def steps_to_target(curves: np.ndarray, sweep: Sweep) -> np.ndarray:
    """The step of the first look at which the loss is at most the target; infinite where it never is."""
    there = curves <= sweep.target  # NaN is not
    return np.where(there.any(-1), (there.argmax(-1) + 1.0) * sweep.every, np.inf)


def measure(task: str) -> dict[int, dict[str, np.ndarray]]:
    """By batch size and method the steps to the target, of shape (rates, seeds)."""
    data = find(task, target=None, validation=0.2, seed=0).train
    x = jnp.asarray(data.x.reshape(len(data.x), -1), jnp.float32)
    y = jnp.asarray(data.y, jnp.int32)
    sweep = SWEEPS[task]
    return {
        batch: {name: steps_to_target(losses(method, x, y, batch, sweep), sweep) for name, method in METHODS.items()}
        for batch in BATCHES
    }


def best(steps: np.ndarray) -> tuple[float, float, float, float]:
    """The learning rate with the smallest median over the seeds, that median, and the fewest and most steps with it."""
    i = int(np.argmin(np.median(steps, axis=-1)))
    return float(RATES[i]), float(np.median(steps[i])), float(steps[i].min()), float(steps[i].max())


def draw(measured: dict[int, dict[str, np.ndarray]], task: str, path: Path) -> None:
    """The whole sweep: steps to the target by learning rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, (batch, methods) in zip(figure.subplots(1, len(measured), sharey=True), measured.items(), strict=True):
        for (name, steps), color, marker in zip(methods.items(), ("#000000", "#0072B2", "#D55E00"), "osD", strict=True):
            middle = np.median(steps, axis=-1)
            there = np.isfinite(middle)
            low, high = steps.min(-1), np.where(np.isfinite(steps.max(-1)), steps.max(-1), SWEEPS[task].steps)
            axes.plot(RATES[there], middle[there], color=color, marker=marker, label=name)
            axes.fill_between(RATES[there], low[there], high[there], color=color, alpha=0.15)
        axes.set_xscale("log", base=2)
        axes.set(
            yscale="log",
            ylim=(SWEEPS[task].every, SWEEPS[task].steps),
            xlabel="learning rate",
            title=f"{task}, batches of {batch}",
        )
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"steps until the loss is {SWEEPS[task].target:g}")
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def main(arguments: list[str]) -> None:
    """Print the best of each method, and draw the sweep if a path is given."""
    task, *path = arguments or ["digits"]
    measured = measure(task)
    print(f"{task}: steps until the loss is {SWEEPS[task].target:g}; median of {SEEDS} seeds (fewest to most)")
    for batch, methods in measured.items():
        for name, steps in methods.items():
            rate, middle, low, high = best(steps)
            print(
                f"batches of {batch:>3}  {name:<9}  best learning rate {rate:<8g}  {middle:>6,.0f} ({low:,.0f} to {high:,.0f})"
            )
    if path:
        draw(measured, task, Path(path[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
