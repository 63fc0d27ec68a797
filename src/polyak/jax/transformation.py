"""Any method as an optax `GradientTransformation`. The functions beside this file have the arguments of each.

All of them, spelled out: `optax.inject_hyperparams` finds its hyperparameters in the signature, and would take those behind a
`**common` for one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from polyak.arguments import Finite, check_cautious, check_finite
from polyak.jax import checks
from polyak.jax.groups import Groups
from polyak.jax.guards import Guard, norm
from polyak.jax.values import full_mask, new_values, zeros
from polyak.methods import Method
from polyak.update import pipeline

Number = float | jax.Array
Schedule = Callable[[jax.Array], jax.Array | float]
Tree = Any  # a pytree of arrays


class State(NamedTuple):
    """The state of every transformation of `polyak.jax`.

    Attributes:
        count: The number of updates so far, also of those that were left out: an int32 scalar, the step that schedules are
            given.
        slots: For each slot of the rule by its name, a tree like the parameters. Empty for a rule without memory.
        skipped: How many updates were left out because of a gradient with a NaN or an infinity: an int32 scalar; None with
            finite="off".
        nonfinite: In how many updates each parameter had such a gradient: an int32 vector in the order of `jax.tree.leaves`;
            None but with finite="error".
        others: The state of the transformation that Muon has for parameters that are no matrices; None of all others.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple has a method of this name
    slots: dict[str, Tree]
    skipped: jax.Array | None = None
    nonfinite: jax.Array | None = None
    others: Any = None


class Transformation(optax.GradientTransformation):  # type: ignore[misc]  # optax has no types
    """A gradient transformation that tells how it was made, which its state does not.

    Attributes:
        method: What it is one of.
        arguments: The arguments that it was made with, all of them, by name.
        under: The update under a `Guard` that looks at more gradients than these: `(guard, grads, state, params)`, and what
            `update` returns, but for the counts of the guard. None of Muon, which has others under its own.
    """

    method: Method
    arguments: Mapping[str, Any]
    under: Callable[[Guard, Tree, State, Tree], tuple[Tree, State]] | None = None


def first_state(params: Tree, slots: dict[str, Tree], finite: Finite) -> State:
    """The state before the first step."""
    skipped = None if finite == "off" else jnp.zeros([], jnp.int32)
    nonfinite = jnp.zeros(len(jax.tree.leaves(params)), jnp.int32) if finite == "error" else None
    return State(jnp.zeros([], jnp.int32), slots, skipped, nonfinite)


def transformation(
    method: Method,
    numbers: Mapping[str, Any],
    *,
    weight_decay: Number,
    decay: Any,
    mask: Tree | Callable[[Tree], Tree] | None,
    groups: Mapping[str, Mapping[str, Any]] | None,
    max_norm: Number | None,
    cautious: bool,
    cautious_decay: bool,
    finite: Any,
    slot_dtype: Any,
) -> Transformation:
    """The transformation of a method.

    Args:
        method: The method.
        numbers: The learning rate and the method's own arguments, by name.
        weight_decay: See `polyak.jax.momentum` for this and all others.
        decay: "coupled", "decoupled" or None.
        mask: Which parameters decay.
        groups: Other numbers for some of the parameters.
        max_norm: A bound of the gradients' global norm, or None.
        cautious: The step waits where it does not go down the gradient.
        cautious_decay: The decay waits where the step does not go its way.
        finite: "error", "skip" or "off".
        slot_dtype: The dtype of the slots, or None.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, an unknown option.
        TypeError: An argument of another type.
    """
    given = checks.checked_arguments(method, numbers) | {"weight_decay": weight_decay}
    grouped = Groups(groups, method, decay)
    checks.check_weight_decays(grouped.all_values("weight_decay", weight_decay), decay)
    check_cautious(cautious, cautious_decay, decay)
    check_finite(finite)
    max_norm = checks.checked_max_norm(max_norm)
    if mask is not None and decay is None:
        raise ValueError("mask says which parameters decay, and has no effect without weight_decay and decay.")
    rule = checks.chosen_rule(method, given, grouped)
    pipeline(rule, decay)  # for its errors
    if slot_dtype is not None:
        slot_dtype = checks.checked_slot_dtype(slot_dtype, rule)
    only_real = method.name if method.signs else "cautious" if cautious or cautious_decay else None

    def init(params: Tree) -> State:
        checks.check_parameters(params, slot_dtype, only_real)
        grouped.of(params)
        slots = {name: jax.tree.map(lambda w: zeros(w, slot_dtype), params) for name in rule.slots}
        return first_state(params, slots, finite)

    def under(guard: Guard, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
        if params is None and (decay is not None or rule.per_tensor):
            who = rule.name if rule.per_tensor else f"decay={decay!r}"
            raise ValueError(f"{who} needs the weights: call update(grads, state, params).")
        leaves, structure = jax.tree.flatten(grads)
        tree: Any = structure  # its methods have no type information
        weights = leaves if params is None else tree.flatten_up_to(params)  # nothing else reads the weight
        checks.check_gradients(grads, weights)
        slots = [tree.flatten_up_to(state.slots[name]) for name in rule.slots]
        decays = [decay is not None] * len(leaves) if mask is None else tree.flatten_up_to(full_mask(mask, params))
        now = grouped.numbers_at(state.count, given)
        with_decay = pipeline(rule, decay, scale=guard.is_bounded, cautious=cautious, cautious_decay=cautious_decay)
        without = pipeline(rule, scale=guard.is_bounded, cautious=cautious)
        results = []
        for i, (group, g, w) in enumerate(zip(grouped.of(grads), leaves, weights, strict=True)):
            h = now[group] | {"scale": guard.scale}
            update = with_decay if decays[i] and not checks.is_zero(h["weight_decay"]) else without
            if update.per_tensor:
                h = update.per_tensor(h, norm(g), norm(w), jnp.ndim(w))
            results.append(new_values(update, g, w, [slot[i] for slot in slots], h, guard))
        new_slots = {name: tree.unflatten(new[k] for _, new in results) for k, name in enumerate(rule.slots)}
        return tree.unflatten(u for u, _ in results), state._replace(count=optax.safe_increment(state.count), slots=new_slots)

    def update(grads: Tree, state: State, params: Tree = None) -> tuple[Tree, State]:
        guard = Guard(jax.tree.leaves(grads), state.count, max_norm, watch=finite != "off")
        updates, new = under(guard, grads, state, params)
        return updates, new._replace(skipped=guard.skipped(state.skipped), nonfinite=guard.nonfinite(state.nonfinite))

    made = Transformation(init, update)
    made.method = method
    made.under = under
    made.arguments = given | {
        "decay": decay,
        "mask": mask,
        "groups": groups,
        "max_norm": max_norm,
        "cautious": cautious,
        "cautious_decay": cautious_decay,
        "finite": finite,
        "slot_dtype": slot_dtype,
    }
    return made
