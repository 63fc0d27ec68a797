"""The mathematics of Muon traced by TensorFlow."""

import numpy as np
import pytest

from polyak.matrices import Matrices
from polyak.rules.muon import muon
from polyak.rules.orthogonal import orthogonalise
from polyak.update import pipeline


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 6, 30), (2, 30, 6), (6, 7)])
def test_orthogonalise(shape: tuple[int, ...]) -> None:
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


def test_the_rule_for_a_kernel() -> None:
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
