"""Trials of a gradient transformation as a program."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from polyak.check.drivers.jax.making import Plan
from polyak.check.drivers.pairs import alike
from polyak.check.drivers.scripts import (
    Loop,
    all_zero,
    imports,
    items,
    numbers,
    one_line,
    program_of,
    stacked,
    variables,
)
from polyak.check.trial import Array, Resume, Shown, Trial

_TAKEN = (
    *(
        "after",
        "collections",
        "copy",
        "jax",
        "old",
        "optax",
        "optimizer",
        "params",
        "pickle",
        "saved",
        "state",
        "step",
        "steps",
    ),
    *("take", "updates"),
)
_LOOPED = ("dtype", "gradients")


def program(trials: Sequence[Trial], plans: Sequence[Plan], *, compiled: Sequence[bool], closure: bool, shown: Shown) -> str:
    """See `polyak.check.trial.Subject.script`.

    Args:
        trials: What is done.
        plans: How the transformation of each is made.
        compiled: Whether the step of each is under `jax.jit`.
        closure: Whether `update` is given the loss.
        shown: What is printed.
    """
    one, *_ = plans
    same = len({*compiled}) == 1 and all((p.injected, p.changes) == (one.injected, one.changes) for p in plans)

    def lines(short: bool) -> list[str]:
        bodies = [
            _Body(some, given, jit, closure, shown, short=short)
            for some, given, jit in (
                [(trials, plans, compiled[0])]
                if same and alike(trials, one.maker.defaults)
                else [([trial], [plan], jit) for trial, plan, jit in zip(trials, plans, compiled, strict=True)]
            )
        ]
        modules = sorted({module for body in bodies for module in body.modules})
        *first, last = imports([*modules, "jax", "optax"], one.maker.name)
        double = ['jax.config.update("jax_enable_x64", True)'] if any(body.double for body in bodies) else []
        begin = ["; ".join([last, *double])] if short else [last, *double]
        return [*first, *begin, *(line for body in bodies for line in body.lines())]

    return program_of(lines)


class _Body:
    """What is done in some trials that are alike: parameters, a transformation and its state, steps.

    In the short form, what is made is made in one line.
    """

    def __init__(
        self, trials: Sequence[Trial], plans: Sequence[Plan], compiled: bool, closure: bool, shown: Shown, *, short: bool
    ) -> None:
        self.trials, self.trial, self.plans, self.plan = trials, trials[0], plans, plans[0]
        self.compiled, self.closure, self.shown, self.short = compiled, closure, shown, short
        resume = self.trial.resume
        self.double = any(w.dtype == np.float64 for w in self.trial.weights.values())
        taken = (*_TAKEN, self.plan.maker.name.partition(".")[0])
        self.names = variables(self.trial.weights, (*taken, *_LOOPED))
        self.loop = Loop((*taken, *self.names.values()), turns=shown == "turns")
        self.called = compiled or closure or bool(resume and resume.unharmed)  # whether the step is a function
        # JAX sorts the keys of a dict.
        self.ordered = list(self.trial.weights) != sorted(self.trial.weights) or bool(resume and resume.order)
        again = resume.how if resume and resume.how != "load" else None
        self.modules = [*(["collections"] if self.ordered else []), *([again] if again else [])]

    def lines(self) -> Iterator[str]:
        """All of it."""
        return self.loop.around(self._lines())

    def _lines(self) -> Iterator[str]:
        resume = self.trial.resume
        params = self._tree(
            {name: self._array(f"{p}0", [t.weights[name] for t in self.trials]) for name, p in self.names.items()}
        )
        if self.short:
            yield f"{self._optimizer()}; state = optimizer.init(params := {params})"
        else:
            yield from (f"params = {params}", self._optimizer(), "state = optimizer.init(params)")
        if self.called:
            yield from self._function()
        end = max(len(trial.gradients) for trial in self.trials)
        for part, (begin, until) in enumerate(pairwise((0, resume.step, end) if resume else (0, end))):
            if resume and part:
                yield from self._replaced(resume)
            if begin < until:
                yield from self._steps(begin, until, old=bool(part and resume and resume.unharmed))

    # What is made.

    def _tree(self, values: Mapping[str, str], order: Iterable[str] | None = None) -> str:
        """A tree of the parameters."""
        tree = f"{{{', '.join(f'{name!r}: {values[name]}' for name in order or values)}}}"
        return f"collections.OrderedDict({tree})" if self.ordered else tree

    def _optimizer(self) -> str:
        options = self.loop.options([plan.options for plan in self.plans], self.plan.maker.defaults)
        return f"optimizer = {self.plan.script(options)}"

    def _array(self, name: str, arrays: Sequence[Array]) -> str:
        """The array of each trial: what differs are the numbers or the dtype."""
        dtype = self.loop.of("dtype", [f"jax.numpy.{array.dtype.name}" for array in arrays])
        usual = f"jax.numpy.{'float64' if self.double else 'float32'}"
        dtype = "" if dtype == usual else f", dtype={dtype}"
        if all_zero(arrays):
            return f"jax.numpy.zeros({arrays[0].shape}{dtype})"
        return f"jax.numpy.array({self.loop.of(name, [*map(numbers, arrays)])}{dtype})"

    def _function(self) -> Iterator[str]:
        if self.short and self.compiled and not self.closure:
            said = 'print("compiled") or ' if self.shown == "compilations" else ""
            updated = "lambda updates, state: (optax.apply_updates(params, updates), state)"
            yield f"take = jax.jit(lambda params, state, grads: {said}({updated})(*optimizer.update(grads, state, params)))"
            return
        if self.compiled:
            yield "@jax.jit"
        yield "def take(params, state, grads):"
        extra = ""
        if self.shown == "compilations":
            yield '    print("compiled")'
        if self.closure:
            yield "    loss = lambda params: sum((params[name] * g).sum() for name, g in grads.items())"
            extra = ", value=loss(params), grad=grads, value_fn=loss"
        yield f"    updates, state = optimizer.update(grads, state, params{extra})"
        yield "    return optax.apply_updates(params, updates), state"

    # Steps.

    def _steps(self, begin: int, end: int, *, old: bool) -> Iterator[str]:
        trial, resume, changes = self.trial, self.trial.resume, self.plan.changes
        order = resume.order if resume and begin >= resume.step else None
        given, target = self._given(begin, end), ", ".join(self.names.values())
        statements = []
        if changes:
            given = f"enumerate({given}{f', {begin}' if begin else ''})"
            target = f"step, {f'({target})' if len(self.names) > 1 else target}"
            new = ", ".join(f"{at}: {items(options)}" for at, options in changes.items())
            statements.append(f"state = optax.tree.set(state, **{{{new}}}.get(step, {{}}))")
        grads, after = self._tree(self.names, order), "after" if trial.held else "params"
        if self.called:
            statements.append(f"{after}, state = take(params, state, {grads})")
        else:
            statements.append(f"updates, state = optimizer.update({grads}, state, params)")
            statements.append(f"{after} = optax.apply_updates(params, updates)")
        if old:
            statements.append(f"old = take(*old, {self._tree({name: f'1 - 3 * {g}' for name, g in self.names.items()})})")
        weights = ", ".join(f"{after}[{name!r}].tolist()" for name in self.names)
        statements.append(self.loop.shown("state" if self.shown == "state" else weights))
        yield from one_line(f"for {target} in {given}:", statements)

    def _given(self, begin: int, end: int) -> str:
        """The gradients at some steps: one array, or one of each parameter."""
        if (stacks := stacked(self.trials, [*self.names], begin, end)) is not None:
            return self._array("gradients", stacks)
        each = [self._array(f"{p}_gradients", stacked(self.trials, [name], begin, end) or []) for name, p in self.names.items()]
        return f"zip({', '.join(each)})"

    # Another instance.

    def _replaced(self, resume: Resume) -> Iterator[str]:
        if resume.how == "load":
            old = "old, saved = (params, state), " if resume.unharmed else "saved = "
            yield f"{old}dict(jax.tree_util.tree_leaves_with_path(state))"
            if resume.order:
                yield f"params = {self._tree({name: f'params[{name!r}]' for name in self.names}, resume.order)}"
            yield self._optimizer()
            yield "state = jax.tree_util.tree_map_with_path(lambda path, _: saved[path], optimizer.init(params))"
        else:
            again = "copy.deepcopy(state)" if resume.how == "copy" else "pickle.loads(pickle.dumps(state))"
            yield f"old, state = (params, state), {again}" if resume.unharmed else f"state = {again}"
