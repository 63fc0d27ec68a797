"""`polyak.jax.schedule_free`: an average of the weights in the place of a falling learning rate."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from polyak.averaged import average_of
from polyak.averaging import warmed_up, warmed_up_groups
from polyak.jax.groups import Groups
from polyak.jax.transformation import Number, Schedule, State, Transformation, Tree, transformation
from polyak.jax.values import compute_dtype
from polyak.methods import SCHEDULE_FREE_METHOD


def schedule_free(
    learning_rate: Number | Schedule = 1.0,
    momentum: Number | Schedule = 0.9,
    *,
    warmup_steps: int = 0,
    weight_decay: Number = 0.0,
    decay: Literal["coupled", "decoupled"] | None = None,
    mask: Tree | Callable[[Tree], Tree] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    max_norm: Number | None = None,
    cautious: bool = False,
    cautious_decay: bool = False,
    finite: Literal["error", "skip", "off"] = "off",
    slot_dtype: Any = None,
) -> optax.GradientTransformation:
    """ScheduleFree: gradient descent whose average of the weights takes the place of a falling learning rate.

    Three sequences begin at the same weights. At each step

        z = z - learning_rate * g                   g is the gradient at y
        x = (1 - c) * x + c * z                     c is 1 at the first step, 1 / t at step t
        y = (1 - momentum) * z + momentum * x

    The parameters are y. What is to be evaluated and used is x, which `averaged` gives; a function of parameters cannot tell
    what it is called for, so forgetting it goes unseen.

    Source: A. Defazio, X. A. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The road less scheduled", NeurIPS 2024,
    arXiv:2405.15682.

    Args:
        learning_rate: A number >= 0, or a function of the step. It needs no schedule but the warm-up: weights count in the
            average as if it were constant from there.
        momentum: In (0, 1]: how far y leans towards x. A number, or a function of the step.
        warmup_steps: The learning rate goes up along a line and is `learning_rate`, a number then, from the step of this number
            on. Weights count in the average by the square of the learning rate. For `optax.inject_hyperparams` it is one of
            the static_args.
        weight_decay: For this and the other arguments, see `polyak.jax.momentum`. The authors' decay is "coupled".
        decay: "coupled" or "decoupled".
        mask: Which parameters decay.
        groups: Other numbers for parameters by name.
        max_norm: A bound of the gradients' global norm.
        cautious: Step only where the step goes down the present gradient.
        cautious_decay: Decay only where the step makes the weight smaller too.
        finite: What becomes of a step with a gradient that is not finite.
        slot_dtype: The dtype in which the slot is kept.

    Returns:
        The transformation, whose state is a `polyak.jax.State` with the slot "lead", z - y. It is all that there is beside
        the parameters, so that both together are a checkpoint.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, or a warm-up of a schedule.
        TypeError: An argument of another type.

    Example:
        >>> optimizer = schedule_free(0.5, momentum=0.5)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        ...     w = optax.apply_updates(w, updates)
        >>> w, averaged(optimizer, state, w)
        (Array([1.25], dtype=float32), Array([1.5], dtype=float32))
    """
    if isinstance(warmup_steps, jax.Array):
        raise TypeError(
            "warmup_steps is part of the compiled step, so it must be an int, and no array. With optax.inject_hyperparams, "
            'give static_args="warmup_steps".'
        )
    return transformation(
        SCHEDULE_FREE_METHOD,
        {"learning_rate": warmed_up(learning_rate, warmup_steps), "momentum": momentum, "warmup_steps": warmup_steps},
        weight_decay=weight_decay,
        decay=decay,
        mask=mask,
        groups=warmed_up_groups(groups, warmup_steps),
        max_norm=max_norm,
        cautious=cautious,
        cautious_decay=cautious_decay,
        finite=finite,
        slot_dtype=slot_dtype,
    )


def averaged(optimizer: optax.GradientTransformation, state: Any, params: Tree) -> Tree:
    """The average of the weights: what is to be evaluated, saved and used. A pure function, which may be compiled.

    The statistics of batch normalisation are those of the weights that are trained; compute them anew with the average.

    Args:
        optimizer: What `schedule_free` returned.
        state: Its state, or one with that state in it, as that of `optax.chain`.
        params: The parameters that are trained.

    Returns:
        A tree like `params`. The momentum in it is that of the next step.

    Raises:
        TypeError: Another transformation.
        ValueError: There is no such state, or there are several.
    """
    if not isinstance(optimizer, Transformation) or optimizer.method is not SCHEDULE_FREE_METHOD:
        raise TypeError(
            "averaged needs the transformation that polyak.jax.schedule_free returned, which knows the momentum; got "
            f"{optimizer}."
        )
    found = [x for x in jax.tree.leaves(state, is_leaf=_has_lead) if _has_lead(x)]
    if len(found) != 1:
        raise ValueError(f"averaged needs a state with one state of schedule_free in it; there are {len(found)}.")
    (own,) = found
    arguments = optimizer.arguments
    grouped = Groups(arguments["groups"], optimizer.method, arguments["decay"])
    given = {name: x for name, x in arguments.items() if name in ("learning_rate", "weight_decay", *optimizer.method.arguments)}
    momenta = [numbers["momentum"] for numbers in grouped.numbers_at(own.count, given)]
    leaves, structure = jax.tree.flatten(params)
    tree: Any = structure  # its methods have no type information
    leads = tree.flatten_up_to(own.slots["lead"])
    averages = [_average(w, lead, momenta[i]) for w, lead, i in zip(leaves, leads, grouped.of(params), strict=True)]
    return tree.unflatten(averages)


def _average(w: jax.Array, lead: jax.Array, momentum: Any) -> jax.Array:
    dtype = compute_dtype(w)
    b = jnp.asarray(momentum, jnp.zeros((), dtype).real.dtype)
    average: jax.Array = average_of(jnp.asarray(w, dtype), jnp.asarray(lead, dtype), b)
    return average.astype(jnp.result_type(w))


def _has_lead(x: Any) -> bool:
    return isinstance(x, State) and "lead" in x.slots
