"""The update on JAX: one XLA program that returns all new values."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope

from polyak.keras import measures, values
from polyak.keras.values import Numbers, Plan


# Inside a step that the user compiles, this is inlined; called from a plain loop, it is the compiled step.
@partial(jax.jit, static_argnums=0)
def _new_values(plan: Plan, grads: Any, weights: Any, slots: Any, numbers: Any, counts: Any, step: Any) -> Any:
    # Else XLA may add up the squares of a gradient in another order where it has another use too, as with a recorder.
    grads = jax.lax.optimization_barrier(grads)  # type: ignore[no-untyped-call]  # JAX has no types for it
    results, bad = values.new_values(plan, grads, weights, slots, numbers)
    return results, counts if bad is None else values.counted(plan, counts, bad, step)


@partial(jax.jit, static_argnums=(0, 1))
def _recorded(plan: Plan, period: int, buffers: Any, *of_step: Any) -> Any:
    due = measures.is_due(of_step[-1], period)
    return jax.lax.cond(due, lambda: measures.recorded(plan, period, buffers, *of_step), lambda: buffers)


def dense(grads: Iterable[Any]) -> list[Any]:
    """The gradients: on JAX those of embeddings are arrays already."""
    return list(grads)


def one_by_one() -> bool:
    """Whether the base class must update variable by variable."""
    return False


def on_host() -> bool:
    """Whether the values of variables can be read: this is no code that is being traced."""
    return not in_stateless_scope()


def branches() -> bool:
    """Whether a step is computed in host memory, where it may contain branches: see `values.Plan`."""
    return jax.default_backend() == "cpu"


def product_dtype(variable: Any) -> str | None:  # noqa: ARG001  (the same for all)
    """The dtype in which matrices of float32 are multiplied: bfloat16 on devices that have it, else None, for their own."""
    from polyak.jax.orthogonalised import default_product_dtype  # here, since it brings Optax

    return "bfloat16" if default_product_dtype(jnp.float32) == jnp.bfloat16 else None


class Step(values.Step):
    """The update of all variables, whose values may be those of a stateless scope."""

    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Sequence[Numbers], step: Any) -> None:
        """See the base class."""
        plan = self._plan.of(indices)
        targets = [self._targets[i] for i in indices]
        results, counts = _new_values(
            plan,
            list(grads),
            [w.value for w, _ in targets],
            [[s.value for s in slots] for _, slots in targets],
            self.numbers([{name: ops.convert_to_tensor(h) for name, h in now.items()} for now in varying]),
            [c.value for c in self._counts],
            ops.convert_to_tensor(step),
        )
        self.store(plan, results, counts)

    def record(
        self, indices: tuple[int, ...], period: int, buffers: Any, raw: Any, grads: Any, varying: Sequence[Numbers], step: Any
    ) -> None:
        """See the base class."""
        targets = [self._targets[i] for i in indices]
        new = _recorded(
            self._plan.of(indices),
            period,
            measures.Buffers(*(b.value for b in buffers)),
            list(raw),
            list(grads),
            [w.value for w, _ in targets],
            [[s.value for s in slots] for _, slots in targets],
            self.numbers([{name: ops.convert_to_tensor(h) for name, h in now.items()} for now in varying]),
            ops.convert_to_tensor(step),
        )
        for b, b_new in zip(buffers, new, strict=True):
            b.assign(b_new)
