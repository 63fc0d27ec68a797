"""The state of `polyak.torch.Momentum`, and, to be read, of torch.optim.SGD and its state_dict."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyak.state.contents import OPTIONS, Array, Contents, Group, Spec, State, numpy_dtype
from polyak.state.matching import Values
from polyak.state.names import unique
from polyak.torch import Momentum
from polyak.torch.loading import SLOT
from polyak.torch.views import compute_dtype, is_sharded


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of an optimizer or of a state_dict.

    Args:
        optimizer: A `polyak.torch.Momentum`, a `torch.optim.SGD`, or what state_dict() of one of them returned.
        params: What gives names to the parameters: a model, named parameters, or a dict from name to parameter. It may be
            left out where the optimizer was made with named parameters.
    """
    if isinstance(optimizer, dict):
        return _of_state_dict(optimizer, params)
    if not isinstance(optimizer, Momentum | torch.optim.SGD):
        raise TypeError(
            f"Of the optimizers of PyTorch, the states of polyak.torch.Momentum and torch.optim.SGD are known; got {optimizer}."
        )
    named = _named(optimizer, params)
    groups: list[Group] = []
    slots: dict[str, tuple[Any, Any]] = {}
    names = {p: name for name, p in named.items()}
    for i, group in enumerate(optimizer.param_groups):
        remembers = group["momentum"] != 0 or any(SLOT in optimizer.state.get(p, ()) for p in group["params"])
        if remembers:
            slots |= {f"velocity/{names[p]}": (p, optimizer.state.get(p, {}).get(SLOT)) for p in group["params"]}
        last = _last_learning_rate(optimizer, i, group)
        groups.append(_group(group, [names[p] for p in group["params"]], remembers, last))
    return _state(slots, groups)


def restore(optimizer: Momentum, params: Any, values: Values) -> None:
    """Give the optimizer new slots."""
    if not isinstance(optimizer, Momentum):
        raise TypeError(f"The state of {type(optimizer).__qualname__} is read only; load it into a polyak.torch.Momentum.")
    named = _named(optimizer, params)
    slots = {}
    for name, array in values.arrays.items():
        p = named[name.partition("/")[2]]
        # In the parameter's order of memory, which is what the compiled step takes.
        slots[p] = torch.empty_like(p, dtype=_slot_dtype(p, optimizer.state.get(p, {}).get(SLOT)), requires_grad=False)
        slots[p].copy_(_tensor(array))
    optimizer._forget()
    for p, slot in slots.items():
        optimizer.state[p] = {**optimizer.state[p], SLOT: slot}
    for group, numbers in zip(optimizer.param_groups, values.hyperparameters, strict=True):
        for option, name in (("lr", "learning_rate"), ("momentum", "momentum")):
            if name in numbers:
                _assign(group, option, numbers[name])


def _assign(group: dict[str, Any], option: str, value: float) -> None:
    if isinstance(group[option], Tensor):  # compiled code may hold it
        group[option].fill_(value)
    else:
        group[option] = value


def _named(optimizer: torch.optim.Optimizer, params: Any) -> dict[str, Tensor]:
    """Each parameter of the optimizer by its name, in the optimizer's order."""
    own = [p for group in optimizer.param_groups for p in group["params"]]
    if any(map(is_sharded, own)):
        raise TypeError(
            "Parameters of this optimizer are DTensors, of which each process holds a part; a file holds whole tensors. "
            "torch.distributed.checkpoint saves such an optimizer's state_dict."
        )
    if params is None:
        if not all("param_names" in group for group in optimizer.param_groups):
            raise ValueError(
                "State is kept by name, and this optimizer knows none. Give params, the model for example, or make the "
                "optimizer with model.named_parameters()."
            )
        return unique(_own_names(optimizer.param_groups, own), "parameters")
    by_id = {id(p): name for name, p in unique(pairs(params), "parameters").items()}
    if nameless := [tuple(p.shape) for p in own if id(p) not in by_id]:
        raise ValueError(f"params gives no name to {len(nameless)} parameters of the optimizer, of shapes {nameless}.")
    return {by_id[id(p)]: p for p in own}


def _own_names(groups: list[dict[str, Any]], params: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    return zip((name for group in groups for name in group["param_names"]), params, strict=True)


def pairs(params: Any) -> Iterable[tuple[str, Any]]:
    """Names and parameters of whatever has both."""
    if isinstance(params, torch.nn.Module):
        return params.named_parameters()
    return params.items() if isinstance(params, Mapping) else params


def _of_state_dict(state_dict: dict[str, Any], params: Any) -> State:
    """The state in a state_dict, which counts the parameters instead of naming them."""
    groups = state_dict["param_groups"]
    keys = [key for group in groups for key in group["params"]]
    if params is not None:
        named = list(unique(pairs(params), "parameters").items())
        if len(named) != len(keys):
            raise ValueError(
                f"The state_dict is of {len(keys)} parameters, and params gives {len(named)}. Give those that the optimizer "
                "had, in its order."
            )
    elif all("param_names" in group for group in groups):
        named = list(unique(_own_names(groups, [None] * len(keys)), "parameters").items())
    else:
        raise ValueError(
            "State is kept by name, and this state_dict has none. Save it to a file first, with the model that it is of: "
            "polyak.state.save(path, state_dict, params=model)."
        )
    slots: dict[str, tuple[Any, Any]] = {}
    described = []
    remaining = iter(named)
    for group in groups:
        entries = [(key, *next(remaining)) for key in group["params"]]
        remembers = any(_buffer(state_dict, key) is not None for key in group["params"])
        for key, name, p in entries if remembers else ():
            buffer = _buffer(state_dict, key)
            if buffer is None and p is None:
                raise ValueError(f"The state_dict has no {SLOT} of {name!r}, which had no step yet, so its shape is not known.")
            if buffer is not None and p is not None and buffer.shape != p.shape:
                raise ValueError(
                    f"The {SLOT} at place {key} has shape {tuple(buffer.shape)}; {name!r}, which is at this place in params, "
                    f"has {tuple(p.shape)}. Give the parameters in the optimizer's order."
                )
            slots[f"velocity/{name}"] = (p, buffer)
        described.append(_group(group, [name for _, name, _ in entries], remembers, _as_it_stands(group)))
    return _state(slots, described)


def _buffer(state_dict: dict[str, Any], key: Any) -> Any:
    return state_dict["state"].get(key, {}).get(SLOT)


def _group(group: dict[str, Any], names: list[str], remembers: bool, last: float | None) -> Group:
    # What torch.optim.SGD does not have is what it does.
    options = {"velocity": "gradient", "decay": "coupled" if group["weight_decay"] else None} | {
        name: group[name] for name in OPTIONS if name in group
    }
    options["velocity"] = options["velocity"] if remembers else None
    options["weight_decay"] = float(options["weight_decay"])
    numbers = {"learning_rate": float(group["lr"]), "momentum": float(group["momentum"])}
    return Group(tuple(names), options, numbers, last_learning_rate=last)


def _last_learning_rate(optimizer: Any, i: int, group: dict[str, Any]) -> float | None:
    """What the last step took, where the optimizer has made one since it was made or loaded."""
    running = getattr(optimizer, "_running", ())
    return float(running[i].hyperparameters["learning_rate"]) if i < len(running) else _as_it_stands(group)


def _as_it_stands(group: dict[str, Any]) -> float | None:
    # A scheduler may have set the learning rate for the next step already.
    return None if "initial_lr" in group else float(group["lr"])


def _state(slots: Mapping[str, tuple[Any, Any]], groups: Iterable[Group]) -> State:
    """The state with these slots, each with its parameter; a slot that is None is zero, as before the first step."""
    specs = {
        name: Spec(tuple((p if slot is None else slot).shape), str(_slot_dtype(p, slot)).removeprefix("torch."))
        for name, (p, slot) in slots.items()
    }

    def array(name: str) -> Array:
        p, slot = slots[name]
        return array_of(torch.zeros(p.shape, dtype=compute_dtype(p.dtype)) if slot is None else slot)

    return State(Contents(specs, tuple(groups), count=None), array)


def _slot_dtype(p: Any, slot: Any) -> torch.dtype:
    dtype: torch.dtype = compute_dtype(p.dtype) if slot is None else slot.dtype
    return dtype


# bfloat16, for one, is no dtype that PyTorch and NumPy share: such tensors pass as integers.
_AS_INTEGERS: dict[str, torch.dtype] = {"bfloat16": torch.int16}


def array_of(t: Tensor) -> Array:
    """A tensor in host memory, where it may lie already."""
    t = t.detach().resolve_conj().resolve_neg().cpu().contiguous()
    name = str(t.dtype).removeprefix("torch.")
    if name in _AS_INTEGERS:
        return t.view(_AS_INTEGERS[name]).numpy().view(numpy_dtype(name))
    return t.numpy()


def _tensor(array: Array) -> Tensor:
    if array.dtype.name in _AS_INTEGERS:
        return torch.from_numpy(array.view("int16")).view(getattr(torch, array.dtype.name))
    return torch.from_numpy(array)
