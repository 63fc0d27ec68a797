"""Trials of a Keras optimizer that are alike, as the lines of a program."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from polyak.check.drivers.keras.backends import BACKEND
from polyak.check.drivers.keras.making import Maker
from polyak.check.drivers.scripts import (
    Loop,
    all_zero,
    called,
    joined,
    numbers,
    one_line,
    stacked,
    variables,
    written,
)
from polyak.check.trial import Array, Gradient, Resume, Rows, Shown, Trial

TAKEN = (
    *("Weights", "apply", "copy", "g", "jax", "keras", "model", "new", "old", "optimizer", "os", "pickle", "saved", "state"),
    *("stateless", "step", "steps", "tf", "torch", "v", "x"),
)
_LOOPED = ("at", "dtype", "gradients")


class Body:
    """What is done in some trials that are alike: variables, an optimizer, steps."""

    def __init__(self, trials: Sequence[Trial], maker: Maker, implementation: str, shown: Shown, *, short: bool) -> None:
        self.trials, self.trial, self.maker, self.shown, self.short = trials, trials[0], maker, shown, short
        taken = (*TAKEN, maker.name.partition(".")[0])
        self.names = variables(self.trial.weights, (*taken, *_LOOPED))
        self.loop = Loop((*taken, *self.names.values()), turns=shown == "turns")
        self.all = ", ".join(self.names.values())
        self.grads = {name: "g" if len(self.names) == 1 else f"g_{p}" for name, p in self.names.items()}
        self.double = any(w.dtype == np.float64 for trial in trials for w in trial.weights.values())
        self.sparse = any(isinstance(g, Rows) for trial in trials for step in trial.gradients for g in step.values())
        self.compiled, self.xla = implementation != "eager", implementation == "xla"
        self.resume = self.trial.resume
        self.in_model = self.resume is not None and self.resume.how != "load"

    def lines(self) -> Iterator[str]:
        """All of it."""
        return self.loop.around(self._lines())

    def _lines(self) -> Iterator[str]:
        resume = self.resume
        if self.in_model:
            yield from self._in_model()
        else:
            values = [self._variable(name) for name in self.names]
            yield from self._made(values, tuple(self.names))
        yield from self._compiled(tuple(self.names))
        end = max(len(trial.gradients) for trial in self.trials)
        for part, (begin, until) in enumerate(pairwise((0, resume.step, end) if resume else (0, end))):
            if resume and part:
                yield from self._replaced(resume)
            if begin < until:
                order = resume.order if resume and part else None
                yield from self._steps(begin, until, order or tuple(self.names), old=bool(part and resume and resume.unharmed))

    # What is made.

    def _optimizer(self) -> str:
        return self.maker.script(self.loop.options([trial.options for trial in self.trials], self.maker.defaults))

    def _made(self, values: Sequence[str], order: Sequence[str]) -> Iterator[str]:
        """Variables and, of them in this order, an optimizer. Without more ado, one is built at its first step."""
        build = [f"optimizer.build({self._list(order)})"] if self.compiled or self.resume else []
        if self.short:
            yield "; ".join([f"{self.all}, optimizer = {', '.join(values)}, {self._optimizer()}", *build])
        else:
            yield from (f"{self.all} = {', '.join(values)}", f"optimizer = {self._optimizer()}", *build)

    def _in_model(self) -> Iterator[str]:
        """Keras copies and pickles an optimizer with the model that is compiled with it."""
        weights = self.trial.weights
        if not self.maker.name.startswith("keras"):
            name = called(self.maker.name)
            yield f"keras.saving.get_custom_objects()[{name}.__name__] = {name}"
        own = ", ".join(f"self.add_weight({w.shape}, name={name!r}, dtype={w.dtype.name!r})" for name, w in weights.items())
        yield "@keras.saving.register_keras_serializable()"
        yield "class Weights(keras.Model):"
        yield f"    def __init__(self, **base): super().__init__(name='weights'); self.own = [{own}]; self.built = True"
        yield f"model, optimizer = Weights(), {self._optimizer()}"
        yield f"[{self.all}] = model.weights"
        yield "; ".join(f"{p}.assign({self._array('', [weights[name]])})" for name, p in self.names.items())
        yield f"optimizer.build([{self.all}]); model.compile(optimizer=optimizer, jit_compile=False)"

    def _compiled(self, order: Sequence[str]) -> Iterator[str]:
        """The compiled step. What was traced stays with the optimizer that it was traced with."""
        if not self.compiled:
            return
        said = 'print("compiled") or ' if self.shown == "compilations" else ""
        if BACKEND == "jax":
            step = f"lambda *state: {said}optimizer.stateless_apply(*state)" if said else "optimizer.stateless_apply"
            yield f"stateless = jax.jit({step})"
        else:
            step = f"lambda grads: {said}optimizer.apply(grads, {self._list(order)})"
            yield f"apply = tf.function({step}, jit_compile={self.xla}, autograph=False)"

    def _list(self, order: Sequence[str]) -> str:
        return f"[{', '.join(self.names[name] for name in order)}]"

    def _variable(self, name: str) -> str:
        arrays = [trial.weights[name] for trial in self.trials]
        given = self._array(f"{self.names[name]}0", arrays) if not all(w.size for w in arrays) else None
        given = given or self.loop.of(f"{self.names[name]}0", [*map(numbers, arrays)])
        kind = self.loop.of("dtype", [repr(w.dtype.name) for w in arrays])
        return f"keras.Variable({given}{self._dtype(kind, 'dtype=')}{self._named(name)})"

    def _named(self, name: str) -> str:
        """Of several, rules may tell one by its name; and some load a state by it."""
        return f", name={name!r}" if len(self.names) > 1 or self.resume else ""

    # Steps.

    def _steps(self, begin: int, end: int, order: Sequence[str], *, old: bool) -> Iterator[str]:
        trial = self.trial
        given, target = self._given(begin, end), ", ".join(self.grads.values())
        changes = next((each.changes for each in self.trials if each.changes), {})
        if changes:
            given = f"enumerate({given}{f', {begin}' if begin else ''})"
            target = f"step, {f'({target})' if len(self.grads) > 1 else target}"
        first = {p: self._array(f"{p}0", [t.weights[name] for t in self.trials]) for name, p in self.names.items()}
        statements = [f"{p}.assign({w})" for p, w in first.items() if trial.held]
        for at, new in changes.items():
            step = self.loop.of("at", [str(at) if each.changes else "None" for each in self.trials])
            assigned = [f"setattr(optimizer, {name!r}, {written(x)})" for name, x in new.items()]
            statements += [f"step == {step} and {each}" for each in assigned]
        grads = f"[{', '.join(self.grads[name] for name in order)}]"
        statements += self._applied("", self._list(order), grads)
        if old:
            missing = any(step.get(name) is None for step in trial.gradients for name in self.names)
            unless = "None if {0} is None else " if missing else ""
            others = ", ".join(f"{unless.format(g)}1 - 3 * {g}" for g in self.grads.values())
            statements += self._applied("old_", f"[{', '.join(f'old_{p}' for p in self.names.values())}]", f"[{others}]")
        shown = {
            "state": "{v.path: v.numpy().tolist() for v in optimizer.variables}",
            "gradients": ", ".join(self.grads.values()),
        }
        weights = ", ".join(f"{p}.numpy().tolist()" for p in self.names.values())
        statements.append(self.loop.shown(shown.get(self.shown, weights)))
        yield from one_line(f"for {target} in {given}:", statements)

    def _applied(self, old: str, params: str, grads: str) -> Iterator[str]:
        """A step of the optimizer, or of the old one."""
        optimizer = f"{old}optimizer"
        if self.compiled and BACKEND == "jax":
            own = f"{optimizer}.variables"
            yield f"new, state = {old}stateless([v.value for v in {own}], {grads}, [v.value for v in {params}])"
            yield f"[v.assign(x) for v, x in zip([*{params}, *{own}], [*new, *state])]"
        else:
            yield f"{old}apply({grads})" if self.compiled else f"{optimizer}.apply({grads}, {params})"

    def _given(self, begin: int, end: int) -> str:
        """The gradients at some steps: one tensor, or one of each variable."""
        if (stacks := stacked(self.trials, [*self.names], begin, end)) is not None:
            return self._array("gradients", stacks)
        each = [self._gradients(name, begin, end) for name in self.names]
        return each[0] if len(each) == 1 else f"zip({', '.join(each)})"

    def _gradients(self, name: str, begin: int, end: int) -> str:
        """Those of a variable: one tensor, or a list where some are missing or sparse."""
        called = f"{self.names[name]}_gradients"
        if (stacks := stacked(self.trials, [name], begin, end)) is not None:
            return self._array(called, stacks)
        each = [[step.get(name) for step in trial.gradients[begin:end]] for trial in self.trials]
        return self.loop.of(called, [joined(self._gradient(g, self.trial.weights[name]) for g in given) for given in each])

    def _gradient(self, given: Gradient, w: Array) -> str:
        if isinstance(given, Rows):
            values = self._array("g", [given.values])
            return f"tf.IndexedSlices({values}, tf.constant({given.rows.tolist()}), {list(w.shape)})"
        return "None" if given is None else self._array("g", [given])

    def _array(self, name: str, arrays: Sequence[Array]) -> str:
        """The tensor of each trial: what differs are the numbers or the dtype."""
        kind = self.loop.of("dtype", [repr(array.dtype.name) for array in arrays])
        if all_zero(arrays):
            return f"keras.ops.zeros({arrays[0].shape}{self._dtype(kind)})"
        return f"keras.ops.array({self.loop.of(name, [*map(numbers, arrays)])}{self._dtype(kind)})"

    def _dtype(self, kind: str, keyword: str = "") -> str:
        # TensorFlow reads numbers as float32 where nothing else is said.
        return "" if kind == "'float32'" and not self.double else f", {keyword}{kind}"

    # Another instance.

    def _replaced(self, resume: Resume) -> Iterator[str]:
        if resume.unharmed:
            step = {"jax": "stateless"}.get(BACKEND, "apply")
            both = ["optimizer", *self.names.values(), *([step] if self.compiled else [])]
            yield f"{', '.join(f'old_{x}' for x in both)} = {', '.join(both)}"
        if resume.how == "load":
            yield "optimizer.save_own_variables(saved := {})"
            values = [f"keras.Variable({p}.numpy(), dtype={p}.dtype{self._named(name)})" for name, p in self.names.items()]
            yield from self._made(values, resume.order or tuple(self.names))
            yield "optimizer.load_own_variables(saved)"
        else:
            yield f"model = {'copy.deepcopy(model)' if resume.how == 'copy' else 'pickle.loads(pickle.dumps(model))'}"
            yield f"[{self.all}], optimizer = model.weights, model.optimizer"
        yield from self._compiled(resume.order or tuple(self.names))
