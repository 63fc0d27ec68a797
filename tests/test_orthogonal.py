"""Newton-Schulz: the coefficients, the band that they promise, and the polar factor by an SVD in float64."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from polyak.rules.orthogonal import LOWEST, POLYNOMIALS, _best, _greedy, band, coefficients, orthogonalise

# N. Amsel, D. Persson, C. Musco, R. M. Gower, arXiv:2505.16932: the list in the code of section 3, before its safety factor.
PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]
# Wide, tall, square, near square (where X itself is iterated on), long (where its Gram matrix is), and single rows and columns.
SHAPES = [(8, 8), (8, 11), (11, 8), (8, 40), (40, 8), (1, 9), (9, 1), (1, 1)]


def applied(polynomial: Any, steps: int, s: Any) -> Any:
    """The polynomials of numbers."""
    for a, b, c in coefficients(polynomial, steps):
        s = a * s + b * s**3 + c * s**5
    return s


def matrix(shape: tuple[int, int], singular: Any = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A matrix of Frobenius norm 1 with these singular values, up to their norm; and its SVD."""
    g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    s = s if singular is None else torch.as_tensor(singular, dtype=torch.float64)
    s = s / s.norm()
    return (u * s) @ vt, u, s, vt


def distance(a: Tensor, b: Tensor) -> float:
    """In the spectral norm."""
    return float(torch.linalg.matrix_norm(a.double() - b.double(), 2))


# The polynomials.


def test_the_coefficients_are_the_published_ones() -> None:
    # Between ends that are nearly one number the equations are nearly singular, which leaves 6e-9 in the last steps.
    np.testing.assert_allclose(_greedy(8), PUBLISHED, rtol=1e-8)


def test_the_safety_factor_is_in_all_but_the_last() -> None:
    for (a, b, c), published in zip(coefficients("polar_express", 8)[:-1], PUBLISHED[:-1], strict=True):
        np.testing.assert_allclose((a * 1.01, b * 1.01**3, c * 1.01**5), published, rtol=1e-8)
    for steps in (1, 3, 8):
        np.testing.assert_allclose(coefficients("polar_express", steps)[-1], PUBLISHED[steps - 1], rtol=1e-8)


@pytest.mark.parametrize(("low", "high"), [(0.02, 1.0), (0.3, 1.7), (0.9, 1.1)])
def test_each_polynomial_is_the_best(low: float, high: float) -> None:
    """Chebyshev: an error that takes its greatest value with alternating signs at four places is the least possible."""
    a, b, c = _best(low, high)
    x = np.linspace(low, high, 100_001)
    error = 1 - (a * x + b * x**3 + c * x**5)
    worst = abs(error).max()
    signs = [sign for sign, _ in itertools.groupby(np.sign(error[abs(error) > worst * (1 - 1e-6)]))]
    assert signs == [1, -1, 1, -1]


def test_the_best_between_ends_that_are_nearly_one_number() -> None:
    """At whatever size s: of a polynomial of x / s the coefficients scale."""
    for s in (0.5, 1.0, 2.0):
        np.testing.assert_allclose(_best((1 - 1e-6) * s, s), (15 / 8 / s, -10 / 8 / s**3, 3 / 8 / s**5), rtol=1e-15)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
@pytest.mark.parametrize("polynomial", POLYNOMIALS)
def test_the_band_is_that_of_a_fine_grid(polynomial: Any, steps: int) -> None:
    values = applied(polynomial, steps, np.geomspace(LOWEST, 1, 200_001))
    # Between two places of the grid, which are 3.5e-5 apart, an extreme is missed by the square of that, times a curvature
    # that the composition makes large.
    np.testing.assert_allclose(band(polynomial, steps), (values.min(), values.max()), rtol=1e-6)


def test_what_the_docstring_promises() -> None:
    assert [tuple(round(x, 2) for x in band(p, 5)) for p in POLYNOMIALS] == [(0.47, 1.20), (0.85, 1.12)]
    low, high = band("polar_express", 6)
    assert 0.995 < low < high < 1.005
    assert all(band("quintic", steps)[0] < 0.69 for steps in range(1, 30))


# The matrices.


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e30), (torch.float32, 1e-30), (torch.float64, 1.0)])
@pytest.mark.parametrize("steps", [1, 4, 5, 8])
@pytest.mark.parametrize("polynomial", POLYNOMIALS)
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_values_follow_the_polynomial(
    shape: tuple[int, int], polynomial: Any, steps: int, dtype: torch.dtype, scale: float
) -> None:
    g, u, s, vt = matrix(shape, np.geomspace(1, 2 * LOWEST, min(shape)))
    given = (scale * g).to(dtype)
    before = given.clone()
    result = orthogonalise(given, polynomial, steps)
    assert (result.dtype, result.shape, torch.equal(given, before)) == (dtype, shape, True)
    # An error of one unit in the last place of the normalised matrix grows with the slope at 0, which is 1,000 after 5 steps
    # and 13,000 after 8, where most of it shrinks again as the values near 1: some 2e-4 of float32 are seen at most.
    tolerance = {torch.float32: 5e-4, torch.float64: 2e-12}[dtype]
    assert distance(result, (u * applied(polynomial, steps, s)) @ vt) < tolerance
    low, high = band(polynomial, steps)
    values = torch.linalg.svdvals(result)
    assert low - tolerance < values.min() <= values.max() < high + tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_the_polar_factor(shape: tuple[int, int]) -> None:
    g, u, _, vt = matrix(shape, np.geomspace(1, 0.01, min(shape)))
    # 8 steps end within 2e-15 of 1 in exact arithmetic; the rest is rounding, amplified as above.
    assert distance(orthogonalise(g, "polar_express", 8), u @ vt) < 1e-11
    assert distance(orthogonalise(g.float(), "polar_express", 8), u @ vt) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("shape", [(16, 16), (16, 100), (100, 16)])
@pytest.mark.parametrize("polynomial", POLYNOMIALS)
@pytest.mark.parametrize("steps", [5, 12])
def test_low_rank(polynomial: Any, steps: int, shape: tuple[int, int], rank: int, dtype: torch.dtype) -> None:
    """What has no part in G is made of rounding errors, and is never longer than the band."""
    g, u, s, vt = matrix(shape, [1.0] * rank + [0.0] * (min(shape) - rank))
    result = orthogonalise(g.to(dtype), polynomial, steps)
    # In bfloat16 a step adds up to 2^-8 of each product.
    rounding = 0.05 if dtype == torch.bfloat16 else 1e-3
    assert torch.linalg.svdvals(result.double()).max() < band(polynomial, steps)[1] + rounding
    if dtype != torch.bfloat16:
        inside = u[:, :rank].T @ result.double() @ vt[:rank].T
        expected = torch.diag(applied(polynomial, steps, s[:rank]))
        assert distance(inside, expected) < 1e-3


@pytest.mark.parametrize("polynomial", POLYNOMIALS)
@pytest.mark.parametrize("shape", [(24, 24), (24, 100), (100, 24)])
def test_bfloat16(shape: tuple[int, int], polynomial: Any) -> None:
    g, *_ = matrix(shape, np.geomspace(1, 0.2, min(shape)))
    result = orthogonalise(g.bfloat16(), polynomial)
    assert result.dtype == torch.bfloat16
    low, high = band(polynomial, 5, lowest=0.05)
    values = torch.linalg.svdvals(result.double())
    # Each of 10 to 15 products in a row is rounded by up to 2^-9.
    assert low - 0.04 < values.min() <= values.max() < high + 0.04


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_gives_zero(shape: tuple[int, int], dtype: torch.dtype) -> None:
    assert torch.equal(orthogonalise(torch.zeros(shape, dtype=dtype)), torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2)])
def test_empty(shape: tuple[int, ...]) -> None:
    assert orthogonalise(np.zeros(shape)).shape == shape


def test_the_scale_leaves_no_trace() -> None:
    """Not in one bit, if it is a power of 2; not even from the least normal number to the greatest."""
    g = matrix((6, 20))[0].float()
    expected = orthogonalise(g)
    for exponent in (-100, -10, 10, 120):
        assert torch.equal(orthogonalise(g * 2.0**exponent), expected)
    huge = torch.full((4, 4), torch.finfo(torch.float32).max)
    torch.testing.assert_close(orthogonalise(huge), orthogonalise(torch.ones(4, 4)))
    tiny = torch.full((4, 4), torch.finfo(torch.float32).smallest_normal)
    torch.testing.assert_close(orthogonalise(tiny), orthogonalise(torch.ones(4, 4)))


@pytest.mark.parametrize("shape", [(5, 6), (5, 30), (30, 5)])
def test_a_batch_is_each_matrix_by_itself(shape: tuple[int, int]) -> None:
    singles = [matrix(shape, seed=i)[0] * 10.0**i for i in range(6)]
    singles[2] = singles[2] * 0
    singles[4] = singles[4].clone()
    singles[4][1, 2] = math.nan
    together = orthogonalise(torch.stack(singles).reshape(2, 3, *shape)).reshape(6, *shape)
    for i, (one, g) in enumerate(zip(together, singles, strict=True)):
        assert one.isnan().all() == (i == 4)
        # Other kernels of the matrix product, of float64.
        torch.testing.assert_close(one, orthogonalise(g), rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_seen(value: float) -> None:
    g = torch.eye(3)
    g[0, 1] = value
    assert orthogonalise(g).isnan().all()


@pytest.mark.parametrize("shape", [(5, 6), (5, 30)])
def test_transposed(shape: tuple[int, int]) -> None:
    g = matrix(shape)[0]
    torch.testing.assert_close(orthogonalise(g.mT), orthogonalise(g).mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "products"),
    [
        # In products of the short side's square with itself, for 5 steps and sides of 1 : r.
        ((32, 32), 5 * (2 * 1 + 1)),
        ((32, 40), 5 * (2 * 1.25 + 1)),
        ((32, 48), 5 * (2 * 1.5 + 1)),  # by either
        ((32, 128), 3 * (2 * 4) + 4 * 5 - 3 * 3),  # the long side only at the start, after 2 and 4 steps, and at the end
        ((128, 32), 3 * (2 * 4) + 4 * 5 - 3 * 3),
    ],
)
def test_the_work(shape: tuple[int, int], products: float) -> None:
    """For long matrices the small Gram matrix does it."""
    g = torch.ones(shape)
    with FlopCounterMode(display=False) as counter:
        orthogonalise(g)
    assert counter.get_total_flops() == products * 2 * 32**3


# Errors.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(3),), ValueError, r"shape \(3,\)"),
        ((torch.ones(3),), ValueError, r"shape \(3,\)"),
        ((np.ones((3, 3)), "cubic"), ValueError, "'quintic', 'polar_express'; got 'cubic'"),
        ((np.ones((3, 3)), "quintic", 0), ValueError, "at least 1; got 0"),
        ((np.ones((3, 3)), "quintic", 101), ValueError, "at most 100; got 101"),
        ((np.ones((3, 3)), "quintic", 2.5), TypeError, "integer; got 2.5 of type float"),
        ((np.ones((3, 3)), "quintic", True), TypeError, "got True"),
    ],
)
def test_errors(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        orthogonalise(*arguments)


# Frameworks.


@pytest.mark.parametrize("shape", [(6, 7), (6, 30), (30, 6)])
def test_numpy_and_jax_agree_with_torch(shape: tuple[int, int]) -> None:
    import jax
    import jax.numpy as jnp

    g = torch.stack([matrix(shape, seed=i)[0] for i in range(3)]).float()
    expected = orthogonalise(g).numpy()
    ours = orthogonalise(g.numpy())
    assert ours.dtype == np.float32
    # A few units in the last place, amplified as above.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    compiled = jax.jit(orthogonalise)
    traced = compiled(g.numpy())
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, expected, rtol=0, atol=1e-4)
    assert not compiled(0 * g.numpy()).any()
    assert jax.eval_shape(orthogonalise, jnp.ones(shape, jnp.bfloat16)).dtype == jnp.bfloat16


def test_jax_keeps_float64() -> None:
    import jax

    g = matrix((6, 7), seed=0)[0]
    with jax.enable_x64(True):
        ours = jax.jit(orthogonalise)(g.numpy())
    # Rounding of float64, amplified as above; sums in float32 would be off by 1e-8 and more.
    np.testing.assert_allclose(ours, orthogonalise(g).numpy(), rtol=0, atol=1e-12, strict=True)
