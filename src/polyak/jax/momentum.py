"""`polyak.jax.momentum`: the rule as an optax `GradientTransformation`."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from polyak.arguments import check_dampening, check_learning_rate, check_momentum
from polyak.jax import checks
from polyak.jax.values import full_mask, new_values, zeros
from polyak.rules import heavy_ball
from polyak.update import pipeline

Number = float | jax.Array
Schedule = Callable[[jax.Array], jax.Array | float]
Tree = Any  # a pytree of arrays


class MomentumState(NamedTuple):
    """The state of `momentum`.

    Attributes:
        count: The number of updates so far, an int32 scalar: the step that schedules are given.
        velocity: A tree like the parameters; None with momentum=0.
    """

    count: jax.Array  # type: ignore[assignment]
    velocity: Tree = None


class Transformation(optax.GradientTransformation):  # type: ignore[misc]
    """A gradient transformation that tells how it was made, which its state does not.

    Attributes:
        arguments: The arguments that it was made with, as they were given.
    """

    arguments: Mapping[str, Any]


def momentum(
    learning_rate: Number | Schedule,
    momentum: Number | Schedule = 0.9,
    *,
    nesterov: bool = False,
    velocity: Literal["gradient", "step", "average"] = "gradient",
    dampening: Number = 0.0,
    weight_decay: Number = 0.0,
    decay: Literal["coupled", "decoupled"] | None = None,
    mask: Tree | Callable[[Tree], Tree] | None = None,
    slot_dtype: Any = None,
) -> optax.GradientTransformation:
    """Gradient descent with momentum.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - learning_rate * v

    The updates that it returns are the negated steps, for `optax.apply_updates`. Where that is under one `jax.jit` with
    `update`, the weights have the bits that every front-end of Polyak gives them; docs/jax.md says what holds elsewhere.

    Args:
        learning_rate: A number >= 0, or a function of the number of updates so far: an optax schedule or any other. It is
            given 0 at the first update, as an int32 scalar, and is traced.
        momentum: In [0, 1): how much of the velocity survives a step. A number or a function, like `learning_rate`. With the
            number 0 this is gradient descent, without a velocity in memory.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
            "gradient": v = m v + (1 - dampening) g, w = w - lr v. As in optax.sgd.
            "step": v = m v + lr (1 - dampening) g, w = w - v. Past steps keep the learning rate that they were taken with.
            "average": v = v + (1 - m) (g - v), w = w - lr v. An average of gradients.
        dampening: In [0, 1): the part of each gradient, from the first on, that is kept out of the velocity.
        weight_decay: A coefficient >= 0, together with `decay`. `update` then needs the parameters.
        decay: "coupled" adds weight_decay * w to the gradient, as optax.add_decayed_weights before optax.sgd does. "decoupled"
            takes learning_rate * weight_decay * w from the weight beside the step, as optax.adamw does.
        mask: Which parameters decay: a tree of booleans like the parameters or a prefix of it, or a function of the parameters
            that returns one.
        slot_dtype: The dtype in which v is kept. By default that of the parameter, and float32 for half precision.

    Parameters are arrays of any real or complex floating dtype, in any pytree; leaves that are None or `optax.MaskedNode` are
    passed over. The arithmetic is in the parameter's dtype, for float16 and bfloat16 in float32. The updates of those are
    float32 too, so that `optax.apply_updates` rounds the new weight once. The numbers above may be JAX arrays, traced or not,
    so `optax.inject_hyperparams` can have them (name "mask" and "slot_dtype" in its `static_args` if they are given).

    Returns:
        The transformation. Its `update` raises ValueError or TypeError for gradients that do not fit the parameters.

    Raises:
        ValueError: A number out of its range, weight_decay and decay without each other, or options of which one would have
            no effect.
        TypeError: An argument of another type; a function that does not take the step.

    Example:
        >>> optimizer = momentum(0.25, 0.5)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), state.velocity
        (Array([3.], dtype=float32), Array([4.], dtype=float32))
    """
    checks.check_schedule_or_number("learning_rate", learning_rate, check_learning_rate)
    checks.check_schedule_or_number("momentum", momentum, check_momentum)
    checks.check_number(dampening, check_dampening)
    checks.check_weight_decay(weight_decay, decay)
    # An array may be another number at the next call. Where no dampening can be, a number that is traced is taken for 0.
    remembers = isinstance(momentum, jax.Array) or momentum != 0
    may_dampen = isinstance(dampening, jax.Array) and remembers and velocity != "average" and not nesterov
    known = 0.0 if isinstance(dampening, jax.core.Tracer) else float(dampening)
    rule = heavy_ball(
        momentum=remembers,
        velocity=velocity,
        nesterov=nesterov,
        dampening=known or may_dampen,
    )
    if slot_dtype is not None:
        slot_dtype = checks.checked_slot_dtype(slot_dtype, rule)
    if mask is not None and decay is None:
        raise ValueError("mask says which parameters decay, and has no effect without weight_decay and decay.")
    with_decay, without = pipeline(rule, decay), pipeline(rule)
    given = {"learning_rate": learning_rate, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}

    def init(params: Tree) -> MomentumState:
        checks.check_parameters(params, slot_dtype)
        slots = [jax.tree.map(lambda w: zeros(w, slot_dtype), params) for _ in rule.slots]
        return MomentumState(jnp.zeros([], jnp.int32), *slots)

    def update(grads: Tree, state: MomentumState, params: Tree = None) -> tuple[Tree, MomentumState]:
        if params is None and decay is not None:
            raise ValueError(f"decay={decay!r} needs the weights: call update(grads, state, params).")
        leaves, structure = jax.tree.flatten(grads)
        tree: Any = structure  # its methods have no type information
        weights = leaves if params is None else tree.flatten_up_to(params)  # without decay, no rule here reads the weight
        checks.check_gradients(grads, weights)
        slots = [tree.flatten_up_to(slot) for slot in state[1 : 1 + len(rule.slots)]]
        decays = [True] * len(leaves) if mask is None else tree.flatten_up_to(full_mask(mask, params))
        now = {name: checks.scalar(name, value(state.count)) if callable(value) else value for name, value in given.items()}
        results = [
            new_values(with_decay if decays[i] else without, g, w, [slot[i] for slot in slots], now)
            for i, (g, w) in enumerate(zip(leaves, weights, strict=True))
        ]
        new_slots = [tree.unflatten(new[k] for _, new in results) for k in range(len(slots))]
        return tree.unflatten(u for u, _ in results), MomentumState(optax.safe_increment(state.count), *new_slots)

    transformation = Transformation(init, update)
    transformation.arguments = given | {"nesterov": nesterov, "velocity": velocity, "decay": decay}
    return transformation
