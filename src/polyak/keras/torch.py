"""The update on PyTorch: the compiled kernel for tensors in host memory, torch operations for all others."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope

from polyak.keras import measures, values
from polyak.keras.values import Numbers, Plan
from polyak.torch.matrices import default_product_dtype
from polyak.torch.tensors import Group
from polyak.update import Update, clip_scale


def dense(grads: Iterable[Any]) -> list[Any]:
    """The gradients: those of Keras layers on PyTorch are dense."""
    return list(grads)


def one_by_one() -> bool:
    """Whether the base class must update variable by variable."""
    return False


def on_host() -> bool:
    """Whether the values of variables can be read: they are not those of a stateless scope."""
    return not in_stateless_scope()


def branches() -> bool:
    """Whether `values.new_values` may contain branches: not here, where it serves for tensors on devices."""
    return False


def product_dtype(variable: Any) -> str | None:
    """The dtype in which matrices of float32 are multiplied: bfloat16 where it is faster, else None, for their own."""
    dtype = default_product_dtype(torch.float32, variable.value.device)
    return "bfloat16" if dtype == torch.bfloat16 else None


class Step(values.Step):
    """The update of all variables."""

    def __init__(self, plan: Any, variables: Any, slots: Any, constants: Any, counts: Any) -> None:
        super().__init__(plan, variables, slots, constants, counts)
        keys = zip(plan.updates, plan.groups, strict=True)
        self._tensors = {key: Group(key[0]) for key in keys if not key[0].rule.whole}

    @torch.no_grad()
    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Sequence[Numbers], step: Any) -> None:
        """See the base class."""
        plan = self._plan.of(indices)
        if in_stateless_scope():  # the values are the caller's, and not to be written to
            self._assign(plan, grads, varying, step)
        elif self._looks(plan) and any(g.device.type != "cpu" for g in grads):
            self._assign(plan, grads, varying, step)  # so that nothing waits for the device
        else:
            self._write(plan, grads, varying, step)

    @torch.no_grad()
    def record(
        self,
        indices: tuple[int, ...],
        period: int,
        buffers: Any,
        raw: Any,
        grads: Any,  # noqa: ARG002  (the update has them)
        varying: Sequence[Numbers],
        step: Any,
    ) -> Callable[[], None] | None:
        """See the base class. The update is made in place, so that of what was before it there are copies."""
        if not measures.is_due(step.value, period):
            return None
        plan, targets = self._plan.of(indices), [self._targets[i] for i in indices]
        weights = [w.value.detach().clone() for w, _ in targets]
        velocities = [
            measures.velocity(u.rule, tuple(s.value for s in ss)) for u, (_, ss) in zip(plan.updates, targets, strict=True)
        ]

        @torch.no_grad()
        def write() -> None:
            rows = torch.full(tuple(buffers.measures.shape[1:]), measures.NONE, device=buffers.measures.value.device)
            rows[list(indices)] = _measured(raw, velocities, weights, [w.value.detach() for w, _ in targets])
            new = measures.written(
                measures.Buffers(*(b.value for b in buffers)), period, rows, self.numbers(varying), step.value
            )
            for b, b_new in zip(buffers, new, strict=True):
                b.assign(b_new)

        return write

    @staticmethod
    def _looks(plan: Plan) -> bool:
        """Whether anything of the gradients as a whole has to be known before a weight can change."""
        return plan.max_norm is not None or plan.guarded or any(update.per_tensor for update in plan.updates)

    def _write(self, plan: Plan, grads: Sequence[Any], varying: Sequence[Numbers], step: Any) -> None:
        """Update in place, by the compiled kernel where it can."""
        numbers = self.numbers([{name: _scalar(value) for name, value in now.items()} for now in varying])
        members: dict[tuple[Update, int], list[tuple[Any, Any]]] = defaultdict(list)
        for i, update, group, g in zip(plan.indices, plan.updates, plan.groups, grads, strict=True):
            members[update, group].append((self._targets[i], g))
        work = []
        for key, pairs in members.items():
            weights = [w.value for (w, _), _ in pairs]
            slots = [[ss[k].value for (_, ss), _ in pairs] for k in range(len(key[0].rule.slots))]
            own = [g for _, g in pairs]
            tensors = (
                _Whole(plan, key[0], weights, own, slots) if key[0].rule.whole else self._tensors[key].read(weights, own, slots)
            )
            work.append((tensors, numbers[key[1]]))
        if plan.max_norm is not None or plan.guarded:
            squares = math.fsum(square for tensors, _ in work for square in tensors.sum_of_squares().values())
            # The squares tell whether all gradients are finite without another look at them, unless one has overflowed.
            if plan.guarded and not math.isfinite(squares) and self._skipped(plan, grads, step):
                return
            scale = clip_scale(math.sqrt(squares), plan.max_norm or math.inf)
            work = [(tensors, {**h, "scale": scale}) for tensors, h in work]
        for tensors, h in work:
            tensors.apply(h)

    def _skipped(self, plan: Plan, grads: Sequence[Any], step: Any) -> bool:
        """Whether a gradient is not finite, so that the step is left out. It is counted."""
        bad = torch.stack([~g.isfinite().all() for g in grads])
        if not bad.any():
            return False
        self.store(plan.of(()), [], self._counted(plan, bad, step))
        return True

    def _assign(self, plan: Plan, grads: Sequence[Any], varying: Sequence[Numbers], step: Any) -> None:
        """Compute new values and assign them."""
        targets = [self._targets[i] for i in plan.indices]
        slots = [[s.value for s in ss] for _, ss in targets]
        results, bad = values.new_values(plan, grads, [w.value for w, _ in targets], slots, self.numbers(varying))
        self.store(plan, results, [] if bad is None else self._counted(plan, bad, step))

    def _counted(self, plan: Plan, bad: Any, step: Any) -> Any:
        return values.counted(plan, [c.value for c in self._counts], bad, step)


class _Whole:
    """Tensors for a rule that needs whole ones, which no kernel computes; otherwise as `polyak.torch.tensors.Step`."""

    def __init__(self, plan: Plan, update: Update, weights: Any, gradients: Any, slots: Any) -> None:
        self._plan = plan
        self._update = update
        self._rows = gradients, weights, list(zip(*slots, strict=True))
        self._together = values.together([update] * len(weights), [0] * len(weights), weights)

    def sum_of_squares(self) -> dict[None, float]:
        return {None: math.fsum(torch.linalg.vector_norm(g, dtype=torch.float64).item() ** 2 for g in self._rows[0])}

    def apply(self, h: Numbers) -> None:
        for places in self._together:
            gradients, weights, slots = ([row[i] for i in places] for row in self._rows)
            new = values.new_values_of_several(self._plan, self._update, h, gradients, weights, slots)
            for w, own, (w_new, own_new) in zip(weights, slots, new, strict=True):
                for tensor, x in zip((w, *own), (w_new, *own_new), strict=True):
                    tensor.copy_(x)


def _scalar(value: Any) -> Any:
    """A hyperparameter as a number, or, where to read it would wait for a device, as the tensor that it is."""
    tensor = ops.convert_to_tensor(value)
    return tensor.item() if tensor.device.type == "cpu" else tensor


def _measured(raw: Any, velocities: Any, weights: Any, new: Any) -> Any:
    """`measures.MEASURES` of variables, from what was before the step and the new weights; all as sums in one pass."""

    def flat(x: Any, like: Any) -> Any:
        return x.to(getattr(torch, values.compute_dtype(like.dtype))).flatten()

    rows = []
    for g, v, w, w_new in zip(raw, velocities, weights, new, strict=True):
        g, w, w_new = (flat(x, w) for x in (g, w, w_new))
        v, s = None if v is None else v.flatten(), w - w_new
        none = torch.tensor(measures.NONE, device=g.device)
        norms = [none if x is None else torch.linalg.vector_norm(x) for x in (g, v, s, w)]
        products = [none if x is None else torch.vdot(g, x).real for x in (v, s)]
        rows.append(torch.stack([x.to(torch.float32) for x in norms + products]))
    return torch.stack(rows)
