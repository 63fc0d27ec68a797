"""LARS: its rule, the kernel with numbers for each tensor, NumPy and PyTorch. JAX and Keras have files of their own."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import lars_cases
import polyak.numpy
import polyak.torch
from polyak.compile import CHUNK, Table, address, kernel
from polyak.rules import heavy_ball
from polyak.rules.lars import LARS
from polyak.update import pipeline

DECAYS = pytest.mark.parametrize("decay", [None, "coupled"])
# Of float32: 20 steps with some 5 roundings of 6e-8 each, with signs at random 6e-7.
SINGLE = 1e-6
DOUBLE = 1e-14


def number_of(name: str, value: Any = None, **others: Any) -> Any:
    """One of the numbers that a matrix has for itself, by the rule with coupled decay."""
    h = {"learning_rate": Fraction(1, 2), "trust_coefficient": Fraction(1, 3), "weight_decay": Fraction(1, 4)}
    given = {"g_norm": Fraction(5), "w_norm": Fraction(4), "dimensions": 2, **others}
    return LARS.per_tensor({**h, **({} if value is None else {name: value})}, **given)[name]


def test_the_learning_rate_of_a_tensor() -> None:
    assert number_of("learning_rate") == Fraction(1, 2) * Fraction(1, 3) * 4 / (5 + 1)
    assert number_of("learning_rate", dimensions=4) == number_of("learning_rate")
    assert number_of("weight_decay") == Fraction(1, 4)


@pytest.mark.parametrize(
    "case", [{"w_norm": Fraction(0)}, {"g_norm": Fraction(0)}, {"w_norm": Fraction(0), "g_norm": Fraction(0)}]
)
def test_trust_is_1_at_a_norm_of_0(case: Any) -> None:
    assert number_of("learning_rate", **case) == Fraction(1, 2)
    assert number_of("weight_decay", **case) == Fraction(1, 4)


@pytest.mark.parametrize("dimensions", [0, 1])
def test_vectors_have_trust_1_and_no_decay(dimensions: int) -> None:
    assert number_of("learning_rate", dimensions=dimensions) == Fraction(1, 2)
    assert number_of("weight_decay", dimensions=dimensions) == 0


def test_several_tensors_at_once() -> None:
    g, w, dimensions = np.array([5.0, 5.0, 0.0, np.nan]), np.array([4.0, 0.0, 4.0, 4.0]), np.array([2, 2, 1, 3])
    h = {"learning_rate": 0.5, "trust_coefficient": 0.25, "weight_decay": 0.25}
    found = LARS.per_tensor(h, g, w, dimensions)
    np.testing.assert_allclose(found["learning_rate"], [0.5 * 0.25 * 4 / 6, 0.5, 0.5, np.nan], rtol=1e-15)
    np.testing.assert_array_equal(found["weight_decay"], [0.25, 0.25, 0, 0.25])


def test_the_pipeline_tells_the_rule_what_it_does_to_the_gradient() -> None:
    h = {"learning_rate": 1.0, "trust_coefficient": 1.0, "weight_decay": 0.5, "scale": -0.25}
    for decay, scale, wanted in (
        (None, False, 4 / 8),
        (None, True, 4 / 2),
        ("coupled", False, 4 / 10),
        ("coupled", True, 4 / 4),
    ):
        assert pipeline(LARS, decay, scale=scale).per_tensor(h, 8.0, 4.0, 2)["learning_rate"] == wanted
    assert pipeline(heavy_ball()).per_tensor is None


def test_decoupled_decay_is_refused_with_the_reason() -> None:
    p = torch.nn.Parameter(torch.ones(2, 2))
    for make in (lambda **o: polyak.numpy.LARS({"w": np.ones((2, 2))}, **o), lambda **o: polyak.torch.LARS([p], **o)):
        with pytest.raises(ValueError, match='decay="decoupled" has no meaning with lars, whose learning rate for each tensor'):
            make(weight_decay=0.1, decay="decoupled")
        with pytest.raises(ValueError, match="trust_coefficient must be finite and above 0; got 0"):
            make(trust_coefficient=0.0)


# The kernel.


@pytest.mark.parametrize("threads", [1, 2])
def test_each_tensor_has_its_own_numbers(threads: int) -> None:
    """In one call, with tensors of several chunks, the same bits as each tensor by itself."""
    lengths = [3 * CHUNK + 17, 0, 1, CHUNK, 100, 2 * CHUNK]
    rng = np.random.default_rng(0)
    w, g, v = ([rng.standard_normal(n).astype(np.float32) for n in lengths] for _ in range(3))
    alone, v_alone = [x.copy() for x in w], [x.copy() for x in v]
    update = pipeline(heavy_ball(velocity="step"), "coupled")
    numbers = {"learning_rate": np.arange(1, 7) / 8, "momentum": 0.9, "weight_decay": np.array([0.1, 0, 0, 0.2, 0, 0.3])}
    run = kernel(update, "float32")
    run(Table(lengths, [[address(x) for x in row] for row in (w, v)]), [address(x) for x in g], numbers, threads=threads)
    for i, n in enumerate(lengths):
        own = {name: x[i] if isinstance(x, np.ndarray) else x for name, x in numbers.items()}
        run(Table([n], [[address(alone[i])], [address(v_alone[i])]]), [address(g[i])], own, threads=1)
    assert all(map(np.array_equal, w + v, alone + v_alone))


# NumPy.


def numpy_run(dtype: Any = np.float64, *, scale: float = 1.0, **options: Any) -> tuple[Any, Any]:
    params = lars_cases.start(dtype)
    optimizer = polyak.numpy.LARS(params, lr=lars_cases.RATES.__getitem__, **{**lars_cases.NUMBERS, **options})
    for grads in lars_cases.gradients(dtype):
        before = {name: g.copy() for name, g in grads.items()}
        optimizer.step({name: scale * g if scale != 1 else g for name, g in grads.items()})
        assert all(np.array_equal(before[name], g) for name, g in grads.items())
    return params, optimizer


def decaying(decay: Any) -> dict[str, Any]:
    return {"decay": decay, "weight_decay": lars_cases.WEIGHT_DECAY if decay else 0.0}


@DECAYS
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, DOUBLE), (np.float32, SINGLE)])
def test_numpy_follows_the_literature(decay: Any, dtype: Any, rtol: float) -> None:
    params, optimizer = numpy_run(dtype, **decaying(decay))
    weights, velocities = lars_cases.expected(dtype=dtype, decay=decay)
    lars_cases.assert_close(params, weights, rtol)
    lars_cases.assert_close(dict(optimizer.slots["velocity"]), velocities, rtol)


def test_a_matrix_moves_by_its_share_however_long_the_gradient_is() -> None:
    results = []
    for size in (1e-30, 1.0, 1e18):  # in float32, where the squares of the first and the last are 0 and infinite
        w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
        g = (np.random.default_rng(1).standard_normal((8, 8)) * size).astype(np.float32)
        before = w.astype(np.float64)
        polyak.numpy.LARS({"w": w}, lr=0.5, trust_coefficient=0.01).step({"w": g})
        # A step is 0.005 of a weight, whose rounding of 6e-8 is 1.2e-5 of it; the root of 64 elements' chance is less.
        assert np.linalg.norm(before - w) == pytest.approx(0.005 * np.linalg.norm(before), rel=1e-5)
        results.append(w)
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=5e-7)  # some roundings of weights up to 3
    np.testing.assert_allclose(results[2], results[1], rtol=0, atol=5e-7)


def test_clipping_and_maximizing_reach_the_norm() -> None:
    """With decay the length of the gradient counts, so that clipping it to a tenth is not the same as no clipping."""
    params, grads = {"w": np.full((2, 2), 2.0), "b": np.zeros(3)}, {"w": np.full((2, 2), 5.0), "b": np.zeros(3)}
    options = {"lr": 1.0, "trust_coefficient": 0.5, "weight_decay": 0.25, "decay": "coupled"}
    optimizer = polyak.numpy.LARS(params, max_norm=1.0, maximize=True, finite="error", **options)
    optimizer.step(grads)
    assert optimizer.grad_norm == 10.0
    # |w| = 4, the gradient -0.5 in each element, |g| = 1.
    np.testing.assert_allclose(params["w"], 2.0 - 0.5 * 4 / (1 + 0.25 * 4) * (-0.5 + 0.25 * 2.0), rtol=1e-15)
    optimizer.step({"w": np.full((2, 2), -50.0), "b": np.zeros(3)})
    np.testing.assert_allclose(params["w"], 2.0 - 0.5 * 4 / (1 + 0.25 * 4) * (0.5 + 0.25 * 2.0), rtol=1e-15)


def test_a_gradient_that_is_not_finite() -> None:
    params = lars_cases.start()
    before = {name: w.copy() for name, w in params.items()}
    grads = lars_cases.gradients()[0]
    grads["kernel"][0, 0, 0, 0] = np.nan
    optimizer = polyak.numpy.LARS(params, finite="error")
    with pytest.raises(FloatingPointError, match=r"\['kernel'\]"):
        optimizer.step(grads)
    assert all(np.array_equal(before[name], w) for name, w in params.items())
    polyak.numpy.LARS(params).step(grads)  # and unguarded, it is seen in that weight alone
    assert {name for name, w in params.items() if np.isnan(w).any()} == {"kernel"}


# PyTorch.


def torch_run(dtype: Any = np.float64, **options: Any) -> tuple[dict[str, Any], Any]:
    params = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in lars_cases.start(dtype).items()}
    optimizer = polyak.torch.LARS(params.items(), **lars_cases.NUMBERS, **options)
    for t, grads in enumerate(lars_cases.gradients(dtype)):
        optimizer.param_groups[0]["lr"] = lars_cases.RATES[t]
        for name, p in params.items():
            p.grad = torch.as_tensor(grads[name])
        optimizer.step()
    return params, optimizer


@DECAYS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_torch_has_the_bits_of_numpy(decay: Any, dtype: Any) -> None:
    params, optimizer = torch_run(dtype, **decaying(decay))
    wanted, other = numpy_run(dtype, **decaying(decay))
    for name, p in params.items():
        np.testing.assert_array_equal(p.detach(), wanted[name])
        np.testing.assert_array_equal(optimizer.state[p]["momentum_buffer"], other.slots["velocity"][name])


def train(p: Any, gradients: list[Any], **options: Any) -> Any:
    optimizer = polyak.torch.LARS([p], 0.5, trust_coefficient=0.5, weight_decay=0.1, decay="coupled", **options)
    for g in gradients:
        p.grad = g.to(p.dtype)
        optimizer.step()
    return p.detach()


def test_tensors_that_the_kernel_does_not_take() -> None:
    """In torch operations, from the same norms: another layout, half precision, complex numbers."""
    generator = torch.Generator().manual_seed(0)
    w, *gradients = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(5))
    wanted = train(torch.nn.Parameter(w.clone()), gradients)
    spread = torch.empty(8, 6, dtype=torch.float64)[::2].copy_(w)
    torch.testing.assert_close(train(torch.nn.Parameter(spread), gradients), wanted, rtol=1e-13, atol=1e-13)
    half = train(torch.nn.Parameter(w.bfloat16()), gradients)
    torch.testing.assert_close(half.double(), wanted, rtol=0, atol=4 * 2**-7)  # 4 roundings of weights up to 2
    parts = w.view(4, 3, 2).clone(), [g.view(4, 3, 2) for g in gradients]
    complex_w = torch.nn.Parameter(torch.view_as_complex(parts[0]))
    found = train(complex_w, [torch.view_as_complex(g.contiguous()) for g in parts[1]])
    torch.testing.assert_close(torch.view_as_real(found).reshape(4, 6), wanted, rtol=1e-13, atol=1e-13)


def test_all_kinds_of_tensors_in_one_group_have_their_own_norms() -> None:
    """The kernel's and others in turn, so that each part of the group has places of its own."""
    generator = torch.Generator().manual_seed(0)
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.bfloat16]
    values = [torch.randn(3, 4, generator=generator).to(d) * 10**i for i, d in enumerate(dtypes)]
    grads = [torch.randn(3, 4, generator=generator).to(d) for d in dtypes]
    together = [torch.nn.Parameter(v.clone()) for v in values]
    optimizer = polyak.torch.LARS(together, 0.5, trust_coefficient=0.5)
    for p, g in zip(together, grads, strict=True):
        p.grad = g
    optimizer.step()
    for p, v, g in zip(together, values, grads, strict=True):
        alone = torch.nn.Parameter(v.clone())
        alone.grad = g
        polyak.torch.LARS([alone], 0.5, trust_coefficient=0.5).step()
        assert torch.equal(p, alone)
        moved, size = (v.double() - p.detach().double()).norm().item(), v.double().norm().item()
        assert moved == pytest.approx(0.25 * size, rel=1e-2)  # an element of bfloat16 rounds by 2^-9 of it


def test_groups_clip_together_and_trust_apart() -> None:
    params = [torch.nn.Parameter(torch.full((2, 2), 2.0, dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "trust_coefficient": 0.25, "weight_decay": 0.0}]
    optimizer = polyak.torch.LARS(groups, 1.0, trust_coefficient=0.5, max_norm=1.0, weight_decay=0.25, decay="coupled")
    for p, g in zip(params, (3.0, 4.0), strict=True):
        p.grad = torch.full((2, 2), g, dtype=torch.float64)
    optimizer.step()
    assert optimizer.grad_norm == 10.0
    # |w| = 4; the gradients are 0.3 and 0.4 in each element, with norms of 0.6 and 0.8.
    torch.testing.assert_close(params[0].detach(), torch.full_like(params[0], 2 - 0.5 * 4 / (0.6 + 1) * (0.3 + 0.5)))
    torch.testing.assert_close(params[1].detach(), torch.full_like(params[1], 2 - 0.25 * 4 / 0.8 * 0.4))
    for p in params:
        p.grad = torch.full_like(p, torch.inf)
    optimizer.param_groups[0]["finite"] = optimizer.param_groups[1]["finite"] = "skip"
    before = [p.detach().clone() for p in params]
    optimizer.step()
    assert all(map(torch.equal, before, params))
    assert optimizer.skipped == 1
