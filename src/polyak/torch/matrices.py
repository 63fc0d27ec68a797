"""Muon's update of matrices: momentum and weights as tensors of elements, by the kernel, and between them products by torch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyak.matrices import Matrices
from polyak.rules.directed import DIRECTED
from polyak.rules.muon import Scale, shape_scale
from polyak.rules.orthogonal import BATCH_BYTES, Polynomial, orthogonalise
from polyak.torch import views
from polyak.torch.distributed import Number, Squares, gathered, own_shard
from polyak.torch.tensors import Group, Row, Step
from polyak.torch.views import compute_dtype, is_sharded, local
from polyak.update import Update, pipeline


@dataclass(frozen=True)
class How:
    """How matrices are made orthogonal.

    Attributes:
        polynomial, steps: As in `polyak.rules.orthogonal.orthogonalise`.
        scale: As in `polyak.rules.muon.shape_scale`.
        product_dtype: Of the products of matrices; None for what is fast enough and exact enough.
    """

    polynomial: Polynomial
    steps: int
    scale: Scale
    product_dtype: torch.dtype | None


class MatrixGroup:
    """The matrices that one update is applied to, with the same hyperparameters; as `Group` is for tensors of elements.

    Args:
        update: The rule of the velocity, with the pipeline for the weight.
        matrices: How each tensor is seen as matrices.

    Attributes:
        how: May be set from step to step.
    """

    how: How

    def __init__(self, update: Update, matrices: Mapping[Tensor, Matrices]) -> None:
        self.direction = pipeline(update.rule, scale=update.scale)
        of_weight = {"scale": update.scale, "cautious": update.cautious, "cautious_decay": update.cautious_decay}
        self.weight = pipeline(DIRECTED, update.decay, **of_weight)
        self.matrices = matrices
        self._all = Group(self.direction)

    def read(self, weights: Row, gradients: Row, slots: Sequence[Row]) -> "MatrixStep":
        """Take the tensors of this step, as `Group.read` does."""
        return MatrixStep(self, weights, gradients, slots[0])

    def read_gradients(self, weights: Row, gradients: Row, velocities: Row) -> Step:
        """The same tensors as those of a rule of elements, for the squares of the gradients."""
        return self._all.read(weights, gradients, [velocities])


class MatrixStep:
    """Matrices that take part in a step. What the names mean is said in `polyak.torch.tensors.Step`."""

    def __init__(self, group: MatrixGroup, weights: Row, gradients: Row, velocities: Row) -> None:
        self.weights = weights
        self._group = group
        self._gradients = gradients
        self._velocities = velocities
        self._read: Step | None = None

    @property
    def on_host(self) -> bool:
        """Whether any of the tensors is in host memory."""
        return any(views.in_host_memory(local(w)) for w in self.weights)

    def sum_of_squares(self) -> Squares:
        """Of the gradients, as far as this process holds them."""
        return self._elements().sum_of_squares()

    def squares(self) -> list[Number]:
        """Of each gradient the sum of squares, as far as this process holds it."""
        return self._elements().squares()

    def _elements(self) -> Step:
        if self._read is None:
            self._read = self._group.read_gradients(self.weights, self._gradients, self._velocities)
        return self._read

    @torch.no_grad()
    def apply(self, h: Mapping[str, Number], passes: Tensor | None = None) -> None:
        """Update weights and velocities in place."""
        for matrices, indices in self._batches():
            rows = [[row[i] for i in indices] for row in (self.weights, self._gradients, self._velocities)]
            self._update(matrices, rows, h, passes)

    def _batches(self) -> Iterator[tuple[Matrices, list[int]]]:
        """The places of tensors that are alike, with how they are seen as matrices."""
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, w in enumerate(self.weights):
            alike[self._group.matrices[w], w.dtype, w.device, is_sharded(w)].append(i)
        for (matrices, _, _, _), indices in alike.items():
            count = max(1, BATCH_BYTES // max(1, self.weights[indices[0]].nbytes))
            for start in range(0, len(indices), count):
                yield matrices, indices[start : start + count]

    def _update(self, matrices: Matrices, rows: list[list[Tensor]], h: Mapping[str, Number], passes: Tensor | None) -> None:
        """One step of tensors that are alike. Of DTensors, each process updates its shards and needs the whole direction."""
        weights, gradients, velocities = rows
        how, like = self._group.how, weights[0]
        dtype = compute_dtype(like.dtype)
        if is_sharded(like):
            directions = [torch.zeros_like(w, dtype=dtype, requires_grad=False) for w in weights]
        else:
            together = torch.zeros(len(weights), *matrices.shape, dtype=dtype, device=like.device)
            directions = list(together.unbind())
        # The rule moves weights of 0 against the step, with the learning rate -1: what it then has is the direction itself.
        of_direction = Group(self._group.direction).read(directions, gradients, [velocities])
        of_direction.apply({**h, "learning_rate": -1.0}, passes)
        if is_sharded(like):
            together = torch.stack([gathered(direction) for direction in directions])
        of = matrices.of(together).to(how.product_dtype or default_product_dtype(dtype, like.device))
        orthogonal = matrices.back(orthogonalise(of, how.polynomial, how.steps)).to(dtype)
        own = [_laid_as(own_shard(o, w), local(w)) for o, w in zip(orthogonal.unbind(), weights, strict=True)]
        of_weight = Group(self._group.weight).read(weights, gradients, [own])
        of_weight.apply({**h, "factor": shape_scale(how.scale, matrices)}, passes)


def _laid_as(t: Tensor, w: Tensor) -> Tensor:
    """The same numbers in the order of memory of `w`, in which the kernel takes them."""
    return t if t.stride() == w.stride() else torch.empty_like(w, dtype=t.dtype, requires_grad=False).copy_(t)


def default_product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """In which dtype products of matrices are fast enough and exact enough."""
    if dtype == torch.float64:
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Without AMX, also where there are instructions for bfloat16, the products of float32 were twice as fast.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32
