"""SGD as a transformation of optax, as it should be, and broken ones."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .cases import Case, broken

CASES: list[Case] = []
transformation = partial(broken, CASES, learning_rate=0.1, momentum=0.9)


class State(NamedTuple):
    """A velocity for each parameter, and the number of steps."""

    count: Any
    velocity: Any


class Parts:
    """v = m v + g; w -= lr v, or lr (m v + g) with the new v for Nesterov's; decoupled decay beside it."""

    def rate(self, learning_rate: Any, count: Any) -> Any:
        return learning_rate(count) if callable(learning_rate) else learning_rate

    def gradients(self, grads: Any, params: Any, weight_decay: Any) -> Any:  # noqa: ARG002
        return grads

    def remember(self, v: Any, grads: Any, momentum: Any) -> Any:
        return jax.tree.map(lambda v, g: momentum * v + g, v, grads)

    def direction(self, v: Any, grads: Any, momentum: Any, nesterov: bool) -> Any:
        return jax.tree.map(lambda v, g: momentum * v + g, v, grads) if nesterov else v

    def step(self, d: Any, w: Any, lr: Any, weight_decay: Any) -> Any:
        return -lr * d - lr * weight_decay * w

    def first(self) -> Any:
        return jnp.zeros((), jnp.int32)

    def counted(self, count: Any) -> Any:
        return count + 1

    def transformation(self, learning_rate: Any, momentum: Any, nesterov: bool, weight_decay: Any) -> Any:
        def init(params: Any) -> State:
            return State(self.first(), jax.tree.map(jnp.zeros_like, params))

        def update(grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
            lr = self.rate(learning_rate, state.count)
            grads = self.gradients(grads, params, weight_decay)
            v = self.remember(state.velocity, grads, momentum)
            d = self.direction(v, grads, momentum, nesterov)
            steps = jax.tree.map(lambda d, w: self.step(d, w, lr, weight_decay).astype(d.dtype), d, params)
            return steps, State(self.counted(state.count), v)

        return optax.GradientTransformation(init, update)


def made_of(parts: type[Parts]) -> Any:
    """The function that people call."""

    def function(
        learning_rate: optax.ScalarOrSchedule = 0.1, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
    ) -> optax.GradientTransformation:
        """Stochastic gradient descent with momentum.

        Args:
            learning_rate: A number or a schedule.
            momentum: The factor of the velocity.
            nesterov: Whether the momentum is Nesterov's.
            weight_decay: Decoupled from the gradient.
        """
        return parts().transformation(learning_rate, momentum, nesterov, weight_decay)

    function.__name__ = function.__qualname__ = parts.__name__
    return function


@made_of
class SGD(Parts):
    """As it should be."""


@transformation("momentum-differs", also=("option-without-effect", "option-effect", "change-ignored"))
@made_of
class MomentumWithoutEffect(Parts):
    def direction(self, v: Any, grads: Any, momentum: Any, nesterov: bool) -> Any:  # noqa: ARG002
        return grads


@transformation("nesterov-differs", also=("option-without-effect", "option-effect"), nesterov=True)
@made_of
class NesterovIgnored(Parts):
    def direction(self, v: Any, grads: Any, momentum: Any, nesterov: bool) -> Any:  # noqa: ARG002
        return v


@transformation("ascent", also=("learning-rate-differs", "option-effect"))
@made_of
class Ascent(Parts):
    """The sign that optax.apply_updates leaves to the transformation."""

    def step(self, d: Any, w: Any, lr: Any, weight_decay: Any) -> Any:
        return lr * d - lr * weight_decay * w


@transformation("decay-kind", also=("option-effect",), weight_decay=0.1)
@made_of
class DecayInTheGradient(Parts):
    def gradients(self, grads: Any, params: Any, weight_decay: Any) -> Any:
        return jax.tree.map(lambda g, w: g + weight_decay * w, grads, params)

    def step(self, d: Any, w: Any, lr: Any, weight_decay: Any) -> Any:  # noqa: ARG002
        return -lr * d


@transformation("decay-amount", also=("option-effect", "decay-kind"), weight_decay=0.1)
@made_of
class DecayTimesTheRateTwice(Parts):
    def step(self, d: Any, w: Any, lr: Any, weight_decay: Any) -> Any:
        return -lr * (d + lr * weight_decay * w)


@transformation("schedule-ignored", also=("change-ignored",))
@made_of
class RateOfTheFirstStep(Parts):
    def rate(self, learning_rate: Any, count: Any) -> Any:
        return super().rate(learning_rate, jnp.zeros_like(count))


@transformation("parameters-mixed", also=("poison-spreads", "shape-fails"))
@made_of
class MeanOfAllLeavesInEach(Parts):
    def remember(self, v: Any, grads: Any, momentum: Any) -> Any:
        mean = sum(g.sum() for g in jax.tree.leaves(grads)) / max(1, sum(g.size for g in jax.tree.leaves(grads)))
        return jax.tree.map(lambda v, g: momentum * v + g + 0.1 * mean.astype(g.dtype), v, grads)


@transformation("poison-spreads", also=("scale-fails",))
@made_of
class ClippedByANorm(Parts):
    def gradients(self, grads: Any, params: Any, weight_decay: Any) -> Any:  # noqa: ARG002
        scale = jnp.minimum(1.0, 1e30 / optax.global_norm(grads))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)


@transformation("shape-fails")
@made_of
class NoElementsFail(Parts):
    def gradients(self, grads: Any, params: Any, weight_decay: Any) -> Any:  # noqa: ARG002
        return jax.tree.map(lambda g: jnp.where(jnp.abs(g).max() == jnp.inf, 0, g), grads)


@jax.tree_util.register_static
class Count:
    """A number that is part of the compiled step."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Count) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


@transformation("recompiles", also=("resume-differs",))
@made_of
class CountedInPython(Parts):
    def rate(self, learning_rate: Any, count: Any) -> Any:
        return super().rate(learning_rate, count.value)

    def first(self) -> Any:
        return Count(0)

    def counted(self, count: Any) -> Any:
        return Count(count.value + 1)


@transformation("implementations-differ", also=("first-step-differs", "instances-share-state", "resume-differs"))
@made_of
class FirstCallInPython(Parts):
    """A first step of half the length, in a variable of Python: a compiled step is the first one for ever."""

    def __init__(self) -> None:
        self.calls = 0

    def rate(self, learning_rate: Any, count: Any) -> Any:
        self.calls += 1
        return super().rate(learning_rate, count) * (0.5 if self.calls == 1 else 1.0)
