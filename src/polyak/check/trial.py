"""What is done with an optimizer to measure it, as plain data: a driver of its framework runs it, and writes it as a script.

Everything that is known of an optimizer is known from trials. It is a black box: weights, gradients and a few changes go in,
and the weights after each step come out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Again = Literal["load", "copy", "pickle"]
Shown = Literal["weights", "gradients", "state", "compilations", "turns"]


@dataclass(frozen=True)
class Rows:
    """A sparse gradient: that of some rows; the others have none.

    Attributes:
        rows: Their numbers, each at most once.
        values: Theirs, of the shape (len(rows), *rest).
    """

    rows: Array
    values: Array


Gradient = Array | Rows | None
"""Of one parameter at one step. None where the parameter took no part, as `grad is None` in PyTorch."""


@dataclass(frozen=True)
class Group:
    """A parameter group, where the framework has them.

    Attributes:
        names: Its parameters.
        options: Its own options.
    """

    names: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Resume:
    """The optimizer is replaced in the middle: training goes on with another instance.

    Attributes:
        step: Before this step.
        how: "load": a new instance, into which the state is loaded that the old one saved, as the framework saves it on disk;
            "copy": a deep copy; "pickle": pickled and unpickled.
        order: Of the parameters in the new instance; None for the same order.
        unharmed: After the replacement, the old instance takes steps with other gradients, which must not reach the new one.
    """

    step: int
    how: Again = "load"
    order: tuple[str, ...] | None = None
    unharmed: bool = False


@dataclass(frozen=True)
class Trial:
    """Steps with given gradients from given weights.

    Attributes:
        weights: The first weights of each parameter, in the order in which the optimizer is given them. Their dtype is the
            parameters': float64, float32 or bfloat16.
        gradients: Of each step, those of each parameter. A parameter that is not named has None.
        options: Of the optimizer, over those that its subject has.
        implementation: One of the subject's implementations; "" for the one that people get.
        changes: Before a step (its number, from 0), options that get other values while the optimizer is in use.
        held: Whether the weights are put back to the first ones before each step: so a step is seen without what earlier steps
            did to the weights, and weight decay does not grow.
        resume: Where the optimizer is replaced.
        groups: Parameter groups; () for one of all parameters.
        strided: Whether the tensors are not contiguous.
        reused: Whether a gradient is written into the tensor of the step before, as where gradients are zeroed and not set to
            None. Where tensors are not written to, it changes nothing.
    """

    weights: Mapping[str, Array]
    gradients: Sequence[Mapping[str, Gradient]]
    options: Mapping[str, Any] = field(default_factory=dict)
    implementation: str = ""
    changes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    held: bool = False
    resume: Resume | None = None
    groups: tuple[Group, ...] = ()
    strided: bool = False
    reused: bool = False


@dataclass(frozen=True)
class Trajectory:
    """What came of a trial.

    Attributes:
        before: Of each parameter, the weights before each step: (steps, *shape).
        after: Of each parameter, the weights after each step: (steps, *shape). `before - after` are the steps taken.
        gradients: The gradients of the last step as the optimizer left them.
        state: The optimizer's arrays at the end, by parameter and slot, as far as it tells them apart; scalars too.
        compilations: How often a step was compiled, where that is known.
    """

    before: Mapping[str, Array]
    after: Mapping[str, Array]
    gradients: Mapping[str, Gradient]
    state: Mapping[str, Mapping[str, Array]]
    compilations: int | None = None

    def steps(self, name: str) -> Array:
        """The steps of a parameter, in float64: (steps, *shape). A step that lowers a weight is positive."""
        return self.before[name].astype(np.float64) - self.after[name].astype(np.float64)


class Refused(Exception):  # noqa: N818  (it says what the optimizer refused)
    """The optimizer, not Polyak, raised an error: in its constructor, in a step, on loading. `__cause__` is that error."""


class NotOffered(Refused):
    """The framework has no such thing, as JAX has no sparse gradients: nothing that is right or wrong with the optimizer."""


class Subject(Protocol):
    """An optimizer that is checked: a class or function of a framework, with options.

    Attributes:
        framework: "torch", "keras" or "jax".
        name: Where it is found, as "torch.optim:SGD"; of a factory, the name of the class that it makes.
        options: Those that were given.
        defaults: Every option that the constructor names, with the value that it has in this subject, given or default. Of a
            factory too, as far as the instance tells it.
        rate: The name of the option that is the learning rate: "lr", "learning_rate".
        implementations: What `Trial.implementation` may be: in torch "loop", "foreach", "fused", "capturable" as far as it has
            them, and "compiled", which is the usual one under torch.compile; in Keras "eager", "graph", "xla"; in JAX "jit",
            "eager".
        double: Whether it takes float64.
        closure: Whether its step asks for a closure that computes the loss: it may then take it more than once.
        documentation: The docstring of the class or function; "" where there is none.
        random: Whether it draws random numbers: then the order of parameters is no matter of right or wrong.
        unnamed: What a step asks parameter groups for that they do not have and that the constructor does not name.
    """

    framework: str
    name: str
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    rate: str | None
    implementations: tuple[str, ...]
    double: bool
    closure: bool
    documentation: str
    random: bool
    unnamed: tuple[str, ...]

    def run(self, trial: Trial) -> Trajectory:
        """What comes of a trial.

        Raises:
            Refused: The optimizer raised an error.
        """

    def together(self, first: Trial, second: Trial) -> tuple[Trajectory, Trajectory]:
        """What comes of two trials whose steps alternate, each with an instance of its own.

        Raises:
            Refused: The optimizer raised an error.
        """

    def script(self, *trials: Trial, shown: Shown = "weights") -> str:
        """Trials, one after the other, as a Python program of a few lines.

        Args:
            *trials: The trials; those that differ little share their lines.
            shown: What is printed after each step: the weights of all parameters, their gradients, their state, or beside the
                weights a word whenever the step is compiled. With "turns", the weights of two trials alone, and of both again
                where their steps alternate.
        """

    def scheduler(self) -> "Subject | None":
        """The subject whose changes of the learning rate are made by the framework's own scheduler; None where it has none."""

    def with_loss(self) -> "Subject | None":
        """The subject whose steps are given the loss, which it can do without; None where it has no such way."""
