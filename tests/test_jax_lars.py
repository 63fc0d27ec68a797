"""LARS in JAX: the recursion, its peer in optax, norms of any size, and what the pipeline does to them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lars_cases
import polyak.jax

# Of float32: 20 steps with some 5 roundings of 6e-8 each, with signs at random 6e-7; that of a norm, which is a sum in float32
# too, is one of them. All frameworks are to agree within 1e-5.
SINGLE = 1e-6


def rate(step: Any) -> Any:
    return jnp.array(lars_cases.RATES)[step]


def train(optimizer: Any, start: Any, gradients: list[Any]) -> tuple[Any, Any]:
    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(params)
    for grads in gradients:
        params, state = step(params, state, grads)
    return params, state


@pytest.mark.parametrize("decay", [None, "coupled"])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-14), (np.float32, SINGLE)])
def test_follows_the_literature(decay: Any, dtype: Any, rtol: float) -> None:
    weight_decay = lars_cases.WEIGHT_DECAY if decay else 0.0
    with jax.enable_x64(dtype == np.float64):
        optimizer = polyak.jax.lars(rate, **lars_cases.NUMBERS, weight_decay=weight_decay, decay=decay)
        params, state = train(optimizer, lars_cases.start(dtype), lars_cases.gradients(dtype))
    weights, velocities = lars_cases.expected(dtype=dtype, decay=decay)
    lars_cases.assert_close(params, weights, rtol)
    lars_cases.assert_close(state.slots["velocity"], velocities, rtol)


def test_without_decay_it_is_optax_lars() -> None:
    mask = {name: len(shape) > 1 for name, shape in lars_cases.SHAPES.items()}
    with jax.enable_x64(True):
        theirs = optax.lars(
            rate, trust_coefficient=lars_cases.NUMBERS["trust_coefficient"], trust_ratio_mask=mask, momentum=0.8
        )
        ours = polyak.jax.lars(rate, **lars_cases.NUMBERS)
        (found, _), (wanted, _) = (train(made, lars_cases.start(), lars_cases.gradients()) for made in (ours, theirs))
    lars_cases.assert_close(found, wanted, 1e-14)  # float64, 20 steps


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e-9, 1e9, 1e18, 1e30])
def test_norms_of_any_size(size: float) -> None:
    """In float32 the squares of some are 0 and of others infinite."""
    w, g = (np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32) for seed in (0, 1))
    for w_size, g_size in ((1.0, size), (size, 1.0)):
        start = (w * w_size).astype(np.float32)
        after, _ = train(polyak.jax.lars(0.5, trust_coefficient=0.01), start, [(g * g_size).astype(np.float32)])
        moved = np.linalg.norm(np.asarray(after, np.float64) - start)
        # A step is 0.005 of a weight, whose rounding of 6e-8 is 1.2e-5 of it; the root of 64 elements' chance is less.
        assert moved == pytest.approx(0.005 * np.linalg.norm(start.astype(np.float64)), rel=1e-5)


def test_clipping_the_mask_and_groups_reach_the_norms() -> None:
    start = {"a": np.full((2, 2), 2.0), "b": np.full((2, 2), 2.0), "head": np.full((2, 2), 2.0)}
    grads = {"a": np.full((2, 2), 6.0), "b": np.full((2, 2), 8.0), "head": np.zeros((2, 2))}  # norms 12, 16 and 0
    with jax.enable_x64(True):
        optimizer = polyak.jax.lars(
            1.0,
            trust_coefficient=0.5,
            weight_decay=0.25,
            decay="coupled",
            max_norm=2.0,
            mask={"a": True, "b": False, "head": True},
            groups={"head": {"learning_rate": 0.5}},
        )
        params, _ = train(optimizer, start, [grads])
    # Scaled by 0.1; |w| is 4.
    np.testing.assert_allclose(params["a"], 2 - 0.5 * 4 / (1.2 + 0.25 * 4) * (0.6 + 0.25 * 2), rtol=1e-14)
    np.testing.assert_allclose(params["b"], 2 - 0.5 * 4 / 1.6 * 0.8, rtol=1e-14)
    np.testing.assert_allclose(params["head"], 2 - 0.5 * 0.25 * 2, rtol=1e-14)  # a gradient of 0: trust 1


def test_arguments() -> None:
    with pytest.raises(ValueError, match='decay="decoupled" has no meaning with lars'):
        polyak.jax.lars(0.1, weight_decay=0.1, decay="decoupled")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trust_coefficient must be finite and above 0; got -1"):
        polyak.jax.lars(0.1, trust_coefficient=-1)
    optimizer = polyak.jax.lars(0.1)
    w = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"lars needs the weights: call update\(grads, state, params\)"):
        optimizer.update(w, optimizer.init(w))


def test_a_trust_coefficient_that_is_traced() -> None:
    made = optax.inject_hyperparams(polyak.jax.lars)(learning_rate=0.5, momentum=0.8, trust_coefficient=0.25)
    w = jnp.full((2, 2), 2.0)
    state = made.init(w)
    updates, _ = jax.jit(made.update)(w, state, w)
    np.testing.assert_allclose(updates, -0.5 * 0.25 * 2 * np.ones((2, 2)), rtol=1e-6)


def test_half_precision_and_complex_parameters() -> None:
    w, g = (np.random.default_rng(seed).standard_normal((4, 6)).astype(np.float32) for seed in (0, 1))
    wanted, _ = train(polyak.jax.lars(0.5, trust_coefficient=0.5), w, [g])
    half, state = train(
        polyak.jax.lars(0.5, trust_coefficient=0.5), jnp.asarray(w, jnp.bfloat16), [jnp.asarray(g, jnp.bfloat16)]
    )
    assert (half.dtype, state.slots["velocity"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float32(half), wanted, rtol=0, atol=3 * 2**-7)  # start, gradient and result are rounded
    parts = (x[:, :3] + 1j * x[:, 3:] for x in (w, g))
    start, gradient = map(jnp.asarray, parts)
    found, _ = train(polyak.jax.lars(0.5, trust_coefficient=0.5), start, [gradient])
    np.testing.assert_allclose(np.concatenate([found.real, found.imag], 1), wanted, rtol=0, atol=1e-6)  # weights up to 3


def test_a_step_with_a_bad_gradient_is_left_out() -> None:
    start, grads = lars_cases.start(np.float32), lars_cases.gradients(np.float32)
    poisoned = {name: g * np.float32(np.nan) if name == "kernel" else g for name, g in grads[1].items()}
    optimizer = polyak.jax.lars(0.1, finite="skip", **lars_cases.NUMBERS)
    params, state = train(optimizer, start, [grads[0], poisoned])
    wanted, other = train(optimizer, start, grads[:1])
    assert int(state.skipped) == 1
    for name in start:
        np.testing.assert_array_equal(params[name], wanted[name])
        np.testing.assert_array_equal(state.slots["velocity"][name], other.slots["velocity"][name])
