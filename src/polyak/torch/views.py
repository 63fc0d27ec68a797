"""Tensors as the arithmetic sees them: dense, real, and the shard that this process holds."""

from typing import Any

import torch
from torch import Tensor


def in_host_memory(t: Tensor) -> bool:
    """Whether the host can read the numbers without waiting for a device."""
    return t.device.type == "cpu"


def is_sharded(t: Tensor) -> bool:
    """Whether this is a DTensor, of which this process holds a part."""
    # Not by its type, whose import takes a second.
    return hasattr(t, "to_local")


def local(t: Any) -> Tensor:
    """The part of a DTensor that this process holds; any other tensor as it is."""
    return t.to_local() if is_sharded(t) else t  # type: ignore[no-any-return]


def real(t: Tensor) -> Tensor:
    """A complex tensor as the real one with twice the elements that shares its memory; a real one as it is."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the slots and of the arithmetic for a weight of `dtype`.

    A velocity sums many small gradients, which half precision would lose, so half-precision weights have float32 slots.
    """
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def is_packed(t: Tensor) -> bool:
    """Whether the elements fill their stretch of memory, in whatever order of the dimensions (`channels_last` and others)."""
    order = sorted(range(t.ndim), key=t.stride, reverse=True)
    return t.permute(order).is_contiguous()


def dense_gradient(g: Any, w: Any) -> Tensor:
    """This process's part of a gradient, dense: a sparse one is added up, one that is sharded otherwise than w is moved."""
    if is_sharded(w) and is_sharded(g) and g.placements != w.placements:
        g = g.redistribute(placements=w.placements)
    g = local(g)
    g = g.to_dense() if g.layout != torch.strided else g
    if g.shape != local(w).shape:
        raise ValueError(f"A gradient of shape {tuple(g.shape)} was given for a weight of shape {tuple(local(w).shape)}.")
    return g  # type: ignore[no-any-return]


def beside(t: Tensor, w: Tensor) -> Tensor:
    """The elements of `t` in the dtype and in the order of memory of `w`: `t` itself if they are, or else a copy."""
    if t.dtype == w.dtype and t.stride() == w.stride() and t.device == w.device:
        return t
    return torch.empty_like(w, requires_grad=False).copy_(t)
