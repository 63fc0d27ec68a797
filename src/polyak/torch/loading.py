"""Which saved state belongs to which parameter, and whether it fits.

Saved states come from an optimizer of the same method, or from its like in torch, whose slot has the same name and unit.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polyak.methods import METHODS, MUON_METHOD, Method
from polyak.torch.peers import PEERS, Options


def key_of(slot: str) -> str:
    """The name of a slot in the state of a parameter: that of torch.optim.SGD for the velocity."""
    return "momentum_buffer" if slot == "velocity" else slot


def matched(
    state_dict: Mapping[str, Any], own: list[Options], method: Method, beside_slots: tuple[str, ...] = ()
) -> tuple[dict[Tensor, Options], list[Options]]:
    """The state by parameter and the groups that an optimizer with the groups `own` has after loading.

    Args:
        state_dict: What was saved.
        own: The groups.
        method: The optimizer's method.
        beside_slots: What a parameter's state may hold beside the slots of the rule.

    Raises:
        ValueError: All that does not fit, in one error.
    """
    groups, state, wrong = [], {}, []
    for mine, saved in _pairs(own, state_dict["param_groups"]):
        options = _options(mine, saved, method)
        rule = method.choose(**{**method.checked(options), **dict.fromkeys(method.varying)})
        slots = [*map(key_of, rule.slots), *beside_slots]
        groups.append(options)
        for name, key, p in zip(_names(mine), _keys(mine, saved), mine["params"], strict=True):
            entry = state_dict["state"].get(key, {})
            if unknown := sorted(map(str, entry.keys() - set(slots))):
                wrong.append(f"{name}: holds {', '.join(unknown)}, the state of another optimizer")
            found = {key: entry[key] for key in slots if entry.get(key) is not None}  # none before a step, or without momentum
            wrong += [
                f"{name}: {key} saved with shape {tuple(slot.shape)}, the parameter has {tuple(p.shape)}"
                for key, slot in found.items()
                if slot.shape != p.shape
            ]
            if found:
                # Copies, since the step writes into them; in their own dtype, which for half precision is not the parameter's.
                state[p] = {key: slot.detach().to(p.device).clone() for key, slot in found.items()}
    if wrong:
        raise ValueError("The saved state does not fit these parameters:\n  " + "\n  ".join(wrong))
    return state, groups


def _names(group: Options) -> list[str]:
    names: list[str] = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
    return names


def _keys(mine: Options, saved: Options) -> list[Any]:
    """Under what each parameter's state was saved: found by name where both have names, by position where not."""
    if "param_names" in mine and "param_names" in saved:
        by_name = dict(zip(saved["param_names"], saved["params"], strict=True))
        return [by_name[name] for name in mine["param_names"]]
    return list(saved["params"])


def _pairs(own: list[Options], saved: list[Options]) -> list[tuple[Options, Options]]:
    """Each group with the saved one that has the same parameters."""
    if all("param_names" in group for group in (*own, *saved)):
        return _pairs_by_name(own, saved)
    sizes, saved_sizes = ([len(group["params"]) for group in groups] for groups in (own, saved))
    if sizes != saved_sizes:
        raise ValueError(
            f"The saved state is of groups with {saved_sizes} parameters; this optimizer has groups with {sizes}. "
            "Give both named parameters (model.named_parameters()) to be told which ones differ."
        )
    return list(zip(own, saved, strict=True))


def _pairs_by_name(own: list[Options], saved: list[Options]) -> list[tuple[Options, Options]]:
    mine, theirs = ({name for group in groups for name in group["param_names"]} for groups in (own, saved))
    if mine != theirs:
        raise ValueError(
            "The saved state is of other parameters than this optimizer has. "
            f"Missing from the saved state: {sorted(mine - theirs)}. Unknown to this optimizer: {sorted(theirs - mine)}."
        )
    by_names = {frozenset(group["param_names"]): group for group in saved}
    apart = [sorted(group["param_names"]) for group in own if frozenset(group["param_names"]) not in by_names]
    if apart:
        raise ValueError(
            "The saved state has the same parameters in other groups, so their options cannot be told. Groups of this "
            f"optimizer that were not saved as one: {apart}."
        )
    return [(group, by_names[frozenset(group["param_names"])]) for group in own]


_ARGUMENTS = {name for method in (*METHODS.values(), MUON_METHOD) for name in method.arguments}


def _options(mine: Options, saved: Options, method: Method) -> Options:
    """The saved options; of those that were not saved, this optimizer's own. The parameters are this optimizer's."""
    options = {**mine, **saved, "params": mine["params"]}
    if "param_names" in mine:
        options["param_names"] = mine["param_names"]
    if saved.keys() & _ARGUMENTS == set(method.arguments):
        return options
    peer = PEERS.get(method)
    if peer is None or not peer.has(saved):
        raise ValueError(
            f"The saved state is of another optimizer: its options are {', '.join(sorted(saved.keys() - {'params'}))}. "
            f"A state of polyak.torch.{method.name}{f' or of {peer.name}' if peer else ''} can be loaded."
        )
    options |= peer.options(mine, saved)
    return {name: value for name, value in options.items() if name not in peer.dropped}
