"""What the paths of variables tell about the layers that they belong to: an optimizer of Keras sees no layers."""

import re
from collections.abc import Mapping, Sequence

from polyak.rules.roles import is_head

Shapes = Mapping[str, tuple[int, ...]]

_VECTOR = re.compile(r"(.*_)?(bias|gamma|beta|alpha|scale)")
_QUERY = re.compile(r"query|key|value")


def names_of(paths: Sequence[str]) -> list[str]:
    """The paths without what all of them begin with: a model's own name, which a model that was loaded may lack.

    The ":0" in which names of a tf.Variable end is left out too.

    Example:
        >>> names_of(["sequential/dense/kernel", "sequential/dense_1/kernel"])
        ['dense/kernel', 'dense_1/kernel']
    """
    parts = [path.partition(":")[0].split("/") for path in paths]
    layer = min(map(len, parts)) - 2  # it and the weight stay in the shortest one
    common = next((i for i in range(layer) if len({of[i] for of in parts}) > 1), max(0, layer))
    return ["/".join(of[common:]) for of in parts]


def not_hidden(shapes: Shapes) -> dict[str, str]:
    """The variables that are no matrices between hidden layers, and why, by path; but for those that are named as such.

    Example:
        >>> not_hidden({"dense/kernel": (8, 4), "attention/query/bias": (2, 4), "logits/kernel": (4, 2)})
        {'attention/query/bias': 'named as a bias or a scale'}
        >>> not_hidden({"dense/kernel": (8, 4), "dense_1/kernel": (4, 2)})
        {'dense_1/kernel': 'the last kernel: the output head'}
    """
    arrays = {path: shape for path, shape in shapes.items() if len(shape) > 1}
    found = {path: why for path, shape in arrays.items() if (why := _why_not(path, shape))}
    kernels = [path for path in arrays if _last(path) == "kernel"]
    if kernels and not any(map(is_head, kernels)):
        found.setdefault(kernels[-1], "the last kernel: the output head")
    return found


def _why_not(path: str, shape: tuple[int, ...]) -> str | None:
    layer, _, weight = path.rpartition("/")
    if _VECTOR.fullmatch(weight):
        return "named as a bias or a scale"
    if "depthwise" in weight or (weight == "kernel" and "depthwise" in _last(layer)):
        return "depthwise: a filter for each channel"
    if weight == "kernel" and len(shape) > 2 and shape[-1] == 1 and "transpose" not in _last(layer):
        return "a filter for each channel, or a single output"
    return None


def outputs(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The dimensions of the outputs of kernels in which they are not the last one alone, by path.

    Transposed convolutions, by their name, have (..., out, in). The bias of a kernel has the shape of the outputs, such as
    (heads, size) in (in, heads, size); without it, the names of `MultiHeadAttention` tell.

    Example:
        >>> outputs({"mha/query/kernel": (64, 4, 16), "mha/query/bias": (4, 16), "up/kernel": (3, 3, 16, 64), "up/bias": (16,)})
        {'mha/query/kernel': (-2, -1), 'up/kernel': (-2,)}
    """
    kernels = [(path, shape) for path, shape in shapes.items() if _last(path) == "kernel" and len(shape) > 2]
    return {path: axes for path, shape in kernels if (axes := _outputs(path, shape, shapes))}


def _outputs(path: str, shape: tuple[int, ...], shapes: Shapes) -> tuple[int, ...] | None:
    layer = path.rpartition("/")[0]
    bias = shapes.get(f"{layer}/bias")
    if "transpose" in _last(layer):
        return (-2,)
    if bias and shape[-len(bias) :] == bias:
        return tuple(range(-len(bias), 0)) if 1 < len(bias) < len(shape) else None
    if bias and (shape[-2],) == bias:
        return (-2,)
    return (-2, -1) if bias is None and len(shape) == 3 and _QUERY.fullmatch(_last(layer)) else None


def _last(path: str) -> str:
    return path.rpartition("/")[2]
