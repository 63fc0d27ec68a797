"""Muon as an optax `GradientTransformation`: the roles of the leaves, and the update. `polyak.jax.muon` has the arguments."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType

from polyak.arguments import Finite
from polyak.jax import checks
from polyak.jax.groups import Groups, leaf_names
from polyak.jax.guards import Guard
from polyak.jax.others import NoSlot, part, update_others
from polyak.jax.transformation import State, Transformation, Tree, first_state
from polyak.jax.values import new_values, zeros
from polyak.matrices import Matrices
from polyak.methods import MUON_METHOD
from polyak.rules.directed import DIRECTED
from polyak.rules.muon import shape_scale
from polyak.rules.orthogonal import BATCH_BYTES, Polynomial, orthogonalise
from polyak.rules.roles import Assigned, Report
from polyak.update import Decay, Update, pipeline


class Muon(Transformation):
    """The transformation that `polyak.jax.muon` returns.

    Attributes:
        others: The transformation of the parameters that are no matrices.
        report: The function of the parameters, arrays or `jax.ShapeDtypeStruct`, that returns a `polyak.rules.roles.Report`:
            every parameter with its role, the reason for it, the shape of its matrices and its scale.
    """

    others: optax.GradientTransformation
    report: Callable[[Tree], Report]


@dataclass(frozen=True)
class Orthogonalised:
    """The functions of Muon, from arguments that were checked.

    Attributes:
        assign: From the shapes of all parameters by name, what each is.
        numbers: The learning rate, the momentum and the weight decay.
        options: Those of the rule: nesterov, polynomial, steps and scale.
        grouped: Other numbers for some of the matrices.
        others: The transformation of the other parameters.
        decay: "decoupled", or None if there is none.
        cautious, cautious_decay: Of the pipeline.
        max_norm: A bound of the norm of all gradients, or None.
        finite: "error", "skip" or "off".
        slot_dtype: The dtype of the velocities, or None.
        product_dtype: The dtype of the products of matrices, or None.
    """

    assign: Callable[[dict[str, tuple[int, ...]]], Mapping[str, Assigned]]
    numbers: Mapping[str, Any]
    options: Mapping[str, Any]
    grouped: Groups
    others: optax.GradientTransformation
    decay: Decay | None
    cautious: bool
    cautious_decay: bool
    max_norm: Any
    finite: Finite
    slot_dtype: Any
    product_dtype: Any
    _known: dict[Any, list[Assigned]] = field(default_factory=dict)

    def roles(self, tree: Tree) -> list[Assigned]:
        """What each leaf is. An update that is not compiled asks at each step, so the answer is kept."""
        names, shapes = leaf_names(tree), [tuple(jnp.shape(x)) for x in jax.tree.leaves(tree)]
        key = (*names, *shapes)
        if key not in self._known:
            if repeated := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"Roles go by names, and several parameters are named {', '.join(sorted(repeated))}.")
            self._known[key] = list(self.assign(dict(zip(names, shapes, strict=True))).values())
        return self._known[key]

    def report(self, params: Tree) -> Report:
        """Every parameter with its role and the factor of its learning rate."""
        return Report(tuple(replace(p, scale=self._factor(p)) if p.matrices else p for p in self.roles(params)))

    def _factor(self, p: Assigned) -> float:
        return shape_scale(self.options["scale"], p.matrices)  # type: ignore[arg-type]  # a matrix

    def init(self, params: Tree) -> State:
        """The state before the first step."""
        each = self.roles(params)
        own = part(params, each, matrices=True)
        checks.check_parameters(own, self.slot_dtype, None)
        checks.check_real_matrices(own)
        self.grouped.of(own)
        leaves, structure = jax.tree.flatten(params)
        slots = [zeros(w, self.slot_dtype) if p.matrices else NoSlot() for w, p in zip(leaves, each, strict=True)]
        state = first_state(params, {"velocity": jax.tree.unflatten(structure, slots)}, self.finite)
        return state._replace(others=self.others.init(part(params, each, matrices=False)))

    def update(self, grads: Tree, state: State, params: Tree = None) -> tuple[Tree, State]:
        """The updates and the new state."""
        if params is None and self.decay:
            raise ValueError("weight_decay needs the weights: call update(grads, state, params).")
        each = self.roles(grads)
        leaves, structure = jax.tree.flatten(grads)
        tree: Any = structure  # its methods have no type information
        weights = leaves if params is None else tree.flatten_up_to(params)  # nothing else reads the weight
        checks.check_gradients(grads, weights)
        guard = Guard(leaves, state.count, self.max_norm, watch=self.finite != "off")
        theirs = part(grads, each, matrices=False), state.others, part(params, each, matrices=False)
        others, of_others = update_others(self.others, guard, *theirs)
        updates, velocities = tree.flatten_up_to(others), tree.flatten_up_to(state.slots["velocity"])
        average = pipeline(MUON_METHOD.choose(**self.options), scale=guard.is_bounded)
        now = self.grouped.numbers_at(state.count, self.numbers)
        groups = self.grouped.of(part(grads, each, matrices=True))
        h = {i: now[group] for i, group in zip((i for i, p in enumerate(each) if p.matrices), groups, strict=True)}
        directions = {}
        for i, numbers in h.items():
            # An update is the negated step: with the learning rate -1 it is the direction itself.
            own = numbers | {"learning_rate": -1.0, "scale": guard.scale}
            directions[i], (velocities[i],) = new_values(average, leaves[i], weights[i], [velocities[i]], own, guard)
        for i, direction in self._orthogonal(directions, each).items():
            own = h[i] | {"factor": self._factor(each[i])}
            updates[i], _ = new_values(self._along(own), leaves[i], weights[i], [direction], own, guard)
        return tree.unflatten(updates), State(
            optax.safe_increment(state.count),
            {"velocity": tree.unflatten(velocities)},
            guard.skipped(state.skipped),
            guard.nonfinite(state.nonfinite),
            of_others,
        )

    def _along(self, h: Mapping[str, Any]) -> Update:
        """What brings a direction to a weight."""
        if self.decay is None or checks.is_zero(h["weight_decay"]):
            return pipeline(DIRECTED, cautious=self.cautious)
        return pipeline(DIRECTED, self.decay, cautious=self.cautious, cautious_decay=self.cautious_decay)

    def _orthogonal(self, directions: Mapping[int, jax.Array], each: list[Assigned]) -> dict[int, jax.Array]:
        """For each direction the array whose matrices are orthogonal. Those alike are taken together."""
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, d in directions.items():
            alike[each[i].matrices, d.dtype].append(i)
        found: dict[int, jax.Array] = {}
        for (matrices, dtype), indices in alike.items():
            products = self.product_dtype or default_product_dtype(dtype)
            nearest = partial(_nearest, matrices, products, self.options["polynomial"], self.options["steps"])
            count = max(1, BATCH_BYTES // max(1, directions[indices[0]].nbytes))
            for start in range(0, len(indices), count):
                batch = indices[start : start + count]
                found |= zip(batch, _where_compilers_decide(nearest, [directions[i] for i in batch]), strict=True)
        return found


def _nearest(matrices: Matrices, dtype: Any, polynomial: Polynomial, steps: int, arrays: list[jax.Array]) -> list[jax.Array]:
    """The arrays whose matrices are the nearest orthogonal ones to those of several arrays."""
    return list(matrices.back(orthogonalise(matrices.of(jnp.stack(arrays)).astype(dtype), polynomial, steps)))


def _where_compilers_decide(function: Callable[[Any], Any], arrays: list[jax.Array]) -> list[jax.Array]:
    """Call it with arrays of any shardings. Where those are types, a product would have to be told that of its result."""
    shardings = [jax.typeof(x).sharding for x in arrays]
    if any(AxisType.Explicit in sharding.mesh.axis_types for sharding in shardings):
        function = jax.sharding.auto_axes(function, out_sharding=shardings)
    return function(arrays)  # type: ignore[no-any-return]


def default_product_dtype(arithmetic: Any) -> Any:
    """In which dtype products of matrices are fast enough and exact enough, where the arithmetic is in this one."""
    capability = getattr(jax.devices()[0], "compute_capability", "")  # of NVIDIA's such as "8.0", of AMD's "gfx90a"
    is_old = capability[:1].isdigit() and float(capability) < 8  # without bfloat16
    if arithmetic == jnp.float64 or jax.default_backend() == "cpu" or is_old:
        return arithmetic
    return jnp.dtype(jnp.bfloat16)
