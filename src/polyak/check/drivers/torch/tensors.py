"""Arrays of a trial as tensors, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ml_dtypes import bfloat16
from torch import Tensor

from polyak.check.trial import Array, Gradient, Rows


def tensor(array: Array) -> Tensor:
    """A new tensor of the same dtype, bfloat16 among them."""
    array = np.array(array)  # a copy, and never a scalar
    if array.dtype == bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def array(tensor: Tensor) -> Array:
    """A new array of the same dtype, bfloat16 among them."""
    tensor = tensor.detach().cpu()
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.view(torch.int16).numpy()).view(bfloat16)
    return np.array(tensor.numpy())


def every_second(tensor: Tensor) -> Tensor:
    """The same values in every second place of a memory that is twice as large. Of a number, the number."""
    return tensor.repeat_interleave(2, -1)[..., ::2] if tensor.ndim else tensor


def turned(tensor: Tensor) -> Tensor:
    """The same values with the memory of the transpose. Of what has fewer than two dimensions, as `every_second`."""
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else every_second(tensor)


def weights(given: Array, strided: bool) -> torch.nn.Parameter:
    """A parameter. One that is not contiguous lies otherwise in memory than its gradient."""
    return torch.nn.Parameter(turned(tensor(given)) if strided else tensor(given))


def gradient(given: Gradient, like: Tensor, strided: bool) -> Tensor | None:
    """A gradient of a parameter."""
    if given is None:
        return None
    if isinstance(given, Rows):
        rows = torch.from_numpy(np.array(given.rows, np.int64))
        return torch.sparse_coo_tensor(rows[None], tensor(given.values), like.shape).coalesce()
    return every_second(tensor(given)) if strided else tensor(given)


def as_left(tensor: Tensor | None) -> Gradient:
    """A gradient as the optimizer left it."""
    if tensor is not None and tensor.is_sparse:
        tensor = tensor.coalesce()
        return Rows(array(tensor.indices()[0]), array(tensor.values()))
    return None if tensor is None else array(tensor)


def arrays(state: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Array]]:
    """What is in a parameter's state, by slot: numbers and tensors, and those in lists and dicts within it."""
    for key, value in state.items():
        slot = f"{prefix}{key}"
        match value:
            case Tensor():
                yield slot, array(value)
            case bool() | int() | float():
                yield slot, np.array(value)
            case Mapping():
                yield from arrays(value, f"{slot}/")
            case list() | tuple():
                yield from arrays(dict(enumerate(value)), f"{slot}/")
