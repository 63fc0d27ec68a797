"""`polyak.jax.muon`: momentum whose steps are orthogonal matrices."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import optax

from polyak.arguments import check_cautious, check_finite
from polyak.jax import checks
from polyak.jax.checks import is_zero
from polyak.jax.groups import Groups
from polyak.jax.orthogonalised import Muon, Orthogonalised
from polyak.jax.others import checked_others
from polyak.jax.transformation import Number, Schedule
from polyak.methods import MUON_METHOD
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import Scale
from polyak.rules.orthogonal import Polynomial
from polyak.rules.roles import Role, assign
from polyak.update import Decay


def muon(
    learning_rate: Number | Schedule = 0.02,
    momentum: Number | Schedule = 0.95,
    *,
    nesterov: bool = True,
    weight_decay: Number = 0.0,
    polynomial: Polynomial = "polar_express",
    steps: int = 5,
    scale: Scale = "spectral",
    roles: Mapping[str, Role] | None = None,
    split: Mapping[str, int] | None = None,
    output_axis: Mapping[str, int | Sequence[int]] | None = None,
    others: optax.GradientTransformation | None = None,
    product_dtype: Any = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    max_norm: Number | None = None,
    cautious: bool = False,
    cautious_decay: bool = False,
    finite: Literal["error", "skip", "off"] = "off",
    slot_dtype: Any = None,
) -> Muon:
    """Muon: momentum whose step is, for each weight matrix, the nearest orthogonal matrix; another rule for what is no matrix.

    With the gradient G of the loss with respect to a weight W, and a velocity V that starts at 0, each step is

        V = V + (1 - momentum) * (G - V)
        W = W - learning_rate * scale * orthogonalise((1 - momentum) * G + momentum * V)     without nesterov: orthogonalise(V)

    What is an embedding and what an output head is told from names alone; `muon(...).report(params)` says what was decided, and
    why. See `polyak.rules.muon` for the method and its source, `polyak.rules.orthogonal` for the polynomials, and docs/muon.md.

    Args:
        learning_rate: A number >= 0, or a function of the step.
        momentum: In [0, 1): how much of the velocity survives a step. A number, or a function of the step.
        nesterov: Look ahead by a step, as above.
        weight_decay: A coefficient >= 0: learning_rate * weight_decay * W is taken from W beside the step, decoupled as in all
            peers. The scale has no part in it. `update` then needs the parameters.
        polynomial: "polar_express", or "quintic" as in optax.contrib.muon.
        steps: How many polynomials are taken. For `optax.inject_hyperparams` it is one of the static_args.
        scale: "spectral" is sqrt(max(1, rows / cols)); "match_rms_adamw" is 0.2 sqrt(max(rows, cols)), with which learning
            rates and decays of AdamW serve.
        roles: "orthogonal" or "other" by patterns (as in `fnmatch`) of a parameter's name, which is its keys with "/" between
            them: {"params/Dense_2/*": "other"}. The first that fits decides. What no pattern fits is orthogonal if it has two
            dimensions or more and is not named as an embedding or an output head.
        split: How many matrices a parameter holds along its outputs, by patterns: {"*/qkv/kernel": 3}.
        output_axis: The dimension of a parameter's outputs, or several of them, by patterns. It is the last, as in flax, where
            kernels are inputs x outputs. Those of Equinox are outputs x inputs: {"*weight": 0}.
        others: The transformation of the other parameters, of Polyak or any of optax, which sees `optax.MaskedNode` in the
            place of the matrices. By default `polyak.jax.momentum(0.01, 0.9)`.
        product_dtype: Of the products of matrices. None: bfloat16 on accelerators that have it, else float32; float64 for
            weights of float64. Velocity and weights keep their own dtype.
        groups: Other numbers for some of the matrices, by name, as in `polyak.jax.momentum`: learning_rate, momentum and
            weight_decay. What is for other parameters goes to `others`.
        max_norm: The gradients, those of the other parameters too, are multiplied by one number so that the norm of all of
            them together is at most this. What it does to a matrix shows where it changes from step to step.
        cautious: Step only where the step goes down the present gradient. Of the matrices, as the next.
        cautious_decay: Decay only where the step makes the weight smaller too.
        finite: What becomes of a step in which a gradient, of whichever parameter, has a NaN or an infinity: "off", "skip" or
            "error", as in `polyak.jax.momentum`.
        slot_dtype: The dtype in which V is kept.

    Returns:
        The transformation. Its state is a `polyak.jax.State` with the slot "velocity", in which the other parameters have no
        array, and `others`, the state of their transformation. `report` is a function of the parameters.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, `others` with a guard of its own.
            `init` and `report` raise it for a pattern that decides nothing, and if no parameter is orthogonalised.
        TypeError: An argument of another type.

    Example:
        >>> params = {"hidden": {"kernel": jnp.eye(2), "bias": jnp.ones(2)}, "head": {"kernel": jnp.ones((2, 1))}}
        >>> optimizer = muon(0.25, steps=8)
        >>> print(optimizer.report(params))
        parameter      shape  role        matrices  scale  why
        head/kernel    2 x 1  other                        named as an output head
        hidden/bias    2      other                        fewer than two dimensions
        hidden/kernel  2 x 2  orthogonal  2 x 2     1      a matrix
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> updates["hidden"]["kernel"].round(3) + 0.0
        Array([[-0.25,  0.  ],
               [ 0.  , -0.25]], dtype=float32)
    """
    if isinstance(steps, jax.Array):
        raise TypeError(
            "steps is part of the compiled step, so it must be an int, and no array. With optax.inject_hyperparams, give "
            'static_args="steps".'
        )
    options = {"nesterov": nesterov, "polynomial": polynomial, "steps": steps, "scale": scale}
    MUON_METHOD.choose(**options)  # for its errors
    numbers = checks.checked_arguments(MUON_METHOD, {"learning_rate": learning_rate, "momentum": momentum, **options})
    grouped = Groups(groups, MUON_METHOD, "decoupled")
    heavy_ball(momentum=not all(map(is_zero, grouped.all_values("momentum", numbers["momentum"]))), nesterov=nesterov)
    decays = grouped.all_values("weight_decay", weight_decay)
    decay: Decay | None = None if all(map(is_zero, decays)) else "decoupled"
    checks.check_weight_decays(decays, decay)
    check_cautious(cautious, cautious_decay, decay)
    patterns: dict[str, Any] = {"roles": roles or {}, "split": split or {}, "output_axis": output_axis or {}}
    functions = Orthogonalised(
        assign=partial(assign, known={}, axes={}, default_axis=-1, **patterns),
        numbers=numbers | {"weight_decay": weight_decay},
        options=options,
        grouped=grouped,
        others=checked_others(others),
        decay=decay,
        cautious=cautious,
        cautious_decay=cautious_decay,
        max_norm=checks.checked_max_norm(max_norm),
        finite=check_finite(finite),
        slot_dtype=None if slot_dtype is None else checks.checked_dtype("slot_dtype", slot_dtype),
        product_dtype=None if product_dtype is None else checks.checked_dtype("product_dtype", product_dtype),
    )
    made = Muon(functions.init, functions.update)
    made.method = MUON_METHOD
    made.others = functions.others
    made.report = functions.report
    made.arguments = {
        **functions.numbers,
        **patterns,
        "decay": decay,
        "groups": groups,
        "max_norm": functions.max_norm,
        "cautious": cautious,
        "cautious_decay": cautious_decay,
        "finite": finite,
        "slot_dtype": functions.slot_dtype,
        "product_dtype": functions.product_dtype,
    }
    return made
