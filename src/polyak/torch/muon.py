"""Muon in PyTorch."""

import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polyak.methods import MUON_METHOD
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import Scale, shape_scale
from polyak.rules.orthogonal import Polynomial
from polyak.rules.roles import Axes, Report, Role, assign
from polyak.torch.guard import Work
from polyak.torch.loading import matched
from polyak.torch.matrices import How, MatrixGroup
from polyak.torch.modules import Named, facts, named_groups
from polyak.torch.optimizer import Optimizer
from polyak.torch.others import Factory, carry_out, look, made, planned, share_guard
from polyak.torch.peers import PEERS
from polyak.update import Update


class Muon(Optimizer):
    """Momentum whose step is, for each weight matrix, the nearest orthogonal matrix; another optimizer for what is no matrix.

    With the gradient G of the loss with respect to a weight W, and a velocity V that starts at 0, each step is

        V = V + (1 - momentum) * (G - V)
        W = W - lr * scale * orthogonalise((1 - momentum) * G + momentum * V)        without nesterov: orthogonalise(V)

    See `polyak.rules.muon` for the method and `polyak.rules.orthogonal` for the polynomials. What is an embedding and what an
    output head is told from the modules of a model, or else from names; `report()` says what was decided. The parameters of
    the other optimizer are among the `param_groups` and in the `state_dict` of this one, after its own, so that schedulers and
    checkpoints serve both.

    Args:
        params: The model itself, or named parameters, or dicts with named parameters as "params" and options of their own: lr,
            momentum, nesterov, weight_decay, polynomial, steps, scale, maximize, cautious and cautious_decay, for the matrices
            among them. DTensors are gathered for the products of matrices; each process updates its shards.
        lr: The learning rate, >= 0; a number or a tensor without dimensions.
        momentum: In [0, 1): how much of the velocity survives a step.
        nesterov: Look ahead by a step, as above.
        weight_decay: A coefficient >= 0: lr * weight_decay * W is taken from W beside the step, decoupled as in all peers.
            The scale has no part in it. The other optimizer has its own.
        polynomial: "polar_express", or "quintic" as in torch.optim.Muon.
        steps: How many polynomials are taken.
        scale: "spectral" is sqrt(max(1, rows / cols)), torch.optim.Muon's "original"; "match_rms_adamw" is
            0.2 sqrt(max(rows, cols)), with which learning rates and decays of AdamW serve.
        roles: "orthogonal" or "other" by patterns of names (as in `fnmatch`); the first that fits decides. What no pattern
            fits is orthogonal if it has two dimensions or more and is neither an embedding nor an output head.
        split: How many matrices a parameter holds along its outputs, by patterns: {"*.qkv.weight": 3}.
        output_axis: The dimension of a parameter's outputs, by patterns. It is 0, and 1 in transposed convolutions, which a
            model tells. Kernels have outputs x all the rest as their matrix.
        others: Makes the optimizer of the other parameters from a list of their names and tensors. Not called if there are
            none. None is heavy ball, with lr=0.01 and momentum=0.9.
        max_norm: As in `Momentum`, of the gradients of all parameters, the others too. An optimizer of torch as `others` is
            given gradients that are scaled, in place of those that stay as they are.
        maximize: Go up the gradient instead of down. The other optimizer has its own, which must be the same.
        cautious, cautious_decay: As in `Momentum`, for the matrices.
        finite: As in `Momentum`, for the gradients of all parameters: a step is taken with all of them or not at all.
        product_dtype: Of the products of matrices. None: bfloat16 on GPUs that have it and on processors with AMX, where it
            is faster, else float32; float64 for weights of float64. Velocity and weights keep their own dtype.

    Attributes:
        others: The optimizer of the other parameters, or None.
        grad_norm: The norm of all gradients together at the last step, before it was limited; None without `max_norm`.
        skipped: How many steps were left out.

    Raises:
        ValueError: A number out of its range, a pattern that decides nothing, no parameter to orthogonalise, or a guard that
            was given to `others`.
        TypeError: Parameters without names, or an argument of another type.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = Muon(model, lr=0.02, others=partial(Momentum, lr=0.1))
        >>> print(optimizer.report())
        parameter  shape  role        matrices  scale  why
        0.weight   8 x 4  orthogonal  8 x 4     1.414  a matrix
        0.bias     8      other                        fewer than two dimensions
        2.weight   2 x 8  other                        the last Linear: the output head
        2.bias     2      other                        fewer than two dimensions
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = MUON_METHOD
    _decay = "decoupled"
    others: torch.optim.Optimizer | None = None

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        *,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        polynomial: Polynomial = "polar_express",
        steps: int = 5,
        scale: Scale = "spectral",
        roles: Mapping[str, Role] | None = None,
        split: Mapping[str, int] | None = None,
        output_axis: Mapping[str, Axes] | None = None,
        others: Factory | None = None,
        max_norm: float | None = None,
        maximize: bool = False,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Literal["error", "skip", "off"] = "off",
        product_dtype: torch.dtype | None = None,
    ) -> None:
        known, axes = facts(params) if isinstance(params, nn.Module) else ({}, {})
        groups = named_groups(params)
        named = dict(pair for group in groups for pair in group["params"])
        self._assigned = assign(
            {name: tuple(p.shape) for name, p in named.items()},
            known=known,
            axes=axes,
            roles=roles or {},
            split=split or {},
            output_axis=output_axis or {},
        )
        self.product_dtype = product_dtype
        own, rest = self._divided(groups)
        options = {"nesterov": nesterov, "polynomial": polynomial, "steps": steps, "scale": scale}
        super().__init__(
            own,
            lr,
            {"momentum": momentum, **options, "role": "orthogonal"},
            weight_decay=weight_decay,
            max_norm=max_norm,
            maximize=maximize,
            cautious=cautious,
            cautious_decay=cautious_decay,
            finite=finite,
        )
        if rest:
            self.others = made(others, rest, maximize=maximize)
            self._adopt()

    def _divided(self, groups: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Named]:
        """The groups with their matrices alone, and all other parameters."""
        own, rest = [], []
        for group in groups:
            matrices = [(name, p) for name, p in group["params"] if self._assigned[name].matrices]
            rest += [(name, p) for name, p in group["params"] if not self._assigned[name].matrices]
            if matrices:
                own.append({**group, "params": matrices})
            elif options := sorted(group.keys() - {"params"}):
                raise ValueError(
                    f"A group has options ({', '.join(options)}) but no matrix that they would be for: its parameters are "
                    f"{', '.join(name for name, _ in group['params'])}. Give those of other parameters to `others`."
                )
        return own, rest

    # Two optimizers in one.

    def _own_groups(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group.get("role") == "orthogonal"]

    def _adopt(self) -> None:
        """Have the other one's groups and state among these, now and when it is given others."""
        this = weakref.ref(self)

        def join(others: Any) -> None:
            if (muon := this()) is not None and muon.others is others:
                muon._join()

        self.others.register_load_state_dict_post_hook(join)  # type: ignore[union-attr]  # who calls this has another one
        self._join()

    def _join(self) -> None:
        own = self._own_groups()
        matrices = {p for group in own for p in group["params"]}
        self.state = defaultdict(dict, {p: state for p, state in self.state.items() if p in matrices})
        self.param_groups = own
        if self.others is not None:
            share_guard(self.others, own[0])
            self.param_groups = [*own, *self.others.param_groups]
            self.state.update(self.others.state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not for users: which optimizer a parameter goes to is decided for all of them together, when this one is made."""
        if hasattr(self, "_guard"):
            raise ValueError(
                "Muon decides about all parameters at once, so that none can be added later. Make a new one with them and load "
                "the state of this one into it, or give them another optimizer."
            )
        for name, p in param_group["params"]:
            if not p.is_floating_point():
                raise ValueError(
                    f"Muon orthogonalises real matrices; {name!r} is of dtype {p.dtype}. Give it another rule: "
                    f'roles={{{name!r}: "other"}}.'
                )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        # Of options that are given; one that a scheduler brings to 0 for a while is no mistake.
        heavy_ball(momentum=group["momentum"] != 0, nesterov=group["nesterov"])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles."""
        own = {name: getattr(self, name) for name in ("others", "product_dtype", "_assigned")}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of copies, pickles and loaded states."""
        super().__setstate__(state)
        if state.get("others") is not None:
            self._adopt()

    def report(self) -> Report:
        """Every parameter with its role, the reason for it, the shape of its matrices and its present scale."""
        scales = {name: group["scale"] for group in self._own_groups() for name in group["param_names"]}
        each = self._assigned.values()
        return Report(tuple(replace(p, scale=shape_scale(scales[p.name], p.matrices)) if p.matrices else p for p in each))

    # The step.

    def _step(self) -> None:
        self._look_for_changes()
        if self.others:
            look(self.others, self._own_groups())
        own = self._plan()
        rest = planned(self.others) if self.others else []
        verdict = self._judged([*own, *rest])
        if verdict is None:
            return
        self._apply(own, verdict)
        if self.others:
            carry_out(self.others, rest, verdict)
            self.state.update(self.others.state)

    def _choose(self, group: dict[str, Any]) -> tuple[Update, dict[str, float]]:
        if group["decay"] != "decoupled":
            raise ValueError(f'The decay of Muon is "decoupled", which a group cannot change; got decay={group["decay"]!r}.')
        return super()._choose(group)

    def _read(self, i: int, group: dict[str, Any]) -> Work | None:
        self._running[i].group.how = How(group["polynomial"], group["steps"], group["scale"], self.product_dtype)
        return super()._read(i, group)

    def _tensors(self, group: dict[str, Any], update: Update) -> MatrixGroup:
        names: Any = group["param_names"]
        matrices: Any = {p: self._assigned[name].matrices for name, p in zip(names, group["params"], strict=True)}
        return MatrixGroup(update, matrices)  # none is None

    # Loading.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of this optimizer returned, with the state of the other one in it; or of torch.optim.Muon.

        The saved options take the place of this optimizer's, as in every torch optimizer. The state of matrices is found by
        name, whatever the order, or by position where the saved state has no names. No velocity changes its dtype. A state of
        torch.optim.Muon is that of the matrices alone: the other optimizer stays as it is, and loads its own by
        `optimizer.others.load_state_dict`.

        Args:
            state_dict: It is copied, not kept.

        Raises:
            ValueError: The parameters, their roles, their shapes or the options do not fit.
        """
        super().load_state_dict(state_dict)

    def _take(self, state_dict: dict[str, Any]) -> None:
        saved = state_dict["param_groups"]
        own = [group for group in saved if group.get("role") == "orthogonal"]
        rest = [group for group in saved if group.get("role") != "orthogonal"]
        alone = bool(rest) and all(map(PEERS[MUON_METHOD].has, saved))  # a state of torch.optim.Muon
        if alone:
            own, rest = rest, own
        elif not own or bool(rest) != (self.others is not None):
            mine = len(self._own_groups())
            raise ValueError(
                f"The saved state has {len(own)} groups of matrices and {len(rest)} others, this optimizer has {mine} and "
                f"{len(self.param_groups) - mine}. A state of polyak.torch.Muon with the same roles can be loaded, or one of "
                "torch.optim.Muon for the matrices."
            )
        state, groups = matched({**state_dict, "param_groups": own}, self._own_groups(), self._method)
        for group in groups:
            self._choose(group)
        if self.others is not None and not alone:
            keys = {key for group in rest for key in group["params"]}
            theirs = {key: value for key, value in state_dict["state"].items() if key in keys}
            self.others.load_state_dict({"state": theirs, "param_groups": rest})
        self.__setstate__({"state": defaultdict(dict, state), "param_groups": groups})
        self._join()
