"""The arrays that people hand in: what can be updated in place, and what is a gradient of it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.compile import address

Array = npt.NDArray[Any]


def checked_params(params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters, or an error that says why one of them cannot be updated in place."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params must map names to arrays, as in {{'w': w, 'b': b}}; got {type(params).__name__}.")
    for name, w in params.items():
        if not isinstance(w, np.ndarray):
            raise TypeError(f"params[{name!r}] must be a NumPy array; got {type(w).__name__}.")
        if w.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"params[{name!r}] must be of float32 or float64; got {w.dtype}. Convert it: w = w.astype(np.float32)."
            )
        if not w.flags.writeable:
            raise ValueError(f"params[{name!r}] is read-only and cannot be updated in place. Take a copy: w = w.copy().")
        if not w.flags.c_contiguous:
            raise ValueError(
                f"params[{name!r}] is a view with strides {w.strides}; parameters must lie contiguously in memory. Give the "
                "array that it is a view of, or np.ascontiguousarray(w) and use that from here on."
            )
    by_place = sorted((address(w), address(w) + w.nbytes, name) for name, w in params.items() if w.size)
    for (_, end, a), (start, _, b) in pairwise(by_place):
        if start < end:
            raise ValueError(f"params[{a!r}] and params[{b!r}] share memory, and would be updated twice. Give each array once.")
    return dict(params)


def checked_grads(params: Mapping[str, Array], grads: Mapping[str, Array]) -> dict[str, Array]:
    """The gradients in the order of memory, or an error that says what is wrong with them."""
    if grads.keys() != params.keys():
        missing, unknown = sorted(params.keys() - grads.keys()), sorted(grads.keys() - params.keys())
        raise ValueError(
            f"grads must have the names of params: missing {missing}, unknown {unknown}. A parameter that is not to be "
            "trained belongs in no optimizer."
        )
    contiguous = {}
    for name, w in params.items():
        g = np.asarray(grads[name]) if isinstance(grads[name], np.generic) else grads[name]  # a sum
        if not isinstance(g, np.ndarray) or g.dtype != w.dtype:
            got = g.dtype if isinstance(g, np.ndarray) else type(g).__name__
            raise TypeError(f"The gradient of {name!r} must be an array of {w.dtype}, as the parameter is; got {got}.")
        if g.shape != w.shape:
            raise ValueError(f"The gradient of {name!r} has shape {g.shape}; the parameter has shape {w.shape}.")
        contiguous[name] = np.ascontiguousarray(g)
    return contiguous
