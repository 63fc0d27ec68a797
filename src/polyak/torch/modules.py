"""What the modules of a model tell `Muon` of their parameters."""

from typing import Any

from torch import Tensor, nn

from polyak.rules.roles import Axes, is_head

Named = list[tuple[str, Tensor]]


def named_groups(params: Any) -> list[dict[str, Any]]:
    """The groups with lists of named parameters, from a model, named parameters or groups of them.

    Raises:
        TypeError: Parameters without names.
    """
    given = list(params.named_parameters() if isinstance(params, nn.Module) else params)
    groups = [{**group, "params": list(group["params"])} for group in given if isinstance(group, dict)]
    groups = groups if len(groups) == len(given) else [{"params": given}]
    for pair in (pair for group in groups for pair in group["params"]):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Tensor)):
            raise TypeError(
                "Muon needs the names of parameters, to tell embeddings and output heads from hidden matrices; got "
                f"{type(pair).__name__}. Give it the model, or model.named_parameters()."
            )
    return groups


def facts(model: nn.Module) -> tuple[dict[str, str], dict[str, Axes]]:
    """The parameters that are no hidden matrices, with the reason; and the dimension of the outputs of others.

    A parameter that several modules share has the name and the role that the first reason gives it.
    """
    names = {p: name for name, p in model.named_parameters()}
    known: dict[str, str] = {}
    axes: dict[str, Axes] = {}
    linear: list[str] = []
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight not in names:
            continue
        name = names[weight]
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            known[name] = "the weight of an embedding"
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            axes[name] = 1
        elif isinstance(module, nn.Linear):
            linear.append(name)
    if linear and not any(map(is_head, linear)):
        known.setdefault(linear[-1], "the last Linear: the output head")
    return known, axes
