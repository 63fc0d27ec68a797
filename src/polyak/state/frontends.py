"""Which module knows an optimizer. None of them is imported before it is needed, and with it its framework."""

from importlib import import_module
from typing import Any

from polyak.averaged import AverageSwitch

# From where the class of an optimizer, or one that it is derived from, comes: the module here that knows it.
_MODULES = {"polyak.numpy": "numpy", "polyak.torch": "torch", "torch.optim": "torch", "keras": "keras"}
_JAX = ("polyak.jax", "optax")


def adapter(optimizer: Any) -> Any:
    """The module with `capture(optimizer, params) -> State` and `restore(optimizer, params, values) -> state or None`.

    Raises:
        TypeError: It is no optimizer whose state is known here.
        RuntimeError: Its weights are averaged at the moment, and those that are trained would be in no file.
    """
    check_trained(optimizer)
    for base in type(optimizer).__mro__:
        for module, name in _MODULES.items():
            if f"{base.__module__}.".startswith(f"{module}."):
                return import_module(f"polyak.state.{name}")
    if isinstance(optimizer, dict) and {"state", "param_groups"} <= optimizer.keys():
        return import_module("polyak.state.torch")
    if _has_jax_state(optimizer):
        return import_module("polyak.state.jax")
    raise TypeError(
        "The optimizer must be of polyak.numpy, polyak.torch or polyak.keras, a state of polyak.jax, or, to be read, "
        "torch.optim.SGD, torch.optim.Muon or a state_dict of them, keras.optimizers.SGD, or a state of optax.sgd; "
        f"got {type(optimizer).__module__}.{type(optimizer).__qualname__}."
    )


def check_trained(optimizer: Any) -> None:
    """Refuse an optimizer whose weights are averages at the moment."""
    both = optimizer, getattr(optimizer, "others", None)  # of a Muon
    if any(isinstance(one, AverageSwitch) and one._has_aside() for one in both):
        raise RuntimeError(
            "The weights are their average now, and those that are trained would be in no file. State is saved and loaded "
            "outside of `with optimizer.averaged()`; after fit() in Keras, `with optimizer.averaged(): pass` brings them back."
        )


def _has_jax_state(tree: Any) -> bool:
    if any(f"{base.__module__}.".startswith(tuple(f"{m}." for m in _JAX)) for base in type(tree).__mro__):
        return True
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return any(map(_has_jax_state, children))
