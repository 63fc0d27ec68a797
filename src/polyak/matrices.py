"""The operations on matrices that a tensor rule uses, by the type of the argument; every leading dimension is a batch.

Beside them, `x @ y` and `+ - * /` mean the same in NumPy, PyTorch, JAX and TensorFlow.
"""

import sys
from collections.abc import Sequence
from typing import Any

from polyak.ops import Array


def transposed(x: Array) -> Array:
    """Each matrix transposed: (..., m, n) -> (..., n, m)."""
    if _package(x) == "tensorflow":
        return _module("tensorflow").linalg.matrix_transpose(x)
    return x.mT


def reordered(x: Array, order: Sequence[int]) -> Array:
    """The dimensions in another order, as in `numpy.transpose`."""
    module = _module(_package(x))
    return module.permute(x, tuple(order)) if module.__name__ == "torch" else module.transpose(x, tuple(order))


def reshaped(x: Array, shape: Sequence[int]) -> Array:
    """The same elements in another shape, one of whose lengths may be -1."""
    return _module(_package(x)).reshape(x, tuple(shape))


def identity(x: Array) -> Array:
    """The identity in the dtype and on the device of the square matrices `x`: (..., m, m) -> (m, m)."""
    on = {"device": x.device} if _package(x) == "torch" else {}
    return _module(_package(x)).eye(x.shape[-1], dtype=x.dtype, **on)


def peak(x: Array) -> Array:
    """The largest absolute value in each matrix; NaN where there is one: (..., m, n) -> (..., 1, 1)."""
    match _package(x):
        case "torch":
            return x.abs().amax((-2, -1), keepdim=True)
        case "tensorflow":
            module = _module("tensorflow")
            return module.reduce_max(module.abs(x), (-2, -1), keepdims=True)
        case _:
            return abs(x).max((-2, -1), keepdims=True)


def frobenius(x: Array) -> Array:
    """The square root of each matrix's sum of squares, which must not overflow: (..., m, n) -> (..., 1, 1)."""
    match _package(x):
        case "torch":
            return (x * x).sum((-2, -1), keepdim=True).sqrt()
        case "tensorflow":
            module = _module("tensorflow")
            return module.sqrt(module.reduce_sum(x * x, (-2, -1), keepdims=True))
        case _:
            return (x * x).sum((-2, -1), keepdims=True) ** 0.5


def add_product(c: float, z: Array, x: Array, y: Array) -> Array:
    """c z + x y, without a pass of its own over z where the framework has such a product."""
    if _package(z) == "torch" and z.ndim in (2, 3):
        torch = _module("torch")
        return (torch.addmm if z.ndim == 2 else torch.baddbmm)(z, x, y, beta=c)
    return c * z + x @ y


def _package(x: Array) -> str:
    package = type(x).__module__.partition(".")[0]
    return "jax.numpy" if package in ("jax", "jaxlib") else package


def _module(name: str) -> Any:
    """The module with the functions for these arrays. Whoever has such an array has imported it."""
    return sys.modules[name]
