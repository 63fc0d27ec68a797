"""The operations on matrices, the same in every framework, and how arrays are seen as matrices."""

from typing import Any

import numpy as np
import pytest

from polyak.matrices import Matrices, add_product, cast, frobenius, identity, peak, reordered, reshaped, transposed
from polyak.rules.muon import muon
from polyak.rules.orthogonal import orthogonalise
from polyak.update import pipeline

# Arrays as matrices.


def test_kernels_of_two_layouts_are_the_same_matrices() -> None:
    kernel = np.random.default_rng(0).standard_normal((5, 3, 2, 4))  # out, in, kh, kw
    torch_layout, keras_layout = Matrices((5, 3, 2, 4)), Matrices((2, 4, 3, 5), output_axis=-1)
    assert (torch_layout.rows, torch_layout.cols) == (keras_layout.rows, keras_layout.cols) == (5, 24)
    by_torch = torch_layout.of(kernel[None])
    np.testing.assert_array_equal(by_torch, kernel.reshape(1, 5, 24))
    by_keras = keras_layout.of(kernel.transpose(2, 3, 1, 0)[None])
    # The same rows; the columns in the order of the layout, which the polar factor follows.
    np.testing.assert_array_equal(by_keras[0], kernel.transpose(0, 2, 3, 1).reshape(5, 24))
    step = torch_layout.back(orthogonalise(by_torch))[0]
    other = keras_layout.back(orthogonalise(by_keras))[0]
    np.testing.assert_allclose(other.transpose(3, 2, 0, 1), step, rtol=0, atol=1e-12)  # another order of the sums


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("axis", range(-4, 4))
def test_back_is_the_way_back(axis: int, split: int) -> None:
    arrays = np.arange(2.0 * 2 * 4 * 6 * 8).reshape(2, 2, 4, 6, 8)
    matrices = Matrices((2, 4, 6, 8), axis, split)
    seen = matrices.of(arrays)
    assert seen.shape == (2 * split, matrices.rows, matrices.cols)
    assert matrices.rows * split == (2, 4, 6, 8)[axis]
    np.testing.assert_array_equal(matrices.back(seen), arrays)
    first = np.moveaxis(arrays, 1 + axis % 4, 1)[1, -1].ravel()
    np.testing.assert_array_equal(seen[-1, -1], first)  # the last output of the second array


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("axes", [(-2, -1), (0, 1), (1, 0), (3, 1), (1,), (0, 1, 3)])
def test_outputs_of_several_dimensions(axes: tuple[int, ...], split: int) -> None:
    """In the order given; all the rest are inputs, in theirs."""
    arrays = np.arange(2.0 * 2 * 4 * 6 * 8).reshape(2, 2, 4, 6, 8)
    matrices = Matrices((2, 4, 6, 8), axes, split)
    seen = matrices.of(arrays)
    first = np.moveaxis(arrays, [1 + axis % 4 for axis in axes], range(1, 1 + len(axes)))
    np.testing.assert_array_equal(seen, first.reshape(2 * split, matrices.rows, matrices.cols))
    assert matrices.rows * split == np.prod([(2, 4, 6, 8)[axis] for axis in axes])
    np.testing.assert_array_equal(matrices.back(seen), arrays)


def test_heads_of_queries_are_matrices_of_their_own() -> None:
    queries = np.random.default_rng(0).standard_normal((6, 3, 4))  # (in, heads, size)
    matrices = Matrices(queries.shape, (-2, -1), split=3)
    together = matrices.back(orthogonalise(matrices.of(queries[None])))[0]
    for head in range(3):
        alone = orthogonalise(queries[:, head].T).T
        np.testing.assert_allclose(together[:, head], alone, rtol=0, atol=1e-12)  # another order of the sums


def test_arrays_without_elements_have_matrices_without_elements() -> None:
    for shape in ((0, 3), (3, 0), (2, 0, 3)):
        matrices = Matrices(shape, -1)
        arrays = np.zeros((2, *shape))
        assert matrices.of(arrays).shape == (2, matrices.rows, matrices.cols)
        assert matrices.back(matrices.of(arrays)).shape == arrays.shape
        update = pipeline(muon(matrices))
        w, _ = update.apply(arrays[0], arrays[0], (arrays[0],), update.Hyperparameters(0.1, 0.9))
        assert w.shape == shape


def test_split_cuts_the_outputs() -> None:
    qkv = np.random.default_rng(0).standard_normal((1, 12, 5))
    matrices = Matrices((12, 5), split=3)
    together = matrices.back(orthogonalise(matrices.of(qkv)))[0]
    for i in range(3):
        alone = orthogonalise(qkv[0, 4 * i : 4 * i + 4])
        np.testing.assert_allclose(together[4 * i : 4 * i + 4], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3,),), r"shape \(3,\) is no matrix"),
        (((3, 4), 2), r"output_axis=2 is no dimension"),
        (((3, 4), -3), r"output_axis=-3 is no dimension"),
        (((3, 4, 5), (0, 3)), r"output_axis=\(0, 3\) is no dimension of an array of shape \(3, 4, 5\)"),
        (((3, 4, 5), (0, -3)), r"output_axis=\(0, -3\) must name different dimensions"),
        (((3, 4), (0, 1)), r"output_axis=\(0, 1\) must name different dimensions of .*, and leave one for the inputs"),
        (((3, 4), ()), r"output_axis=\(\) must name different dimensions of .*, one at least"),
        (((4, 3), 0, 3), r"split=3 does not divide the 4 outputs"),
        (((5, 2, 3), (1, 2), 4), r"split=4 does not divide the 6 outputs"),
        (((4, 3), 0, 0), r"split=0 does not divide"),
    ],
)
def test_no_matrices(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matrices(*arguments)


# The operations.


def made(framework: str, x: Any) -> Any:
    """An array of the framework."""
    match framework:
        case "torch":
            import torch

            return torch.tensor(x)
        case "tensorflow":
            import tensorflow as tf

            return tf.constant(x)
        case "jax":
            import jax.numpy as jnp

            return jnp.asarray(x)
        case _:
            return x


@pytest.mark.parametrize("framework", ["numpy", "torch", "tensorflow", "jax"])
def test_operations(framework: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    x[0, 1, 2] = -7  # the largest of its matrix, without its sign
    given = made(framework, x)
    squares = (x.astype(np.float64) ** 2).sum((1, 2), keepdims=True)
    for found, expected in (
        (transposed(given), x.swapaxes(1, 2)),
        (reordered(given, (2, 0, 1)), x.transpose(2, 0, 1)),
        (reordered(given, [0, 2, 1]), x.swapaxes(1, 2)),
        (reshaped(given, (4, 6)), x.reshape(4, 6)),
        (identity(given @ transposed(given)), np.eye(3, dtype=np.float32)),
        (peak(given), abs(x).max((1, 2), keepdims=True)),
        (frobenius(given), np.sqrt(squares).astype(np.float32)),
    ):
        assert type(found) is type(given)
        # Nothing is rounded but the twelve squares, their sums and its root.
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, strict=True)
    half = cast(given, "float16")
    assert "float16" in str(half.dtype)
    back = cast(half, given.dtype)
    assert back.dtype == given.dtype
    np.testing.assert_allclose(np.asarray(back), x, rtol=2**-11)  # half a unit in the last place
    x[1, 0, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(np.asarray(peak(made(framework, x)))).ravel(), [False, True])


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("framework", ["numpy", "torch", "tensorflow", "jax"])
def test_a_product_is_added(framework: str, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    z, x, y = (rng.standard_normal((*batch, *shape)).astype(np.float32) for shape in ((3, 5), (3, 4), (4, 5)))
    found = add_product(-0.75, *(made(framework, a) for a in (z, x, y)))
    np.testing.assert_allclose(np.asarray(found), -0.75 * z + x @ y, rtol=0, atol=1e-5, strict=True)  # sums of numbers below 10


def test_a_sum_of_half_precision_is_rounded_once_in_jax() -> None:
    """Where z all but cancels x y, whose own rounding would be all that is left."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in ((3, 4), (4, 5)))
    product = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
    z = jnp.asarray(2 * product, jnp.bfloat16)
    found = jax.jit(lambda *of: add_product(-0.5, *of))(z, x, y)
    assert found.dtype == jnp.bfloat16
    # Half a unit in the last place of bfloat16, and the rounding in float32 of sums below 10.
    np.testing.assert_allclose(np.asarray(found, np.float64), product - np.asarray(z, np.float64) / 2, rtol=2**-8, atol=1e-5)
