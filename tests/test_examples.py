"""The examples do what docs/momentum.md says of them, in small."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))


def test_momentum_takes_the_steps_on_a_quadratic_that_theory_says(tmp_path):
    faster = example("faster")
    rows = [
        (k, {n: (faster.measured(best(k), k), faster.predicted(best(k))) for n, best in faster.METHODS.items()})
        for k in (10, 100)
    ]
    for _, steps in rows:
        for name, (measured, predicted) in steps.items():
            # The start has parts in faster directions, which makes it quicker; the double pole of the heavy ball, slower by k.
            assert 0.85 * predicted < measured < (1.3 if name == "momentum" else 1.1) * predicted
    assert rows[1][1]["descent"][0] > 7 * rows[1][1]["momentum"][0]
    faster.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize(("momentum", "hollow"), [(0.0, 0), (0.845, 0), (0.85, 1), (0.955, 1), (0.96, 2), (0.975, 1)])
def test_where_a_weight_comes_to_rest(momentum, hollow):
    hollows = example("hollows")
    assert hollows.end(hollows.LINE, hollows.LINE_START, momentum) == [hollow]


def test_the_gradient_of_the_landscape_is_that_of_its_loss():
    hollows = example("hollows")
    w = np.random.default_rng(0).uniform(-3, 3, (20, 2))
    h = 1e-6
    slopes = [(hollows.PLANE.loss(w + h * e) - hollows.PLANE.loss(w - h * e)) / (2 * h) for e in np.eye(2)]
    # Central differences are wrong by h**2 and by the rounding of the loss over h.
    np.testing.assert_allclose(hollows.PLANE.gradient(w), np.stack(slopes, 1), atol=1e-8)


def test_more_starts_end_in_the_deepest_hollow_with_momentum():
    share = example("hollows").shares((0.0, 0.9), starts=100)
    assert share[0.9] > 2 * share[0.0]


def test_the_steps_to_a_target():
    rates = example("best_rates")
    curves = np.array([[3.0, 2.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(rates.steps_to_target(curves, rates.Sweep(1.5, 40, every=10)), [30, 10, np.inf])


def test_large_batches_show_what_momentum_does():
    rates = example("best_rates")
    rng = np.random.default_rng(0)
    # Ten times as steep in one direction as in another.
    x = (rng.standard_normal((512, 8)) * np.geomspace(0.1, 1, 8)).astype(np.float32)
    y = (x @ np.geomspace(10, 1, 8) > 0).astype(np.int32)
    sweep = rates.Sweep(0.1, 200)
    steps = {
        name: np.median(
            rates.steps_to_target(rates.losses(rates.METHODS[name], jnp.asarray(x), jnp.asarray(y), 256, sweep), sweep), -1
        ).min()
        for name in ("descent", "momentum")
    }
    assert steps["momentum"] < steps["descent"]
