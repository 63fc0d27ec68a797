"""The operations on matrices that a tensor rule uses, by the type of the argument; every leading dimension is a batch.

Beside them, `x @ y` and `+ - * /` mean the same in NumPy, PyTorch, JAX and TensorFlow.
"""

from collections.abc import Sequence

from polyak.ops import Array, namespace


def transposed(x: Array) -> Array:
    """Each matrix transposed: (..., m, n) -> (..., n, m)."""
    if namespace(x).__name__ == "tensorflow":
        return namespace(x).linalg.matrix_transpose(x)
    return x.mT


def reordered(x: Array, order: Sequence[int]) -> Array:
    """The dimensions in another order, as in `numpy.transpose`."""
    module = namespace(x)
    return module.permute(x, tuple(order)) if module.__name__ == "torch" else module.transpose(x, tuple(order))


def reshaped(x: Array, shape: Sequence[int]) -> Array:
    """The same elements in another shape, one of whose lengths may be -1."""
    return namespace(x).reshape(x, tuple(shape))


def identity(x: Array) -> Array:
    """The identity in the dtype and on the device of the square matrices `x`: (..., m, m) -> (m, m)."""
    on = {"device": x.device} if namespace(x).__name__ == "torch" else {}
    return namespace(x).eye(x.shape[-1], dtype=x.dtype, **on)


def peak(x: Array) -> Array:
    """The largest absolute value in each matrix; NaN where there is one: (..., m, n) -> (..., 1, 1)."""
    match namespace(x).__name__:
        case "torch":
            return x.abs().amax((-2, -1), keepdim=True)
        case "tensorflow":
            module = namespace(x)
            return module.reduce_max(module.abs(x), (-2, -1), keepdims=True)
        case _:
            return abs(x).max((-2, -1), keepdims=True)


def frobenius(x: Array) -> Array:
    """The square root of each matrix's sum of squares, which must not overflow: (..., m, n) -> (..., 1, 1)."""
    match namespace(x).__name__:
        case "torch":
            return (x * x).sum((-2, -1), keepdim=True).sqrt()
        case "tensorflow":
            module = namespace(x)
            return module.sqrt(module.reduce_sum(x * x, (-2, -1), keepdims=True))
        case _:
            return (x * x).sum((-2, -1), keepdims=True) ** 0.5


def add_product(c: float, z: Array, x: Array, y: Array) -> Array:
    """c z + x y, without a pass of its own over z where the framework has such a product."""
    if namespace(z).__name__ == "torch" and z.ndim in (2, 3):
        torch = namespace(z)
        return (torch.addmm if z.ndim == 2 else torch.baddbmm)(z, x, y, beta=c)
    return c * z + x @ y
