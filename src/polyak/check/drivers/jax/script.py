"""A trial of a gradient transformation as a program."""

from collections.abc import Iterator, Mapping

import numpy as np

from polyak.check.drivers.jax.making import Plan
from polyak.check.drivers.scripts import indented, numbers, variables, written
from polyak.check.trial import Array, Resume, Trial

_TAKEN = (
    "OrderedDict",
    "copy",
    "first",
    "grads",
    "jax",
    "jnp",
    "made",
    "old",
    "optax",
    "optimizer",
    "params",
    "pickle",
    "saved",
    "state",
    "step",
    "take",
)


def program(trial: Trial, plan: Plan, *, compiled: bool, closure: bool) -> str:
    """See `polyak.check.trial.Subject.script`.

    Args:
        trial: What is done.
        plan: How the transformation is made.
        compiled: Whether the step is under `jax.jit`.
        closure: Whether `update` is given the loss.
    """
    return "\n".join(_Program(trial, plan, compiled, closure).lines()) + "\n"


class _Program:
    """The parts of the program, with what all of them need."""

    def __init__(self, trial: Trial, plan: Plan, compiled: bool, closure: bool) -> None:
        self.trial, self.plan, self.compiled, self.closure = trial, plan, compiled, closure
        self.double = any(w.dtype == np.float64 for w in trial.weights.values())
        self.names = variables(trial.weights, _TAKEN)
        self.called = compiled or closure or bool(trial.resume and trial.resume.unharmed)  # whether the step is a function
        # JAX sorts the keys of a dict.
        self.ordered = list(trial.weights) != sorted(trial.weights) or bool(trial.resume and trial.resume.order)

    def lines(self) -> Iterator[str]:
        """All of it."""
        trial, resume = self.trial, self.trial.resume
        imports, *made = self.plan.script()
        if resume and resume.how != "load":
            yield f"import {resume.how}"
        if self.ordered:
            yield "from collections import OrderedDict"
            yield ""
        yield from ("import jax", "import jax.numpy as jnp", "import optax", imports, "")
        if self.double:
            yield 'jax.config.update("jax_enable_x64", True)'
        yield from made
        yield f"params = {self._tree({name: self._array(w) for name, w in trial.weights.items()})}"
        if trial.held:
            yield "first = params"
        yield "state = optimizer.init(params)"
        if self.called:
            yield from self._function()
        yield from self._loop()

    def _tree(self, values: Mapping[str, str]) -> str:
        """A tree of the parameters."""
        items = f"{{{', '.join(f'{name!r}: {value}' for name, value in values.items())}}}"
        return f"OrderedDict({items})" if self.ordered else items

    def _array(self, array: Array) -> str:
        dtype = "" if array.dtype == np.float32 and not self.double else f", dtype=jnp.{array.dtype.name}"
        return f"jnp.array({numbers(array)}{dtype})" if array.size else f"jnp.zeros({array.shape}{dtype})"

    def _function(self) -> Iterator[str]:
        yield from ("", "")
        if self.compiled:
            yield "@jax.jit"
        yield "def take(params, state, grads):"
        extra = ""
        if self.closure:
            yield "    def loss(params):"
            yield "        return sum((params[name] * g).sum() for name, g in grads.items())"
            yield ""
            extra = ", value=loss(params), grad=grads, value_fn=loss"
        yield f"    updates, state = optimizer.update(grads, state, params{extra})"
        yield "    return optax.apply_updates(params, updates), state"
        yield from ("", "")

    def _loop(self) -> Iterator[str]:
        trial, resume, plan = self.trial, self.trial.resume, self.plan
        each = [self._array(np.stack([np.asarray(step[name]) for step in trial.gradients])) for name in trial.weights]
        names = ", ".join(self.names.values())
        items = f"zip({', '.join(each)})" if len(each) > 1 else each[0]
        numbered = bool(resume or plan.changes)
        target = f"({names})" if numbered and len(each) > 1 else names
        yield f"for step, {target} in enumerate({items}):" if numbered else f"for {target} in {items}:"
        if resume and resume.step < len(trial.gradients):
            yield f"    if step == {resume.step}:"
            yield from indented(indented(self._replaced(resume)))
        if trial.held:
            yield "    params = OrderedDict((name, first[name]) for name in params)" if self.ordered else "    params = first"
        for at, new in plan.changes.items():
            options = ", ".join(f"{name}={written(value)}" for name, value in new.items())
            yield f"    if step == {at}:"
            yield f"        state = optax.tree.set(state, {options})"
        yield f"    grads = {self._tree(self.names)}"
        if resume and resume.order:
            yield "    grads = OrderedDict((name, grads[name]) for name in params)"
        if self.called:
            yield "    params, state = take(params, state, grads)"
        else:
            yield "    updates, state = optimizer.update(grads, state, params)"
            yield "    params = optax.apply_updates(params, updates)"
        if resume and resume.unharmed and resume.step < len(trial.gradients):
            yield f"    if step >= {resume.step}:"
            others = "{name: 1 - 3 * grads[name] for name in old[0]}"
            yield f"        old = take(*old, {f'OrderedDict({others})' if self.ordered else others})"
        yield f"    print({', '.join(f'params[{name!r}].tolist()' for name in trial.weights)})"
        if resume and resume.step == len(trial.gradients):
            yield from self._replaced(resume)

    def _replaced(self, resume: Resume) -> Iterator[str]:
        if resume.unharmed:
            yield "old = params, state"
        if resume.how == "copy":
            yield "state = copy.deepcopy(state)"
        elif resume.how == "pickle":
            yield "state = pickle.loads(pickle.dumps(state))"
        else:
            yield "saved = dict(jax.tree_util.tree_leaves_with_path(state))"
            if resume.order:
                yield f"params = OrderedDict((name, params[name]) for name in {list(resume.order)})"
            yield from list(self.plan.script())[1:]
            yield "state = jax.tree_util.tree_map_with_path(lambda path, _: saved[path], optimizer.init(params))"
