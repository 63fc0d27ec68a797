"""The mathematics of Muon in other frameworks than NumPy, traced and not."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from polyak.matrices import Matrices
from polyak.rules.muon import muon
from polyak.rules.orthogonal import orthogonalise
from polyak.update import pipeline


def test_products_in_another_dtype() -> None:
    """In every framework by its name; velocity and step keep theirs."""
    import jax.numpy as jnp
    import tensorflow as tf
    import torch

    class H(NamedTuple):
        learning_rate: float = 1.0
        momentum: float = 0.5

    g = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    exact = pipeline(muon(Matrices(g.shape), steps=1)).step(g, g, (0 * g,), H())[0]
    rough = pipeline(muon(Matrices(g.shape), steps=1, product_dtype="bfloat16"))
    for make in (torch.tensor, tf.constant, jnp.asarray):
        step, (v,) = rough.step(make(g), make(g), (make(0 * g),), H())
        assert str(np.asarray(step).dtype) == str(np.asarray(v).dtype) == "float32"
        error = np.abs(np.asarray(step) - exact).max()
        # Each of some five products is rounded to 8 bits, and the first polynomial has a slope of 8.
        assert 1e-4 < error < 0.1
    doubled = pipeline(muon(Matrices(g.shape), steps=1, product_dtype="float64")).step(g, g, (0 * g,), H())[0]
    assert doubled.dtype == np.float32
    np.testing.assert_allclose(doubled, exact, rtol=0, atol=1e-4)  # what float32 leaves


@pytest.mark.parametrize("shape", [(6, 7), (2, 6, 30), (2, 30, 6)])
def test_orthogonalise_in_tensorflow(shape: tuple[int, ...]) -> None:
    import tensorflow as tf

    g = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = orthogonalise(g)
    for function in (orthogonalise, tf.function(orthogonalise, jit_compile=True)):
        result = function(tf.constant(g))
        assert result.dtype == tf.float32
        # A few units in the last place, times the slope of the polynomials at 0, 1,000.
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
    zero = tf.zeros(shape, tf.bfloat16)
    assert orthogonalise(zero).dtype == tf.bfloat16
    assert not tf.reduce_any(orthogonalise(zero) != 0)


def test_the_rule_for_a_kernel_in_tensorflow() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    w, g, v = (rng.standard_normal((3, 3, 4, 8)).astype(np.float32) for _ in range(3))
    update = pipeline(muon(Matrices(w.shape, output_axis=-1, split=2)), "decoupled")
    h = update.Hyperparameters(*map(np.float32, (0.1, 0.9, 0.1)))
    expected = update.apply(g, w, (v,), h)

    @tf.function(jit_compile=True)
    def apply(g, w, v):
        return update.apply(g, w, (v,), h)

    new_w, (new_v,) = apply(g, w, v)
    np.testing.assert_allclose(new_w, expected[0], rtol=0, atol=1e-4)  # as above
    np.testing.assert_allclose(new_v, expected[1][0], rtol=0, atol=1e-6)  # a rounding of a number below 4


def test_equal_to_optax_without_its_nesterov() -> None:
    """Whose matrices are inputs x outputs, and whose average is divided by 1 - m^t, which orthogonalise does not see."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    w = rng.standard_normal((6, 9)).astype(np.float32)
    gradients = rng.standard_normal((8, 6, 9)).astype(np.float32)
    theirs = optax.contrib.muon(0.125, beta=0.75, nesterov=False, weight_decay=0.5)
    update = pipeline(muon(Matrices(w.shape, output_axis=-1), nesterov=False, polynomial="quintic"), "decoupled")
    h = update.Hyperparameters(*map(jnp.float32, (0.125, 0.75, 0.5)))
    their_w, state = jnp.asarray(w), theirs.init(jnp.asarray(w))
    our_w, slots = jnp.asarray(w), (jnp.zeros_like(w),)

    @jax.jit
    def both(g: Any, their_w: Any, state: Any, our_w: Any, slots: Any) -> Any:
        step, state = theirs.update(g, state, their_w)
        return optax.apply_updates(their_w, step), state, *update.apply(g, our_w, slots, h)

    for g in gradients:
        their_w, state, our_w, slots = both(g, their_w, state, our_w, slots)
    # 8 steps of length 1/8; each differs by units in the last place times the slope of the polynomials at 0, 500.
    np.testing.assert_allclose(our_w, their_w, rtol=0, atol=5e-4)
    (velocity,) = (leaf for leaf in jax.tree.leaves(state) if leaf.shape == w.shape)
    np.testing.assert_allclose(slots[0], velocity, rtol=0, atol=1e-6)  # roundings of numbers below 4
