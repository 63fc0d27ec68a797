"""Muon in PyTorch."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from polyak.arguments import check_decay, check_learning_rate, check_momentum
from polyak.methods import Method
from polyak.rules.descent import DESCENT
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import Matrices, Report, Role, Scale, assign, is_head, shape_scale
from polyak.rules.orthogonal import Polynomial, coefficients, orthogonalise
from polyak.torch.loading import key_of, matched
from polyak.torch.momentum import Momentum
from polyak.torch.tensors import Group
from polyak.torch.views import compute_dtype, is_sharded
from polyak.update import Update, pipeline

Named = list[tuple[str, Tensor]]

SLOT = key_of("velocity")

# Of the other parameters, unless the user gives another.
HEAVY_BALL = partial(Momentum, lr=0.01, momentum=0.9)

# Matrices of one shape are taken together up to this size, so that the room for a step does not grow with the model.
_BATCH_BYTES = 64 << 20


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
            momentum, nesterov, weight_decay, polynomial, steps and scale, for the matrices among them.
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
            none. By default heavy ball, with lr=0.01 and momentum=0.9.
        product_dtype: Of the products of matrices. None: bfloat16 on GPUs that have it and on processors with AMX, where it
            is faster, else float32; float64 for weights of float64. Velocity and weights keep their own dtype.

    Attributes:
        others: The optimizer of the other parameters, or None.

    Raises:
        ValueError: A number out of its range, a pattern that decides nothing, or no parameter to orthogonalise.
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
        output_axis: Mapping[str, int] | None = None,
        others: Callable[[Named], Optimizer] = HEAVY_BALL,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        known, axes = _facts(params) if isinstance(params, nn.Module) else ({}, {})
        groups = _groups(params)
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
        self.others: Optimizer | None = None
        own, rest = self._divided(groups)
        options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "polynomial": polynomial,
            "steps": steps,
            "scale": scale,
            "role": "orthogonal",
        }
        super().__init__(own, options)
        if rest:
            self.others = others(rest)
            self._join(self.param_groups, self.state)

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

    def _join(self, own: list[dict[str, Any]], state: dict[Tensor, Any]) -> None:
        """Make one list of groups and one state of this optimizer's and the other's. Both share the dicts."""
        self.param_groups, self.state = own, defaultdict(dict, state)
        if self.others is not None:
            self.param_groups = [*own, *self.others.param_groups]
            self.state.update(self.others.state)
            self.others.state = self.state

    def _own(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group.get("role") == "orthogonal"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not for users: which optimizer a parameter goes to is decided for all of them together, when this one is made."""
        if self.others is not None or self.state:
            raise ValueError(
                "Muon decides about all parameters at once, so that none can be added later. Make a new one with them and load "
                "the state of this one into it, or give them another optimizer."
            )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _choose(group)
        # Of options that are given; one that a scheduler brings to 0 for a while is no mistake.
        heavy_ball(momentum=group["momentum"] != 0, nesterov=group["nesterov"])
        for name, p in zip(group["param_names"], group["params"], strict=True):
            if not p.is_floating_point() or is_sharded(p):
                what = "one shard of a matrix" if is_sharded(p) else f"of dtype {p.dtype}"
                raise ValueError(
                    f"Muon orthogonalises whole real matrices; {name!r} is {what}. Give it another rule: "
                    f'roles={{{name!r}: "other"}}.'
                )

    def __getstate__(self) -> dict[str, Any]:
        """Of copies and pickles."""
        own = {name: getattr(self, name) for name in ("others", "product_dtype", "_assigned")}
        return super().__getstate__() | own

    def report(self) -> Report:
        """Every parameter with its role, the reason for it, the shape of its matrices and its present scale."""
        scales = {name: group["scale"] for group in self._own() for name in group["param_names"]}
        return Report(
            tuple(
                replace(p, scale=shape_scale(scales[p.name], p.matrices)) if p.matrices else p for p in self._assigned.values()
            )
        )

    # The step.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters by their gradients.

        Args:
            closure: Computes the loss and the gradients anew, and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():  # torch cannot trace the kernel
            torch.compiler.disable(self._step)()  # type: ignore[no-untyped-call]  # torch's, without types
        else:
            self._step()
        return loss

    @torch.no_grad()
    def _step(self) -> None:
        work = [(group, *_choose(group)) for group in self._own()]  # so that an error comes before any change
        for group, direction, apply, h in work:
            for matrices, params in self._batches(group):
                self._update(params, matrices, group, direction, apply, h)
        if self.others is not None:
            self.others.step()

    def _batches(self, group: dict[str, Any]) -> Iterable[tuple[Matrices, list[Tensor]]]:
        """The parameters that have gradients, those alike together."""
        alike: dict[Any, list[Tensor]] = defaultdict(list)
        for name, p in zip(group["param_names"], group["params"], strict=True):
            if p.grad is not None:
                alike[self._assigned[name].matrices, p.dtype, p.device].append(p)
        for (matrices, _, _), params in alike.items():
            count = max(1, _BATCH_BYTES // max(1, params[0].nbytes))
            for start in range(0, len(params), count):
                yield matrices, params[start : start + count]

    def _update(
        self,
        params: list[Tensor],
        matrices: Matrices,
        group: dict[str, Any],
        direction: Update,
        apply: Update,
        h: dict[str, float],
    ) -> None:
        """One step of parameters that are alike."""
        like = params[0]
        dtype = compute_dtype(like.dtype)
        # The rule moves weights of 0 against the step, with the learning rate -1: what it then has is the direction itself.
        directions = torch.zeros(len(params), *matrices.shape, dtype=dtype, device=like.device)
        velocities = [self._velocity(p) for p in params]
        gradients: Any = [p.grad for p in params]
        Group(direction).read(directions.unbind(), gradients, [velocities]).apply({**h, "learning_rate": -1.0})
        of = matrices.of(directions).to(self.product_dtype or _product_dtype(dtype, like.device))
        orthogonal = matrices.back(orthogonalise(of, group["polynomial"], group["steps"]))
        Group(apply).read(params, orthogonal.unbind(), []).apply({**h, "scale": shape_scale(group["scale"], matrices)})

    def _velocity(self, p: Tensor) -> Tensor:
        """The slot of a parameter, which begins at zero when it is first needed."""
        state = self.state[p]
        if SLOT not in state:
            state[SLOT] = torch.zeros_like(p, dtype=compute_dtype(p.dtype), requires_grad=False)
        slot: Tensor = state[SLOT]
        return slot

    # Loading.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of this optimizer returned, with the state of the other one in it.

        The saved options take the place of this optimizer's, as in every torch optimizer. The state of matrices is found by
        name, whatever the order. No velocity changes its dtype.

        Args:
            state_dict: It is copied, not kept.

        Raises:
            ValueError: The parameters, their roles, their shapes or the options do not fit.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved = state_dict["param_groups"]
        own, rest = ([group for group in saved if (group.get("role") == "orthogonal") is mine] for mine in (True, False))
        if not own or bool(rest) != (self.others is not None):
            mine = len(self._own())
            raise ValueError(
                f"The saved state has {len(own)} groups of matrices and {len(rest)} others, this optimizer has {mine} and "
                f"{len(self.param_groups) - mine}. A state of polyak.torch.Muon with the same roles can be loaded."
            )
        state, groups = matched({**state_dict, "param_groups": own}, self._own(), _METHOD)
        for group in groups:
            _choose(group)
        if self.others is not None:
            keys = {key for group in rest for key in group["params"]}
            theirs = {key: value for key, value in state_dict["state"].items() if key in keys}
            self.others.load_state_dict({"state": theirs, "param_groups": rest})
        self._join(groups, state)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)


_METHOD = Method(
    "Muon",
    lambda *, momentum, nesterov: heavy_ball(velocity="average", nesterov=nesterov),  # noqa: ARG005  (0 is a momentum too)
    varying={"momentum": check_momentum},
    options=("nesterov",),
)


def _choose(group: dict[str, Any]) -> tuple[Update, Update, dict[str, float]]:
    """The rules of the velocity and of the weight, and their numbers, for a group's options as they are now."""
    arguments = _METHOD.checked(group)
    coefficients(group["polynomial"], group["steps"])
    shape_scale(group["scale"], Matrices((1, 1)))
    weight_decay, decay = check_decay(group["weight_decay"], "decoupled" if group["weight_decay"] else None)
    h = {
        "learning_rate": check_learning_rate(group["lr"]),
        "momentum": arguments["momentum"],
        "weight_decay": weight_decay,
    }
    return pipeline(_METHOD.choose(**arguments)), pipeline(DESCENT, decay, scale=True), h


def _groups(params: Any) -> list[dict[str, Any]]:
    """The groups with lists of named parameters."""
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


def _facts(model: nn.Module) -> tuple[dict[str, str], dict[str, int]]:
    """What the modules tell: parameters that are no hidden matrices, with the reason; and the dimension of the outputs.

    A parameter that several modules share has the name and the role that the first reason gives it.
    """
    names = {p: name for name, p in model.named_parameters()}
    known: dict[str, str] = {}
    axes: dict[str, int] = {}
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


def _product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """In which dtype products of matrices are fast enough and exact enough."""
    if dtype == torch.float64:
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Without AMX, also where there are instructions for bfloat16, the products of float32 were twice as fast.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32
