"""Tensors that the kernel does not take, and those that it takes in another order of memory: the same rule for all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD

from polyak.compile import CHUNK
from polyak.rules import heavy_ball
from polyak.torch import Momentum
from polyak.torch.tensors import Group
from polyak.torch.views import compute_dtype
from polyak.update import pipeline

OPTIONS: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.01}


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda t: t,
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t,
    "strided": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    "offset": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
}


@given(
    shape=st.sampled_from([(), (0,), (1,), (3, 0, 2), (CHUNK - 1,), (CHUNK,), (CHUNK + 1,), (7, 3), (2, 3, 4, 5)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    weight=st.sampled_from(sorted(LAYOUTS)),
    gradient=st.sampled_from([*sorted(LAYOUTS), "expanded"]),
)
def test_layouts(shape: tuple[int, ...], dtype: torch.dtype, weight: str, gradient: str) -> None:
    """Whatever the order in memory of weight and gradient, the result is that of plain ones."""
    w, g = random(shape, dtype), random(shape, dtype, seed=1)
    if gradient == "expanded":
        g = torch.tensor(0.5, dtype=dtype).expand(shape)
    p = LAYOUTS[weight](w.clone()).requires_grad_()
    q = w.clone().requires_grad_()
    given = LAYOUTS.get(gradient, lambda t: t)(g)
    before = given.clone()
    ours, theirs = Momentum([p], 0.1, decay="coupled", **OPTIONS), SGD([q], 0.1, **OPTIONS)
    for _ in range(3):
        p.grad, q.grad = given, g.clone()
        ours.step()
        theirs.step()
    # A few roundings of numbers below 8.
    torch.testing.assert_close(p, q, rtol=0, atol=8 * 4 * torch.finfo(dtype).eps)
    assert torch.equal(given, before)
    if weight != "strided":  # packed, so that the kernel updates it, and the bits are those of a plain one
        r = w.clone().requires_grad_()
        plain = Momentum([r], 0.1, decay="coupled", **OPTIONS)
        for _ in range(3):
            r.grad = g.clone()
            plain.step()
        assert torch.equal(p, r)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Slots and arithmetic are float32: only the weight is rounded, once a step."""
    p = random((50,), torch.float32).to(dtype).requires_grad_()
    w, v = p.detach().float(), torch.zeros(50)
    optimizer = Momentum([p], 0.1, decay="coupled", **OPTIONS)
    for t in range(10):
        g = random((50,), torch.float32, seed=t).to(dtype)
        p.grad = g
        optimizer.step()
        v = 0.9 * v + (g.float() + 0.01 * w)
        w = (w - 0.1 * v).to(dtype).float()
        # The same operations in float32 but for the order of the sum, and equal after rounding but for ties.
        torch.testing.assert_close(p.detach().float(), w, rtol=2 * torch.finfo(dtype).eps, atol=0)
    slot = optimizer.state[p]["momentum_buffer"]
    assert slot.dtype == torch.float32
    torch.testing.assert_close(slot, v, rtol=1e-2, atol=1e-2)  # weights that were rounded apart, times 0.01


def test_complex() -> None:
    p, q = (random((6,), torch.complex128).requires_grad_() for _ in range(2))
    ours, theirs = Momentum([p], 0.1, decay="coupled", max_norm=1e9, **OPTIONS), SGD([q], 0.1, **OPTIONS)
    for t in range(5):
        g = random((6,), torch.complex128, seed=t)
        p.grad, q.grad = g.conj().conj().clone() if t % 2 else g.conj().resolve_conj().conj(), g.clone()
        ours.step()
        theirs.step()
        assert ours.grad_norm == pytest.approx(g.norm().item())
    torch.testing.assert_close(p, q, rtol=0, atol=1e-14)  # rounding of float64
    assert ours.state[p]["momentum_buffer"].dtype == torch.complex128


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_sparse_gradients_are_the_dense_ones(dtype: torch.dtype, max_norm: float | None) -> None:
    table = random((7, 3), dtype)
    params = []
    for sparse in (True, False):
        embedding = torch.nn.Embedding.from_pretrained(table.clone(), freeze=False, sparse=sparse)
        optimizer = Momentum(embedding.parameters(), 0.1, decay="coupled", max_norm=max_norm, **OPTIONS)
        for t in range(4):
            optimizer.zero_grad()
            (embedding(torch.tensor([1, 2, 1, t])) ** 2).sum().backward()
            optimizer.step()
        params.append(embedding.weight)
    assert torch.equal(params[0], params[1])


def test_all_kinds_in_one_group() -> None:
    def make() -> list[Tensor]:
        kinds = [random((3,)), random((4,), torch.float32), random((5, 2)).mT, random((5, 2, 2))[..., 0]]
        kinds += [random((3,), torch.complex64), random((2, 3, 2, 2)).to(memory_format=torch.channels_last), random(())]
        return [p.detach().requires_grad_() for p in kinds]

    ours, theirs = make(), make()
    pairs = [(Momentum(ours, 0.1, max_norm=1e9), ours), (SGD(theirs, 0.1, momentum=0.9), theirs)]
    for t in range(4):
        for optimizer, params in pairs:
            for i, p in enumerate(params):
                p.grad = random(tuple(p.shape), p.dtype, seed=10 * t + i)
            if t == 2:
                params[1].grad = params[4].grad = None
            optimizer.step()
        norm = sum(p.grad.abs().square().sum().item() for p in ours if p.grad is not None) ** 0.5
        assert pairs[0][0].grad_norm == pytest.approx(norm, rel=1e-6)  # squares of float32 in the expression
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6 if p.dtype in (torch.float32, torch.complex64) else 1e-13, atol=1e-6)


def test_a_group_of_plain_lists() -> None:
    """As the Keras front-end uses it: no optimizer of torch, only lists of tensors."""
    update = pipeline(heavy_ball(), "decoupled")
    h = {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.0, "weight_decay": 0.5}
    kinds = [random((3,)), random((4, 2)).mT, random((5,), torch.float32), random((2,), torch.bfloat16), random((3, 2))[:, 0]]
    weights, velocities = [w.clone() for w in kinds], [torch.ones_like(w, dtype=compute_dtype(w.dtype)) for w in kinds]
    gradients = [torch.ones_like(w) for w in kinds]
    group = Group(update)
    for _ in range(2):
        group.read(weights, gradients, [velocities]).apply(h)
    for w, start, v in zip(weights, kinds, velocities, strict=True):
        # v: 1, 1.5, 1.75. Half of the step and a quarter of the weight are taken each time; bfloat16 rounds by 2**-9.
        expected = 0.75 * (0.75 * start.double() - 0.75) - 0.875
        torch.testing.assert_close(w.double(), expected, rtol=0, atol=2.0**-7 if w.dtype == torch.bfloat16 else 1e-6)
        assert torch.all(v == 1.75)


def test_an_overlapping_weight_is_refused() -> None:
    p = torch.zeros(1).expand(3).requires_grad_()
    p.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="single memory location"):
        Momentum([p], 0.1).step()


def test_a_gradient_of_another_dtype() -> None:
    """`grad_dtype` lets gradients have another dtype than their weight."""
    p, q = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    if not hasattr(p, "grad_dtype"):
        pytest.skip("this torch has no grad_dtype")
    p.grad_dtype = torch.bfloat16
    ours, theirs = Momentum([p], 0.1), Momentum([q], 0.1)
    for t in range(3):
        g = random((4,), torch.bfloat16, seed=t)
        p.grad, q.grad = g, g.float()
        ours.step()
        theirs.step()
    assert torch.equal(p, q)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")
def test_cuda() -> None:
    results = []
    for device in ("cuda", "cpu"):
        p = random((100,), torch.float32).to(device).requires_grad_()
        optimizer = Momentum([p], 0.1, decay="coupled", max_norm=1.0, **OPTIONS)
        for t in range(10):
            p.grad = random((100,), torch.float32, seed=t).to(device)
            optimizer.step()
        results.append(p.detach().cpu())
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)  # float32, another order of operations
