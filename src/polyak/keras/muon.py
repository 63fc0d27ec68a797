"""Muon in Keras."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Unpack

import keras

from polyak.keras.backend import backend
from polyak.keras.groups import path_of
from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.layers import names_of, not_hidden, outputs
from polyak.keras.momentum import Momentum
from polyak.keras.optimizer import Optimizer
from polyak.keras.schedule_free import ScheduleFree
from polyak.keras.values import compute_dtype, is_complex
from polyak.matrices import Matrices
from polyak.methods import MUON_METHOD
from polyak.rules import Rule, heavy_ball
from polyak.rules.muon import Scale, muon, shape_scale
from polyak.rules.orthogonal import Polynomial
from polyak.rules.roles import Assigned, Axes, Report, Role, assign
from polyak.update import Update

# Of an optimizer for all variables, and so for Muon alone to have.
_OF_ALL = (
    "global_clipnorm",
    "finite",
    "clipnorm",
    "clipvalue",
    "use_ema",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


_PRODUCT_DTYPES = ("bfloat16", "float16", "float32", "float64")


@keras.saving.register_keras_serializable(package="polyak")
class Muon(Optimizer):
    """Momentum whose step is, for each weight matrix, the nearest orthogonal matrix; another rule for what is no matrix.

    With the gradient G of the loss with respect to a weight W, and a velocity V that starts at 0, each step is

        V = V + (1 - momentum) * (G - V)
        W = W - learning_rate * scale * orthogonalise((1 - momentum) * G + momentum * V)    without nesterov: orthogonalise(V)

    See `polyak.rules.muon` for the method and `polyak.rules.orthogonal` for the polynomials. What is an embedding, an output
    head or a vector is told from the paths and the shapes of the variables when the optimizer is built; `report()` says what
    was decided, and `roles` decides otherwise.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; the change of W in the spectral
            norm, with the scale.
        momentum: In [0, 1): how much of the velocity survives a step. A number, a schedule or a callable of the step.
        nesterov: Look ahead by a step, as above.
        polynomial: "polar_express", or "quintic" as in keras.optimizers.Muon.
        steps: How many polynomials are taken.
        scale: "spectral" is sqrt(max(1, rows / cols)); "match_rms_adamw" is 0.2 sqrt(max(rows, cols)), with which learning
            rates and decays of AdamW serve.
        roles: "orthogonal" or "other" by patterns of paths (as in `fnmatch`, where * is for "/" too); the first that fits
            decides. The paths are those of the report, without a model's own name.
        split: How many matrices a variable holds along its outputs, by patterns: {"*lstm_cell/*kernel": 4}.
        output_axis: The dimension of a variable's outputs, or several in a tuple, by patterns. It is -1; in transposed
            convolutions -2, and (-2, -1) in kernels of (in, heads, size), where names and biases tell. Kernels have outputs x
            all the rest as their matrix.
        others: The optimizer of the other variables, of `polyak.keras`, which serves this one alone from then on. By
            default `Momentum(0.01, momentum=0.9)`.
        product_dtype: Of the products of matrices, by its name. None: bfloat16 on devices that have it, else that of the
            weights, at least float32. Velocity and weights keep their own dtype.
        **common: weight_decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes, as in
            `Momentum`. `global_clipnorm`, `finite` and what Keras itself does (clipnorm, use_ema, ...) are for all variables;
            weight_decay, cautious, cautious_decay and groups for the matrices, and `others` has its own. weight_decay is
            decoupled: learning_rate * weight_decay * W is taken from W beside the step, without the scale.

    Attributes:
        others: The optimizer of the other variables, with its own learning rate, which can be assigned.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, `others` with an option that is for
            all variables; when it is built, a pattern that decides nothing, or no variable to orthogonalise.
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.Muon(0.02, others=polyak.keras.Lion(1e-4)), loss="mse")
        >>> model.optimizer.build(model.trainable_variables)
        >>> print(model.optimizer.report())
        parameter       shape  role        matrices  scale  why
        dense/kernel    4 x 8  orthogonal  8 x 4     1.414  a matrix
        dense/bias      8      other                        fewer than two dimensions
        dense_1/kernel  8 x 1  other                        the last kernel: the output head
        dense_1/bias    1      other                        fewer than two dimensions
    """

    # What is decided about a model's variables is an option too, for the configuration.
    _method = replace(MUON_METHOD, options=(*MUON_METHOD.options, "roles", "split", "output_axis", "others", "product_dtype"))

    momentum = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.02,
        momentum: Number = 0.95,
        *,
        nesterov: bool = True,
        polynomial: Polynomial = "polar_express",
        steps: int = 5,
        scale: Scale = "spectral",
        roles: Mapping[str, Role] | None = None,
        split: Mapping[str, int] | None = None,
        output_axis: Mapping[str, Axes] | None = None,
        others: Optimizer | None = None,
        product_dtype: str | None = None,
        **common: Unpack[Common],
    ) -> None:
        if isinstance(momentum, int | float):
            heavy_ball(momentum=momentum != 0, nesterov=nesterov)  # for its errors; one that is assigned later may be 0
        others = Momentum(0.01, momentum=0.9) if others is None else others
        _check_others(others)
        arguments = {
            "momentum": momentum,
            "nesterov": nesterov,
            "polynomial": polynomial,
            "steps": steps,
            "scale": scale,
            "roles": _patterns("roles", roles),
            "split": _patterns("split", split),
            "output_axis": {
                # Lists come from configurations in JSON.
                p: tuple(x) if isinstance(x, list) else x
                for p, x in _patterns("output_axis", output_axis).items()
            },
            "others": others,
            "product_dtype": product_dtype and _check_product_dtype(product_dtype),
        }
        super().__init__(learning_rate, arguments, **_with_decay(common))
        self._assigned: Mapping[Any, Assigned] = MappingProxyType({})  # by the key that Keras has for a variable
        self._adopt(others)

    def _adopt(self, others: Optimizer) -> None:
        """Keep the other optimizer's numbers with the variables of this one, and let its schedules follow this one's steps."""
        others._untrack_variable(others._iterations)
        for variable in others.variables:
            self._track_variable(variable)
        others._iterations = self._iterations
        others.built = True  # so that it makes no steps of its own

    def report(self) -> Report:
        """Every variable with its role, the reason for it, the shape of its matrices and its scale.

        Raises:
            ValueError: The optimizer was not built.
        """
        if not self._assigned:
            raise ValueError(
                "Roles are decided when the optimizer is built: call build(model.trainable_variables) first, or make a step."
            )
        return Report(tuple(self._assigned.values()))

    # Two optimizers as one: the matrices with the groups of this one, then the other variables with the groups of the other.

    def _updates_of(self, variables: Sequence[Any], clips: bool) -> tuple[tuple[Update, ...], tuple[int, ...]]:
        self._assigned = MappingProxyType(dict(zip(map(self._var_key, variables), self._decided(variables), strict=True)))
        own = [v for v in variables if self._matrices(v)]
        rest = [v for v in variables if not self._matrices(v)]
        try:
            updates, groups = super()._updates_of(own, clips)
        except ValueError as error:
            raise ValueError(f"{error} These are the matrices; groups of the other variables are for `others`.") from None
        other_updates, other_groups = self.others._updates_of(rest, clips)
        before = 1 + len(self._groups.overrides)
        of_own = iter(zip(updates, groups, strict=True))
        of_rest = iter(zip(other_updates, (before + i for i in other_groups), strict=True))
        found = [next(of_own if self._matrices(v) else of_rest) for v in variables]
        return tuple(update for update, _ in found), tuple(group for _, group in found)

    def _decided(self, variables: Sequence[Any]) -> list[Assigned]:
        """The role of each variable."""
        names = names_of(list(map(path_of, variables)))
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Muon tells variables by their paths; several have the same: {twice}. Name their layers.")
        shapes = {name: tuple(v.shape) for name, v in zip(names, variables, strict=True)}
        assigned = assign(
            shapes,
            known=not_hidden(shapes),
            axes=outputs(shapes),
            roles=self.roles,
            split=self.split,
            output_axis=self.output_axis,
            default_axis=-1,
        )
        return [replace(p, scale=shape_scale(self.scale, p.matrices)) if p.matrices else p for p in assigned.values()]

    def _matrices(self, variable: Any) -> Matrices | None:
        return self._assigned[self._var_key(variable)].matrices

    def _check_real(self, variables: Any) -> None:
        for v in filter(is_complex, variables):
            name, dtype = self._assigned[self._var_key(v)].name, keras.backend.standardize_dtype(v.dtype)
            raise TypeError(
                f'Muon orthogonalises real matrices; {name!r} is of {dtype}. Give it another rule: roles={{{name!r}: "other"}}.'
            )

    def _rule_of(self, variable: Any) -> Rule:
        matrices: Any = self._matrices(variable)
        fast = backend.product_dtype(variable) if compute_dtype(variable.dtype) == "float32" else None
        return muon(
            matrices,
            nesterov=self.nesterov,
            polynomial=self.polynomial,
            steps=self.steps,
            scale=self.scale,
            product_dtype=self.product_dtype or fast,
        )

    def _constants(self) -> list[dict[str, Any]]:
        return [*super()._constants(), *self.others._constants()]

    def _hyperparameters(self, learning_rate: Any) -> list[dict[str, Any]]:
        return [*super()._hyperparameters(learning_rate), *self.others._hyperparameters(self.others.learning_rate)]

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Leave variables out of the decays of both optimizers; before they are built, as in every Keras optimizer."""
        super().exclude_from_weight_decay(var_list, var_names)
        self.others.exclude_from_weight_decay(var_list, var_names)

    # Configuration and state.

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state; those of the other optimizer within them."""
        return {**super().get_config(), "others": keras.optimizers.serialize(self.others)}

    def load_own_variables(self, store: Any) -> None:
        """Load the state of both optimizers."""
        super().load_own_variables(store)
        self.others._forget_last_learning_rate()


def _with_decay(common: Common) -> Any:
    """The common arguments with the decay that Muon has."""
    groups = common.get("groups")
    in_groups = isinstance(groups, Mapping) and any("weight_decay" in numbers for numbers in groups.values())
    decays = common.get("decay") or common.get("weight_decay") or in_groups
    if common.get("decay") == "coupled":
        raise ValueError(
            'decay="coupled" has no meaning with Muon, whose steps do not see how long the gradient is. Leave decay out: it is '
            "decoupled."
        )
    return {**common, "decay": "decoupled" if decays else None}


def _patterns(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping | None):
        raise TypeError(f"{name} must be a dict from patterns of paths; got {given!r}.")
    return dict(given or {})


def _check_others(others: Any) -> None:
    if not isinstance(others, Optimizer):
        raise TypeError(
            f"others must be an optimizer of polyak.keras, such as polyak.keras.Lion(1e-4); got {others!r} of type "
            f"{type(others).__module__}.{type(others).__qualname__}."
        )
    if isinstance(others, Muon | ScheduleFree):
        why = "has to be switched to its averages" if isinstance(others, ScheduleFree) else "is for matrices"
        raise ValueError(f"others cannot be {type(others).__name__}, which {why}. Lion, Momentum or QHM are usual.")
    if others.built:
        raise ValueError("others has been built, or serves another Muon. Make a new one for this.")
    for name in _OF_ALL:
        if (value := getattr(others, name)) not in (None, False, "off"):
            raise ValueError(f"others has {name}={value!r}, which is for all variables together: give it to Muon itself.")


def _check_product_dtype(value: Any) -> str:
    if value not in _PRODUCT_DTYPES:
        raise ValueError(f"product_dtype must be one of {', '.join(map(repr, _PRODUCT_DTYPES))}, or None; got {value!r}.")
    dtype: str = value
    return dtype
