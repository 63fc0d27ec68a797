"""A trial of a Keras optimizer as a program."""

from collections.abc import Iterable, Iterator

import numpy as np

from polyak.check.drivers.keras.backends import BACKEND
from polyak.check.drivers.scripts import indented, joined, numbers, variables, written
from polyak.check.trial import Array, Gradient, Resume, Rows, Trial

_TAKEN = (
    "Weights", "apply", "compiled", "copy", "first", "g", "grads", "jax", "keras", "model", "new", "old", "optimizer", "os",
    "params", "pickle", "saved", "state", "stateless", "step", "tf", "torch", "v", "value",
)  # fmt: skip


def program(trial: Trial, implementation: str, line: str, made: str) -> str:
    """See `polyak.check.trial.Subject.script`.

    Args:
        trial: What is done, without the changes that a schedule makes.
        implementation: How steps are taken.
        line: Imports the optimizer.
        made: An expression that makes it.
    """
    return "\n".join(_Program(trial, implementation, line, made).lines()) + "\n"


class _Program:
    """The parts of the program, with what all of them need."""

    def __init__(self, trial: Trial, implementation: str, line: str, made: str) -> None:
        self.trial, self.line, self.made = trial, line, made
        self.names = variables(trial.weights, _TAKEN)
        self.all = f"[{', '.join(self.names.values())}]"
        self.double = any(w.dtype == np.float64 for w in trial.weights.values())
        self.compiled = implementation != "eager"
        self.xla = implementation == "xla"
        self.again = trial.resume is not None
        self.in_model = trial.resume is not None and trial.resume.how != "load"
        # What the loop calls it all, where the parameters may be others later.
        self.params = "params" if self.compiled and self.again else self.all
        self.grads = "[g]" if len(self.names) == 1 else "list(grads)"
        if self.compiled and self.again:
            self.grads = f"[g for v in params for g, name in zip({self.grads}, {list(self.names)}) if name == v.name]"

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield from self._imports()
        yield ""
        if self.in_model and not self.line.startswith("from keras"):
            name = self.made.partition("(")[0]
            yield f"keras.saving.get_custom_objects()[{name}.__name__] = {name}"
        if self.double:
            yield 'keras.config.set_floatx("float64")'
            if BACKEND == "jax":
                yield 'jax.config.update("jax_enable_x64", True)'
        yield from self._begin()
        yield from self._loop()

    def _imports(self) -> Iterator[str]:
        trial = self.trial
        if self.in_model and trial.resume:
            yield f"import {trial.resume.how}"
        yield from ("import os", "", f'os.environ["KERAS_BACKEND"] = "{BACKEND}"')
        sparse = any(isinstance(g, Rows) for step in trial.gradients for g in step.values())
        if BACKEND == "jax" and (self.compiled or self.double):
            yield "import jax"
        yield "import keras"
        if BACKEND == "tensorflow" and (self.compiled or sparse):
            yield "import tensorflow as tf"
        if BACKEND == "torch":
            yield "import torch"
        yield self.line
        if self.in_model:
            yield "from polyak.check.drivers.keras.model import Weights"

    # What is made.

    def _begin(self) -> Iterator[str]:
        weights = self.trial.weights
        if self.in_model:
            shapes = {name: (list(w.shape), w.dtype.name) for name, w in weights.items()}
            yield f"model = Weights({shapes})"
            yield f"{self.all} = model.weights"
            yield from (f"{self.names[name]}.assign({self._tensor(w)})" for name, w in weights.items())
        else:
            for name, w in weights.items():
                given = numbers(w) if w.size else self._tensor(w)
                yield f"{self.names[name]} = keras.Variable({given}{self._dtype(w, 'dtype=')}, name={name!r})"
        if self.trial.held:
            yield f"first = [keras.ops.copy(v) for v in {self.all}]"
        yield from self._optimizer(self.names.values())
        if self.in_model:
            yield "model.compile(optimizer=optimizer, jit_compile=False)"
        yield from self._compiled()

    def _optimizer(self, order: Iterable[str]) -> Iterator[str]:
        yield f"optimizer = {self.made}"
        yield f"optimizer.build([{', '.join(order)}])"

    def _compiled(self) -> Iterator[str]:
        """The compiled step."""
        if not self.compiled:
            return
        if self.again:
            yield f"params = {self.all}"
        if BACKEND == "jax":
            yield "stateless = jax.jit(optimizer.stateless_apply)"
        elif self.again:  # in a function, so that it stays with its own optimizer
            yield from ("", "", "def compiled(optimizer, params):")
            yield f"    return tf.function(lambda grads: optimizer.apply(grads, params){self._ways()})"
            yield from ("", "", "apply = compiled(optimizer, params)")
        else:
            yield f"apply = tf.function(lambda grads: optimizer.apply(grads, {self.all}){self._ways()})"

    def _ways(self) -> str:
        return f", jit_compile={self.xla}, autograph=False"

    # Steps.

    def _loop(self) -> Iterator[str]:
        trial, resume = self.trial, self.trial.resume
        each = [self._gradients(name) for name in trial.weights]
        items, target = (each[0], "g") if len(each) == 1 else (f"zip({', '.join(each)})", "grads")
        numbered = bool(resume or trial.changes)
        yield f"for step, {target} in enumerate({items}):" if numbered else f"for {target} in {items}:"
        if resume and resume.step < len(trial.gradients):
            yield f"    if step == {resume.step}:"
            yield from indented(indented(self._replaced(resume)))
        if trial.held:
            yield from indented([f"for v, value in zip({self.all}, first):", "    v.assign(value)"])
        for at, new in trial.changes.items():
            yield f"    if step == {at}:"
            yield from (f"        optimizer.{name} = {written(value)}" for name, value in new.items())
        yield from indented(self._applied(("optimizer", self.params, "stateless"), self.grads))
        if resume and resume.unharmed and resume.step < len(trial.gradients):
            yield f"    if step >= {resume.step}:"
            missing = any(step.get(name) is None for step in trial.gradients for name in trial.weights)
            other = f"[{'None if g is None else ' if missing else ''}1 - 3 * g for g in {self.grads}]"
            yield from indented(indented(self._applied(("old[0]", "old[1]", "old[2]"), other)))
        yield f"    print({', '.join(f'keras.ops.convert_to_numpy({v}).tolist()' for v in self.names.values())})"
        if resume and resume.step == len(trial.gradients):
            yield from self._replaced(resume)

    def _applied(self, names: tuple[str, str, str], grads: str) -> Iterator[str]:
        """A step of an optimizer: it, its parameters, and the compiled function."""
        optimizer, params, stateless = names
        if self.compiled and BACKEND == "jax":
            own = f"{optimizer}.variables"
            yield f"new, state = {stateless}([v.value for v in {own}], {grads}, [v.value for v in {params}])"
            yield f"for v, value in zip([*{params}, *{own}], [*new, *state]):"
            yield "    v.assign(value)"
        elif self.compiled:
            yield f"{'apply' if optimizer == 'optimizer' else stateless}({grads})"
        elif BACKEND == "torch":
            yield from ("with torch.no_grad():", f"    {optimizer}.apply({grads}, {params})")
        else:
            yield f"{optimizer}.apply({grads}, {params})"

    def _gradients(self, name: str) -> str:
        """Those of a parameter at all steps: one tensor, or a list where some are missing or sparse."""
        given = [step.get(name) for step in self.trial.gradients]
        dense = [g for g in given if isinstance(g, np.ndarray)]
        if len(dense) == len(given):
            return self._tensor(np.stack(dense))
        return joined(self._gradient(g, self.trial.weights[name]) for g in given)

    def _gradient(self, given: Gradient, w: Array) -> str:
        if isinstance(given, Rows):
            return f"tf.IndexedSlices({self._tensor(given.values)}, tf.constant({given.rows.tolist()}), {list(w.shape)})"
        return "None" if given is None else self._tensor(given)

    def _tensor(self, array: Array) -> str:
        if array.size == 0:
            return f"keras.ops.zeros({array.shape}{self._dtype(array)})"
        return f"keras.ops.convert_to_tensor({numbers(array)}{self._dtype(array)})"

    def _dtype(self, array: Array, keyword: str = "") -> str:
        return "" if array.dtype == np.float32 and not self.double else f", {keyword}{array.dtype.name!r}"

    # Another instance.

    def _replaced(self, resume: Resume) -> Iterator[str]:
        if resume.unharmed:
            step = {"jax": ", stateless"}.get(BACKEND, ", apply") if self.compiled else ""
            yield f"old = optimizer, {self.params}{step}"
        if resume.how == "load":
            yield "saved = {}"
            yield "optimizer.save_own_variables(saved)"
            again = "keras.Variable(keras.ops.copy(v), dtype=v.dtype, name=v.name)"
            yield f"{self.all} = [{again} for v in {self.all}]"
            order = [self.names[name] for name in resume.order or self.names]
            yield from self._optimizer(order)
            yield "optimizer.load_own_variables(saved)"
        else:
            order = list(self.names.values())
            yield f"model = {'copy.deepcopy(model)' if resume.how == 'copy' else 'pickle.loads(pickle.dumps(model))'}"
            yield f"{self.all}, optimizer = model.weights, model.optimizer"
        if self.compiled:
            yield f"params = [{', '.join(order)}]"
            yield (
                "stateless = jax.jit(optimizer.stateless_apply)" if BACKEND == "jax" else "apply = compiled(optimizer, params)"
            )
