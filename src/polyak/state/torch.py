"""The state of the optimizers of `polyak.torch`, and, to be read, of torch.optim.SGD, torch.optim.Muon and state_dicts."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyak.methods import MOMENTUM, MUON_METHOD, Method
from polyak.state.contents import COMMON, KNOWN, Array, Contents, Group, Spec, State, numpy_dtype
from polyak.state.matching import Values
from polyak.state.names import unique
from polyak.torch.loading import key_of
from polyak.torch.muon import Muon
from polyak.torch.optimizer import Optimizer
from polyak.torch.peers import PEERS
from polyak.torch.views import compute_dtype, is_sharded

Options = dict[str, Any]  # of a parameter group, as torch has them


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of an optimizer or of a state_dict.

    Args:
        optimizer: An optimizer of `polyak.torch`, a `torch.optim.SGD` or `torch.optim.Muon`, or what state_dict() of one of
            them returned.
        params: What gives names to the parameters: a model, named parameters, or a dict from name to parameter. It may be
            left out where the optimizer was made with named parameters.
    """
    if isinstance(optimizer, dict):
        return _of_state_dict(optimizer, params)
    parts = [_parts_of(one) for one in _optimizers(optimizer)]
    names = {p: name for name, p in _named(optimizer, params).items()}
    # Of steps that a device left out, the host does not know which they were.
    known = not (isinstance(optimizer, Optimizer) and optimizer._guard.skipped_by_device)
    groups: list[Group] = []
    slots: dict[str, tuple[Any, Any]] = {}
    for method, own_groups, state, rates in parts:
        for i, group in enumerate(own_groups):
            states = [state.get(p, {}) for p in group["params"]]
            own = [names[p] for p in group["params"]]
            described = _group(method, group, own, remembers=any(states), last=rates[i] if known and i < len(rates) else None)
            for slot in described.slots:
                of_each = zip(own, group["params"], states, strict=True)
                slots |= {f"{slot}/{name}": (p, of_p.get(key_of(slot))) for name, p, of_p in of_each}
            groups.append(described)
    return _state(slots, groups, _count(optimizer.param_groups))


def _optimizers(optimizer: Any) -> list[Any]:
    """The optimizer, and after it the one that a Muon has for what is no matrix, as their groups are in one list."""
    others = optimizer.others if isinstance(optimizer, Muon) else None
    return [optimizer, *([others] if others is not None else [])]


def _parts_of(optimizer: Any) -> tuple[Method, list[Options], Mapping[Tensor, Options], list[float]]:
    """The method, the groups, the state and the learning rates of the last step, as far as they are known."""
    if isinstance(optimizer, Optimizer):
        return optimizer._method, optimizer._own_groups(), optimizer.state, optimizer._last_learning_rates
    for method, peer in PEERS.items():
        kind: Any = getattr(torch.optim, peer.name.rpartition(".")[2], ())  # Muon came with torch 2.9
        if isinstance(optimizer, kind):
            return method, optimizer.param_groups, optimizer.state, []
    raise TypeError(
        f"Of the optimizers of PyTorch, the states of those of polyak.torch ({', '.join(KNOWN)}) and of "
        f"{' and '.join(peer.name for peer in PEERS.values())} are known; got {optimizer}."
    )


def restore(optimizer: Optimizer, params: Any, values: Values) -> None:
    """Give the optimizer new slots."""
    each = _optimizers(optimizer)
    for one in each:
        if not isinstance(one, Optimizer):
            of = "" if one is optimizer else "the others of a Muon, "
            raise TypeError(
                f"The state of {of}{type(one).__qualname__} is read only; load it into an optimizer of polyak.torch."
            )
    named = _named(optimizer, params)
    new: dict[Tensor, dict[str, Tensor]] = {}
    for name, array in values.arrays.items():
        slot, _, parameter = name.partition("/")
        p, key = named[parameter], key_of(slot)
        # In the parameter's order of memory, which is what the compiled step takes.
        tensor = torch.empty_like(p, dtype=_slot_dtype(p, optimizer.state.get(p, {}).get(key)), requires_grad=False)
        new.setdefault(p, {})[key] = tensor.copy_(_tensor(array))
    rates = iter(values.last_learning_rates)
    for one in each:
        one._forget()
        own = [p for group in one._own_groups() for p in group["params"]]
        for p in own:
            if p in new:
                one.state[p] = {**one.state[p], **new[p]}
        one._last_learning_rates = [next(rates) for _ in one._own_groups()]
    if isinstance(optimizer, Muon):
        optimizer._join()
    for group, numbers in zip(optimizer.param_groups, values.hyperparameters, strict=True):
        for name, number in numbers.items():
            _assign(group, _key(name), number)
        if values.count is not None:
            group["count"] = values.count


def _key(hyperparameter: str) -> str:
    return "lr" if hyperparameter == "learning_rate" else hyperparameter


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
        entries = [(*next(remaining), state_dict["state"].get(key, {})) for key in group["params"]]
        of_it = _group(
            _method_of(group), group, [name for name, _, _ in entries], any(state for _, _, state in entries), last=None
        )
        for slot in of_it.slots:
            for name, p, state in entries:
                slots[f"{slot}/{name}"] = (p, _fitting(state.get(key_of(slot)), p, name, key_of(slot)))
        described.append(of_it)
    return _state(slots, described, _count(groups))


def _fitting(slot: Any, p: Any, name: str, key: str) -> Any:
    """The slot of a parameter in a state_dict, where only its place says that it is that parameter's."""
    if slot is None and p is None:
        raise ValueError(f"The state_dict has no {key} of {name!r}, which had no step yet, so its shape is not known.")
    if slot is not None and p is not None and slot.shape != p.shape:
        raise ValueError(
            f"In the place of {name!r}, which has shape {tuple(p.shape)}, the state_dict has a {key} of shape "
            f"{tuple(slot.shape)}. Give the parameters in the optimizer's order."
        )
    return slot


def _method_of(group: Options) -> Method:
    """Whose state_dict has such a group."""
    for method, peer in PEERS.items():
        if peer.has(group):
            return method
    arguments = {name for method in KNOWN.values() for name in method.arguments}
    for method in KNOWN.values():
        if group.keys() & arguments == set(method.arguments):
            return method
    raise TypeError(
        f"The state_dicts of polyak.torch ({', '.join(KNOWN)}) and {' and '.join(peer.name for peer in PEERS.values())} are "
        f"known; a group of this one has {', '.join(sorted(group.keys() - {'params'}))}."
    )


def _as_ours(method: Method, group: Options) -> Options:
    """The options of one of torch's own optimizers: what it does not have is what it does."""
    kind = {MOMENTUM: "coupled", MUON_METHOD: "decoupled"}[method] if group["weight_decay"] else None
    ours: Options = {"maximize": False, **group, "cautious": False, "cautious_decay": False, "decay": kind}
    if method is MOMENTUM:
        # With momentum 0 SGD ignores the dampening.
        return {**ours, "velocity": "gradient", "dampening": group["dampening"] if group["momentum"] else 0.0}
    return {**ours, **PEERS[method].options({}, group)}


def _group(method: Method, group: Options, names: list[str], remembers: bool, last: float | None) -> Group:
    if method in PEERS and PEERS[method].has(group):
        group = _as_ours(method, group)
    numbers = {name: float(group[_key(name)]) for name in ("learning_rate", *method.varying)}
    arguments = method.checked({name: group[name] for name in method.arguments})
    # A momentum that is 0 for a while still moves the velocity.
    rule = method.choose(**{**arguments, **dict.fromkeys(method.varying if remembers else ())})
    return Group(
        tuple(names),
        method.name,
        options={name: arguments[name] for name in (*method.constants, *method.options)}
        | {name: group[name] for name in COMMON}
        | {"weight_decay": float(group["weight_decay"])},
        hyperparameters=numbers,
        last_learning_rate=last,
        assignable=tuple(name for name in numbers if name in rule.hyperparameters),
        slots=rule.slots,
    )


def _count(groups: list[Options]) -> int | None:
    """How many steps were made, where all groups that count them have made as many; torch's own optimizers do not."""
    counts = {group["count"] for group in groups if "count" in group}
    return counts.pop() if len(counts) == 1 else None


def _state(slots: Mapping[str, tuple[Any, Any]], groups: Iterable[Group], count: int | None) -> State:
    """The state with these slots, each with its parameter; a slot that is None is zero, as before the first step."""
    specs = {
        name: Spec(tuple((p if slot is None else slot).shape), str(_slot_dtype(p, slot)).removeprefix("torch."))
        for name, (p, slot) in slots.items()
    }

    def array(name: str) -> Array:
        p, slot = slots[name]
        return array_of(torch.zeros(p.shape, dtype=compute_dtype(p.dtype)) if slot is None else slot)

    return State(Contents(specs, tuple(groups), count), array)


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
