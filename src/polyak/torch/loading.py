"""Which saved state belongs to which parameter, and whether it fits.

Saved states come from this optimizer or from torch.optim.SGD, whose slot has the same name and the same unit.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

SLOT = "momentum_buffer"  # as in torch.optim.SGD

Options = dict[str, Any]

# Options of torch.optim.SGD that say how it computes, not what.
_HOW = ("foreach", "fused", "capturable", "differentiable")


def matched(state_dict: Mapping[str, Any], own: list[Options]) -> tuple[dict[Tensor, Options], list[Options]]:
    """The state by parameter and the groups that an optimizer with the groups `own` has after loading.

    Raises:
        ValueError: All that does not fit, in one error.
    """
    groups, state, wrong = [], {}, []
    for mine, saved in _pairs(own, state_dict["param_groups"]):
        options = _options(mine, saved)
        groups.append(options)
        for name, key, p in zip(_names(mine), _keys(mine, saved), mine["params"], strict=True):
            entry = state_dict["state"].get(key, {})
            if unknown := sorted(map(str, entry.keys() - {SLOT})):
                wrong.append(f"{name}: holds {', '.join(unknown)}, the state of another optimizer")
            buffer = entry.get(SLOT)
            if buffer is None:  # no step yet, or no momentum
                continue
            if buffer.shape != p.shape:
                wrong.append(f"{name}: saved with shape {tuple(buffer.shape)}, the parameter has {tuple(p.shape)}")
            # A copy, since the step writes into it; in its own dtype, which for half precision is not the parameter's.
            state[p] = {SLOT: buffer.detach().to(p.device).clone()}
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


def _options(mine: Options, saved: Options) -> Options:
    """The saved options; of those that were not saved, this optimizer's own. The parameters are this optimizer's."""
    options = {**mine, **saved, "params": mine["params"]}
    if "param_names" in mine:
        options["param_names"] = mine["param_names"]
    if "velocity" in saved:
        return options
    # From torch.optim.SGD, which has one kind of velocity and one of decay.
    if "momentum" not in saved:
        raise ValueError(
            f"The saved state is of another optimizer: its options are {', '.join(sorted(saved.keys() - {'params'}))}. "
            "A state of polyak.torch.Momentum or of torch.optim.SGD can be loaded."
        )
    if saved.get("differentiable"):
        raise ValueError("The saved state is of an SGD with differentiable=True, which this optimizer cannot go on with.")
    if mine["velocity"] != "gradient":
        raise ValueError(
            f'The saved state is of torch.optim.SGD, whose velocity is velocity="gradient"; this optimizer has '
            f'velocity={mine["velocity"]!r}. Make it with velocity="gradient" to load this state.'
        )
    if saved["weight_decay"] and mine["decay"] == "decoupled":
        raise ValueError(
            f"The saved state is of torch.optim.SGD with weight_decay={saved['weight_decay']}, which is coupled; this "
            'optimizer has decay="decoupled". Make it with decay="coupled", or with no decay, to go on as SGD would.'
        )
    if saved["weight_decay"]:
        options["decay"] = "coupled"
    return {name: value for name, value in options.items() if name not in _HOW}
