"""How an array is seen as matrices, and the operations on them that a tensor rule uses, by the type of the argument.

Every leading dimension is a batch. Beside these operations, `x @ y` and `+ - * /` mean the same in NumPy, PyTorch, JAX and
TensorFlow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyak.ops import Array, namespace


def transposed(x: Array) -> Array:
    """Each matrix transposed: (..., m, n) -> (..., n, m)."""
    if namespace(x).__name__ == "tensorflow":
        return namespace(x).linalg.matrix_transpose(x)
    return x.mT


def reordered(x: Array, order: Sequence[int]) -> Array:
    """The dimensions in another order, as in `numpy.transpose`."""
    module = namespace(x)
    return module.permute(x, order) if module.__name__ == "torch" else module.transpose(x, order)


def reshaped(x: Array, shape: Sequence[int]) -> Array:
    """The same elements in another shape."""
    return namespace(x).reshape(x, shape)


def cast(x: Array, dtype: Any) -> Array:
    """The elements in another dtype, which is the framework's own or its name."""
    module = namespace(x)
    match module.__name__:
        case "torch":
            return x.to(getattr(module, dtype) if isinstance(dtype, str) else dtype)
        case "tensorflow":
            return module.cast(x, dtype)
        case _:
            return x.astype(dtype)


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
    if namespace(z).__name__ == "jax.numpy" and z.dtype.itemsize < 4:  # the sum in float32, rounded once, as torch has it
        product = namespace(z).matmul(x, y, preferred_element_type="float32")
        return (c * z.astype("float32") + product).astype(z.dtype)
    return c * z + x @ y


@dataclass(frozen=True)
class Matrices:
    """How an array is seen as matrices: outputs x all the rest, in one piece or cut along the outputs.

    Args:
        shape: Of the array, at least two dimensions. A convolution kernel is (out, in, kh, kw) in PyTorch.
        output_axis: The dimension of the outputs: 0 in PyTorch, -1 in Keras and JAX, 1 in PyTorch's transposed convolutions.
            Several, in a tuple, are taken in that order for one: (-2, -1) for queries of (in, heads, size).
        split: How many matrices there are beside each other along the outputs: 3 for queries, keys and values in one array.

    Raises:
        ValueError: Fewer than two dimensions, an axis that is not there or is there twice, no dimension left for the inputs,
            or outputs that cannot be split so.

    Example:
        >>> kernel = Matrices((3, 3, 16, 32), output_axis=-1)
        >>> kernel.rows, kernel.cols
        (32, 144)
        >>> queries = Matrices((64, 4, 16), output_axis=(-2, -1), split=4)
        >>> queries.rows, queries.cols
        (16, 64)
    """

    shape: tuple[int, ...]
    output_axis: int | tuple[int, ...] = 0
    split: int = 1

    def __post_init__(self) -> None:
        n = len(self.shape)
        if n < 2:
            raise ValueError(f"An array of shape {self.shape} is no matrix: it needs at least two dimensions.")
        if not all(-n <= axis < n for axis in self._given):
            raise ValueError(f"output_axis={self.output_axis} is no dimension of an array of shape {self.shape}.")
        if not 0 < len(set(self._axes)) == len(self._axes) < n:
            raise ValueError(
                f"output_axis={self.output_axis} must name different dimensions of an array of shape {self.shape}, one at "
                "least, and leave one for the inputs."
            )
        if self.split < 1 or self._outputs % self.split:
            raise ValueError(
                f"split={self.split} does not divide the {self._outputs} outputs of an array of shape {self.shape}."
            )

    @property
    def rows(self) -> int:
        """The outputs of one matrix."""
        return self._outputs // self.split

    @property
    def cols(self) -> int:
        """The product of all other dimensions."""
        return math.prod(n for i, n in enumerate(self.shape) if i not in self._axes)

    def of(self, arrays: Array) -> Array:
        """The matrices of several arrays: (n, *shape) -> (n split, rows, cols)."""
        return reshaped(reordered(arrays, self._order), (arrays.shape[0] * self.split, self.rows, self.cols))

    def back(self, matrices: Array) -> Array:
        """The arrays that have these matrices: (n split, rows, cols) -> (n, *shape)."""
        order = self._order
        first = reshaped(matrices, (matrices.shape[0] // self.split, *(self.shape[i - 1] for i in order[1:])))
        return reordered(first, sorted(range(len(order)), key=order.__getitem__))

    @property
    def _given(self) -> tuple[int, ...]:
        return (self.output_axis,) if isinstance(self.output_axis, int) else self.output_axis

    @property
    def _axes(self) -> tuple[int, ...]:
        """The dimensions of the outputs, counted from the first."""
        return tuple(axis % len(self.shape) for axis in self._given)

    @property
    def _outputs(self) -> int:
        return math.prod(self.shape[axis] for axis in self._axes)

    @property
    def _order(self) -> tuple[int, ...]:
        """The dimensions of several arrays with those of the outputs first. Where they are so already, nothing is moved."""
        rest = (i for i in range(len(self.shape)) if i not in self._axes)
        return (0, *(axis + 1 for axis in self._axes), *(i + 1 for i in rest))
