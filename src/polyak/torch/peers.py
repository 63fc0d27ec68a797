"""States of torch's own optimizers: which of them can be loaded, and what their options are here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from polyak.methods import MOMENTUM, MUON_METHOD, Method
from polyak.rules.orthogonal import coefficients

Options = dict[str, Any]  # of a parameter group


class Peer(NamedTuple):
    """An optimizer of torch whose state an optimizer here goes on with.

    Attributes:
        name: Its name.
        known_by: The options by which a group of it is known.
        absent: Those that it doesn't have and a group here does.
        dropped: Those of it that a group here doesn't have.
        options: From the options of this optimizer and the saved ones, those that are named otherwise here.
    """

    name: str
    known_by: frozenset[str]
    absent: str
    dropped: tuple[str, ...]
    options: Callable[[Options, Options], Options]

    def has(self, group: Mapping[str, Any]) -> bool:
        """Whether a saved group is one of it."""
        return group.keys() >= self.known_by and self.absent not in group


def _of_sgd(mine: Options, saved: Options) -> Options:
    """Those of torch.optim.SGD, which has one kind of velocity and one of decay."""
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
    return {"decay": "coupled" if saved["weight_decay"] else mine["decay"]}


# Below this norm, which is its default, torch.optim.Muon makes shorter steps; here no norm is too small.
_EPS = 1e-7

_SCALES = {None: "spectral", "original": "spectral", "match_rms_adamw": "match_rms_adamw"}


def _of_muon(mine: Options, saved: Options) -> Options:  # noqa: ARG001  (see Peer)
    """Those of torch.optim.Muon, whose velocity is the same average."""
    checks = {
        "ns_coefficients": (
            tuple(saved["ns_coefficients"]) == coefficients("quintic", 1)[0],
            'the polynomials here are polynomial="quintic", which has its default, and "polar_express"',
        ),
        "eps": (saved["eps"] <= _EPS, f"matrices of any norm are made orthogonal here, as nearly so with its default {_EPS}"),
        "adjust_lr_fn": (saved["adjust_lr_fn"] in _SCALES, f"the like of {', '.join(map(repr, _SCALES))} is known here"),
        "ns_steps": (saved["ns_steps"] >= 1, "there is at least one step here"),
    }
    if wrong := [f"{name}={saved[name]!r}: {why}" for name, (fits, why) in checks.items() if not fits]:
        raise ValueError("The saved state is of a torch.optim.Muon that cannot go on here:\n  " + "\n  ".join(wrong))
    return {"polynomial": "quintic", "steps": saved["ns_steps"], "scale": _SCALES[saved["adjust_lr_fn"]]}


# What of SGD is dropped says how it computes, not what.
PEERS: dict[Method, Peer] = {
    MOMENTUM: Peer(
        "torch.optim.SGD",
        frozenset({"momentum", "dampening", "nesterov"}),
        "velocity",
        ("foreach", "fused", "capturable", "differentiable"),
        _of_sgd,
    ),
    MUON_METHOD: Peer(
        "torch.optim.Muon",
        frozenset({"momentum", "nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"}),
        "polynomial",
        ("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"),
        _of_muon,
    ),
}
"""For each method that torch has too, its optimizer there."""
