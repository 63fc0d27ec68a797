"""Which parameters Muon orthogonalises, and how it sees them as matrices: from their names, their shapes, and what is known.

`assign` decides for all parameters of a model; `Report` says what it decided, and why.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from polyak.matrices import Matrices

Role = Literal["orthogonal", "other"]
Axes = int | Sequence[int]

# Of one part of a name. Not "heads", as the list of an attention's heads is often called.
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
        >>> is_head("lm_head.weight"), is_head("blocks.0.heads.1.key.weight"), is_head("gpt/lm_head/kernel")
        (True, False, True)
    """
    return any(map(_HEAD.fullmatch, _parts(name)))


def _parts(name: str) -> list[str]:
    """Those of a name in PyTorch, or of a path in Keras and JAX."""
    return re.split(r"[./]", name)


def assign(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    known: Mapping[str, str],
    axes: Mapping[str, Axes],
    roles: Mapping[str, Role],
    split: Mapping[str, int],
    output_axis: Mapping[str, Axes],
    default_axis: Axes = 0,
) -> dict[str, Assigned]:
    """Decide the role of each parameter.

    `roles` comes first, then what is `known`, then the name, then the shape: what has two dimensions or more is orthogonal.

    Args:
        shapes: By name.
        known: Names of parameters that the front-end knows to be no hidden matrices, with the reason.
        axes: The dimensions of the outputs by name, where the front-end knows of others than `default_axis`.
        roles: By patterns of names as in `fnmatch`; the first one that fits decides. So in the following.
        split: How many matrices an array holds along its outputs; else 1.
        output_axis: The dimension of the outputs, or several of them; else those of `axes`.
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
                outputs = axis[1] if axis else axes.get(name, default_axis)
                outputs = outputs if isinstance(outputs, int) else tuple(outputs)
                matrices = Matrices(shape, outputs, count[1] if count else 1)
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
    if any(map(_EMBEDDING.fullmatch, _parts(name))):
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
