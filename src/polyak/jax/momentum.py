"""`polyak.jax.momentum`: the heavy ball and its variants."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import MOMENTUM


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
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    max_norm: Number | None = None,
    cautious: bool = False,
    cautious_decay: bool = False,
    finite: Literal["error", "skip", "off"] = "off",
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
        groups: Other numbers for some parameters: `{r"bias|norm": {"weight_decay": 0}, "head": {"learning_rate": 0.01}}`. Each
            pattern is a regular expression, searched in the parameter's name, which is its keys with "/" between them:
            "layers/0/bias". The first that is found counts; each must be that for one parameter at least. Its numbers are the
            learning rate, the weight decay and those of the method that may be functions of the step; they may be here too.
        max_norm: The gradients are multiplied by one number so that the norm of all of them together is at most this. The
            gradients of sharded parameters are counted as a whole.
        cautious: Step only where the step goes down the present gradient. Real parameters only.
        cautious_decay: With decay="decoupled", decay only where the step makes the weight smaller too. Real parameters only.
        finite: What becomes of a step in which a gradient has a NaN or an infinity. "off": it is taken. "skip": weights and
            slots stay as they are, bit for bit, and the state counts it in `skipped`; `count` goes on. "error": the same, and
            `polyak.jax.check_finite(state)` then raises an error that names the parameters.
        slot_dtype: The dtype in which v is kept. By default that of the parameter, and float32 for half precision.

    Parameters are arrays of any real or complex floating dtype, in any pytree; leaves that are None or `optax.MaskedNode` are
    passed over. The arithmetic is in the parameter's dtype, for float16 and bfloat16 in float32. The updates of those are
    float32 too, so that `optax.apply_updates` rounds the new weight once. The numbers above may be JAX arrays, traced or not,
    so `optax.inject_hyperparams` can have them (name "mask" and "slot_dtype" in its `static_args` if they are given).

    Returns:
        The transformation, whose state is a `polyak.jax.State` with the slot "velocity". Its `update` raises ValueError or
        TypeError for gradients that do not fit the parameters.

    Raises:
        ValueError: A number out of its range, weight_decay and decay without each other, or options of which one would have
            no effect. `init` raises it for a pattern of `groups` that has no parameter.
        TypeError: An argument of another type; a function that does not take the step. `init` raises it for parameters that
            are not floating-point arrays.

    Example:
        >>> optimizer = momentum(0.25, 0.5)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), state.slots["velocity"]
        (Array([3.], dtype=float32), Array([4.], dtype=float32))
    """
    return transformation(
        MOMENTUM,
        {
            "learning_rate": learning_rate,
            "momentum": momentum,
            "nesterov": nesterov,
            "velocity": velocity,
            "dampening": dampening,
        },
        weight_decay=weight_decay,
        decay=decay,
        mask=mask,
        groups=groups,
        max_norm=max_norm,
        cautious=cautious,
        cautious_decay=cautious_decay,
        finite=finite,
        slot_dtype=slot_dtype,
    )
