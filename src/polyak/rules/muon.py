"""Muon: momentum, then for each matrix the nearest orthogonal one in place of the gradient's average.

    symbol   argument         meaning
    G        gradient         of the loss with respect to the weight W, seen as matrices
    lr       learning_rate    size of the step
    m        momentum         in [0, 1): how much of the velocity survives a step
    V        slot "velocity"  the average of past gradients; 0 before the first step
    f        scale            a number for the shape, see `SCALES`

    V <- V + (1 - m) (G - V)        step = lr f orthogonalise(V)

and with nesterov=True step = lr f orthogonalise(m V + (1 - m) G), with the new V. An orthogonal matrix has no size of its own:
whatever the scale of the gradients, all directions of the step are equally long, and lr is the change of W in the spectral
norm.

This holds for matrices that map one hidden layer to another. Embeddings (whose rows are looked up one by one), output heads,
vectors and scalars take another rule; `assign` says which is which, and `Matrices` how an array of more dimensions is seen as
matrices.

Sources: K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: an optimizer for hidden layers in
neural networks", 2024, https://kellerjordan.github.io/posts/muon/; J. Bernstein, L. Newhouse, "Old optimizer, new norm: an
anthology", 2024, arXiv:2409.20325, for the step as the steepest descent in the spectral norm.

Departures from the peers: none from torch.optim.Muon in the recursion, if polynomial="quintic". optax.contrib.muon divides V by
1 - m^t, which nothing depends on without nesterov; with it, the gradient weighs less in its first steps.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from polyak.matrices import reordered, reshaped
from polyak.ops import Array
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.orthogonal import Polynomial, orthogonalise
from polyak.rules.rule import Rule, Slots

Role = Literal["orthogonal", "other"]
Scale = Literal["spectral", "match_rms_adamw"]

SCALES = {
    # The step has the spectral norm sqrt(rows / cols), so that outputs change alike for all shapes; 1 for wide matrices. As
    # Jordan et al. have it; adjust_lr_fn="original" in torch.optim.Muon.
    "spectral": lambda rows, cols: math.sqrt(max(1, rows / cols)),
    # The elements have a root mean square of 0.2, as those of Adam's steps do, so that its learning rates and decays serve.
    # J. Liu et al., "Muon is scalable for LLM training", 2025, arXiv:2502.16982, section 2.2, and torch.optim.Muon.
    "match_rms_adamw": lambda rows, cols: 0.2 * math.sqrt(max(rows, cols)),
}


@dataclass(frozen=True)
class Matrices:
    """How an array is seen as matrices: outputs x all the rest, in one piece or cut along the outputs.

    Args:
        shape: Of the array, at least two dimensions. A convolution kernel is (out, in, kh, kw) in PyTorch.
        output_axis: The dimension of the outputs: 0 in PyTorch, -1 in Keras and JAX, 1 in PyTorch's transposed convolutions.
        split: How many matrices there are beside each other along the outputs: 3 for queries, keys and values in one array.

    Raises:
        ValueError: Fewer than two dimensions, an axis that is not there, or outputs that cannot be split so.

    Example:
        >>> kernel = Matrices((3, 3, 16, 32), output_axis=-1)
        >>> kernel.rows, kernel.cols
        (32, 144)
    """

    shape: tuple[int, ...]
    output_axis: int = 0
    split: int = 1

    def __post_init__(self) -> None:
        if len(self.shape) < 2:
            raise ValueError(f"An array of shape {self.shape} is no matrix: it needs at least two dimensions.")
        if not -len(self.shape) <= self.output_axis < len(self.shape):
            raise ValueError(f"output_axis={self.output_axis} is no dimension of an array of shape {self.shape}.")
        if self.split < 1 or self.shape[self.output_axis] % self.split:
            raise ValueError(
                f"split={self.split} does not divide the {self.shape[self.output_axis]} outputs of an array of shape "
                f"{self.shape}."
            )

    @property
    def rows(self) -> int:
        """The outputs of one matrix."""
        return self.shape[self.output_axis] // self.split

    @property
    def cols(self) -> int:
        """The product of all other dimensions."""
        axis = self.output_axis % len(self.shape)
        return math.prod(self.shape[:axis] + self.shape[axis + 1 :])

    def of(self, arrays: Array) -> Array:
        """The matrices of several arrays: (n, *shape) -> (n split, rows, cols)."""
        return reshaped(self._outputs_first(arrays), (-1, self.rows, self.cols))

    def back(self, matrices: Array) -> Array:
        """The arrays that have these matrices: (n split, rows, cols) -> (n, *shape)."""
        order = self._order
        first = reshaped(matrices, (-1, *(self.shape[i - 1] for i in order[1:])))
        return first if self._is_first else reordered(first, sorted(range(len(order)), key=order.__getitem__))

    def _outputs_first(self, arrays: Array) -> Array:
        return arrays if self._is_first else reordered(arrays, self._order)

    @property
    def _is_first(self) -> bool:
        return self.output_axis % len(self.shape) == 0

    @property
    def _order(self) -> tuple[int, ...]:
        axis = self.output_axis % len(self.shape)
        return (0, axis + 1, *(i + 1 for i in range(len(self.shape)) if i != axis))


class _Unit(NamedTuple):
    """The hyperparameters with which the step of momentum is its direction."""

    momentum: Any
    learning_rate: float = 1.0


def muon(
    matrices: Matrices,
    *,
    nesterov: bool = True,
    polynomial: Polynomial = "polar_express",
    steps: int = 5,
    scale: Scale = "spectral",
) -> Rule:
    """The rule for an array of one shape. It needs the whole array, unlike an element rule.

    Example:
        >>> import numpy as np
        >>> from polyak.update import pipeline
        >>> update = pipeline(muon(Matrices((2, 2)), nesterov=False, steps=8))
        >>> g, w = np.array([[2.0, 0.0], [0.0, 0.5]]), np.ones((2, 2))
        >>> w, _ = update.apply(g, w, (np.zeros((2, 2)),), update.Hyperparameters(learning_rate=0.25, momentum=0.5))
        >>> w.round(6)
        array([[0.75, 1.  ],
               [1.  , 0.75]])
    """
    momentum = heavy_ball(velocity="average", nesterov=nesterov).step
    factor = shape_scale(scale, matrices)

    def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        direction, slots = momentum(g, w, slots, _Unit(h.momentum))
        of = matrices.of(reshaped(direction, (1, *matrices.shape)))
        orthogonal = reshaped(matrices.back(orthogonalise(of, polynomial, steps)), matrices.shape)
        return h.learning_rate * (factor * orthogonal), slots

    return Rule("muon", step, ("velocity",), ("learning_rate", "momentum"))


def shape_scale(scale: Scale, matrices: Matrices) -> float:
    """The factor of the learning rate for matrices of this shape; see `SCALES`.

    Example:
        >>> shape_scale("spectral", Matrices((3072, 768))), shape_scale("match_rms_adamw", Matrices((100, 64)))
        (2.0, 2.0)
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}; got {scale!r}.")
    return SCALES[scale](matrices.rows, matrices.cols) if matrices.cols else 1.0


# Of one part of a dotted name. Not "heads", as the list of an attention's heads is often called.
_EMBEDDING = re.compile(r"(.*_)?emb|(.*_)?embed(ding)?s?(_.*)?|w[tp]e|(.*_)?tokens?")
_HEAD = re.compile(r"(.*_)?head|(.*_)?classifier|(.*_)?logits|unembed(ding)?")


@dataclass(frozen=True)
class Assigned:
    """A parameter, its role and the reason for it.

    Attributes:
        name: Of the parameter.
        shape: Of the parameter.
        role: "orthogonal" or "other".
        why: The reason.
        matrices: How it is seen as matrices; None for "other".
        scale: The factor of the learning rate for this shape; None for "other".
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    why: str
    matrices: Matrices | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Report:
    """Every parameter with its role, the shape of its matrices and its scale. `str` makes a table of it."""

    parameters: tuple[Assigned, ...]

    def __str__(self) -> str:
        """One line a parameter."""
        rows = [("parameter", "shape", "role", "matrices", "scale", "why"), *map(_row, self.parameters)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(p: Assigned) -> tuple[str, ...]:
    shape = " x ".join(map(str, p.shape)) or "scalar"
    if p.matrices is None:
        return p.name, shape, p.role, "", "", p.why
    count = f"{p.matrices.split} of " if p.matrices.split > 1 else ""
    return p.name, shape, p.role, f"{count}{p.matrices.rows} x {p.matrices.cols}", f"{p.scale:.4g}", p.why


def is_head(name: str) -> bool:
    """Whether a parameter is named as that of an output head.

    Example:
        >>> is_head("lm_head.weight"), is_head("blocks.0.heads.1.key.weight")
        (True, False)
    """
    return any(map(_HEAD.fullmatch, name.split(".")))


def assign(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    known: Mapping[str, str],
    axes: Mapping[str, int],
    roles: Mapping[str, Role],
    split: Mapping[str, int],
    output_axis: Mapping[str, int],
    default_axis: int = 0,
) -> dict[str, Assigned]:
    """Decide the role of each parameter.

    `roles` comes first, then what is `known`, then the name, then the shape: what has two dimensions or more is orthogonal.

    Args:
        shapes: By name.
        known: Names of parameters that the front-end knows to be no hidden matrices, with the reason.
        axes: The dimension of the outputs by name, where the front-end knows of another than `default_axis`.
        roles: By patterns of names as in `fnmatch`; the first one that fits decides. So in the following.
        split: How many matrices an array holds along its outputs; else 1.
        output_axis: The dimension of the outputs; else that of `axes`.
        default_axis: 0 in PyTorch, -1 in Keras and JAX.

    Returns:
        By name, in the order of `shapes`; the scale is not filled in.

    Raises:
        ValueError: A pattern without effect, an unknown role, a vector with the role "orthogonal", an array that cannot be
            split so, or no parameter at all that is orthogonal.
    """
    for argument, patterns in (("roles", roles), ("split", split), ("output_axis", output_axis)):
        _check_used(argument, patterns, list(shapes))
    if unknown := sorted({repr(role) for role in roles.values()} - {"'orthogonal'", "'other'"}):
        raise ValueError(f'A role is "orthogonal" or "other"; got {", ".join(unknown)} in roles={dict(roles)!r}.')
    assigned = {}
    for name, shape in shapes.items():
        role, why = _role(name, shape, known, roles)
        count, axis = _first(split, name), _first(output_axis, name)
        if role == "other" and count is not None:
            raise ValueError(f"split[{count[0]!r}] fits {name!r}, which is not orthogonalised: {why}. Give it a role in roles.")
        matrices = None
        if role == "orthogonal":
            try:
                matrices = Matrices(shape, axis[1] if axis else axes.get(name, default_axis), count[1] if count else 1)
            except ValueError as error:
                raise ValueError(f"{name!r} cannot be orthogonalised ({why}). {error}") from None
        assigned[name] = Assigned(name, shape, role, why, matrices)
    if not any(p.matrices for p in assigned.values()):
        raise ValueError(
            "Muon has no parameter to orthogonalise:\n\n"
            f"{Report(tuple(assigned.values()))}\n\n"
            'Name those that it should take, as in roles={"*.weight": "orthogonal"}, or use another optimizer for this model.'
        )
    return assigned


def _role(name: str, shape: tuple[int, ...], known: Mapping[str, str], roles: Mapping[str, Role]) -> tuple[Role, str]:
    if given := _first(roles, name):
        return given[1], f"roles[{given[0]!r}]"
    if name in known:
        return "other", known[name]
    if len(shape) < 2:
        return "other", "fewer than two dimensions"
    if is_head(name):
        return "other", "named as an output head"
    if any(map(_EMBEDDING.fullmatch, name.split("."))):
        return "other", "named as an embedding"
    return "orthogonal", "a matrix" if len(shape) == 2 else "outputs x the rest"


def _first(patterns: Mapping[str, Any], name: str) -> tuple[str, Any] | None:
    """The first pattern that fits, with its value."""
    return next(((pattern, value) for pattern, value in patterns.items() if fnmatchcase(name, pattern)), None)


def _check_used(argument: str, patterns: Mapping[str, Any], names: list[str]) -> None:
    """Each pattern decides something."""
    used = {found[0] for name in names if (found := _first(patterns, name))}
    if unused := [pattern for pattern in patterns if pattern not in used]:
        raise ValueError(
            f"{argument} has patterns that fit no parameter, or none that is left by those before them: {unused}. "
            f"The parameters are {', '.join(names)}."
        )
