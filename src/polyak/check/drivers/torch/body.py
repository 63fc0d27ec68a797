"""Trials of a PyTorch optimizer that are alike, as the lines of a program."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from polyak.check.drivers.scripts import (
    Loop,
    all_zero,
    items,
    joined,
    numbers,
    one_line,
    stacked,
    variables,
    written,
)
from polyak.check.drivers.torch.compiled import COMPILED
from polyak.check.drivers.torch.running import Way, begun, switches, undisturbed
from polyak.check.trial import Array, Gradient, Resume, Rows, Shown, Trial

TAKEN = ("closure", "compiled", "copy", "group", "old", "optimizer", "pickle", "saved", "scheduler", "step", "steps", "torch")
_LOOPED = ("changes", "dtype", "factors", "gradients")
_SHOWN: dict[Shown, str] = {"gradients": "{}.grad.tolist()", "state": "optimizer.state[{}]"}
_BACKENDS: dict[Shown, str] = {"compilations": 'lambda graph, inputs: print("compiled") or graph.forward'}


class Body:
    """What is done in some trials that are alike: parameters, an optimizer, steps.

    In the short form, parameters are made where they are given to the optimizer.
    """

    def __init__(self, trials: Sequence[Trial], way: Way, shown: Shown, taken: Sequence[str], *, short: bool) -> None:
        self.trials, self.trial, self.way, self.shown, self.short = trials, trials[0], way, shown, short
        self.compiled = any(trial.implementation == COMPILED for trial in trials)
        self.variables = variables(self.trial.weights, (*taken, *_LOOPED))
        self.loop = Loop((*taken, *self.variables.values()), turns=shown == "turns")
        self.all = ", ".join(self.variables.values())
        # What a gradient is called: it is handed over at once where nothing more is to be done with it.
        own = self.trial.reused or way.closure
        self.grads = [f"g_{p}" if own else f"{p}.grad" for p in self.variables.values()]

    def lines(self) -> Iterator[str]:
        """All of it."""
        return self.loop.around(self._lines())

    def _lines(self) -> Iterator[str]:
        resume, end = self.trial.resume, max(len(trial.gradients) for trial in self.trials)
        yield from self._made(tuple(self.variables), {name: self._weight(name) for name in self.variables})
        yield from self._begun("")
        if self.way.closure:
            losses = [f"({p}.detach() * {p}.grad).sum()" for p in self.variables.values()]
            yield from ("def closure():", f"    {self._handed()}", f"    return {' + '.join(losses)}")
        stops = (0, resume.step, end) if resume else (0, end)
        for part, (begin, until) in enumerate(pairwise(stops)):
            if resume and part:
                yield from self._replaced(resume)
            if begin < until:
                yield from self._steps(begin, until)

    # What is made.

    def _weight(self, name: str) -> str:
        w = self.trial.weights[name]
        tensor = self._tensor(f"{self.variables[name]}0", [trial.weights[name] for trial in self.trials])
        return _laid(tensor, w.ndim, self.trial.strided)

    def _made(self, order: tuple[str, ...], weights: Mapping[str, str]) -> list[str]:
        """The parameters of these weights and, of them in this order, the optimizer."""
        new = {name: f"torch.nn.Parameter({weight})" for name, weight in weights.items()}
        if self.short:
            return self._optimizer(order, {name: f"{p} := {new[name]}" for name, p in self.variables.items()})
        return [f"{self.all} = {', '.join(new.values())}", *self._optimizer(order, self.variables)]

    def _optimizer(self, order: tuple[str, ...], given: Mapping[str, str]) -> list[str]:
        def listed(names: tuple[str, ...]) -> str:
            of = [(name, given[name]) for name in order if name in names]
            return f"[{', '.join(f'({name!r}, {p})' if self.way.named else p for name, p in of)}]"

        groups = [f"{{'params': {listed(g.names)}, {items(g.options)[1:]}" for g in self.trial.groups]
        params = f"[{', '.join(groups)}]" if groups else listed(order)
        defaults = self.way.maker.defaults
        options = [{**trial.options, **switches(trial.implementation, defaults)} for trial in self.trials]
        return self.way.maker.script(params, self.loop.options(options, defaults))

    def _begun(self, last: str) -> Iterator[str]:
        """What follows on an optimizer: its mode, its scheduler, its compiled step."""
        if self.way.mode:
            yield "optimizer.train()"
        if self.way.scheduled is not None:
            factors = self.loop.of("factors", [f"[{', '.join(self._factors(trial))}]" for trial in self.trials])
            yield f"scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, {factors}{last})"
        if self.compiled:
            compiled = f"torch.compile(optimizer.step, backend={_BACKENDS.get(self.shown, repr('eager'))})"
            each = ["True" if trial.implementation == COMPILED else "False" for trial in self.trials]
            which = self.loop.of("compiling", each)
            yield f"compiled = {compiled}" if which == "True" else f"compiled = {compiled} if {which} else optimizer.step"

    def _factors(self, trial: Trial) -> Iterator[str]:
        """What LambdaLR multiplies the first learning rate of each group by."""
        name = self.way.scheduled or ""
        changes = {step: new[name] for step, new in trial.changes.items() if name in new}
        default = {**self.way.maker.defaults, **trial.options}[name]
        for group in trial.groups or (None,):
            first = written(float(group.options.get(name, default) if group else default))
            of = "".join(f"{written(changes[at])} / {first} if step >= {at} else " for at in sorted(changes, reverse=True))
            yield f"lambda step: {of}1.0"

    # Steps.

    def _steps(self, begin: int, end: int) -> Iterator[str]:
        trial, resume = self.trial, self.trial.resume
        old = resume is not None and resume.unharmed and begin >= resume.step
        given, target = self._given(begin, end), ", ".join(self.grads)
        statements = [f"{p}.data.copy_({self._weight(name)})" for name, p in self.variables.items() if trial.held]
        changes = [self._changes(trial) for trial in self.trials]
        if any(changes):
            given = f"enumerate({given}{f', {begin}' if begin else ''})"
            target = f"step, {f'({target})' if len(self.grads) > 1 else target}"
            new = f"{self.loop.of('changes', [of_steps(each) for each in changes])}.get(step, {{}})"
            one = has_one_group(self.way, trial)
            each_group = "optimizer.param_groups[0]" if one else "for group in optimizer.param_groups: group"
            statements.append(f"{each_group}.update({new})")
        if trial.reused or self.way.closure:
            statements.append(self._handed())
        if old:
            missing = any(step.get(name) is None for step in trial.gradients for name in self.variables)
            unless = "None if {} is None else " if missing else ""
            statements += [f"old_{p}.grad = {unless.format(g)}1 - 3 * {g}" for p, g in self._both()]
        statements.append(f"{'compiled' if self.compiled else 'optimizer.step'}({'closure' if self.way.closure else ''})")
        if self.way.scheduled:
            statements.append("scheduler.step()")
        shown = _SHOWN.get(self.shown, "{}.tolist()")
        statements.append(self.loop.shown(", ".join(shown.format(p) for p in self.variables.values())))
        if old:
            statements.append("old.step()")
        yield from one_line(f"for {target} in {given}:", statements)

    def _both(self) -> Iterator[tuple[str, str]]:
        """Each parameter with its gradient."""
        return zip(self.variables.values(), self.grads, strict=True)

    def _handed(self) -> str:
        """The gradients are handed over."""
        if not self.trial.reused:
            return "; ".join(f"{p}.grad = {g}" for p, g in self._both())
        return "; ".join(f"{p}.grad = {g} if {p}.grad is None else {p}.grad.copy_({g})" for p, g in self._both())

    def _changes(self, trial: Trial) -> dict[int, str]:
        """The changes before steps, but for those that a scheduler makes."""
        changes = {at: {k: v for k, v in new.items() if k != self.way.scheduled} for at, new in trial.changes.items()}
        return {at: items(new) for at, new in changes.items() if new}

    def _given(self, begin: int, end: int) -> str:
        """The gradients at some steps: one tensor, or one of each parameter."""
        if (stacks := stacked(self.trials, [*self.variables], begin, end)) is not None:
            return self._stack("gradients", stacks, stacks[0].ndim - 1 - (len(self.grads) > 1))
        each = [self._gradients(name, begin, end) for name in self.variables]
        return each[0] if len(each) == 1 else f"zip({', '.join(each)})"

    def _gradients(self, name: str, begin: int, end: int) -> str:
        """Those of a parameter: one tensor, or a list where some are missing or sparse."""
        w, called = self.trial.weights[name], f"{self.variables[name]}_gradients"
        if (stacks := stacked(self.trials, [name], begin, end)) is not None:
            return self._stack(called, stacks, w.ndim)
        each = [[step.get(name) for step in trial.gradients[begin:end]] for trial in self.trials]
        return self.loop.of(called, [joined(self._gradient(g, w) for g in given) for given in each])

    def _stack(self, name: str, stacks: Sequence[Array], ndim: int) -> str:
        return _laid(self._tensor(name, stacks), min(ndim, 1), self.trial.strided)

    def _gradient(self, given: Gradient, w: Array) -> str:
        if isinstance(given, Rows):
            rows = f"[{given.rows.tolist()}], {numbers(given.values)}, {w.shape}{_dtype(f'torch.{given.values.dtype.name}')}"
            return f"torch.sparse_coo_tensor({rows}).coalesce()"
        return "None" if given is None else _laid(self._tensor("g", [given]), min(given.ndim, 1), self.trial.strided)

    def _tensor(self, name: str, arrays: Sequence[Array]) -> str:
        """The tensor of each trial: what differs are the numbers or the dtype."""
        dtype = _dtype(self.loop.of("dtype", [f"torch.{array.dtype.name}" for array in arrays]))
        if all_zero(arrays):
            return f"torch.zeros({arrays[0].shape}{dtype})"
        return f"torch.tensor({self.loop.of(name, [*map(numbers, arrays)])}{dtype})"

    # Another instance.

    def _replaced(self, resume: Resume) -> Iterator[str]:
        old = ", ".join(["old", *(f"old_{p}" for p in self.variables.values())])
        both = f"optimizer, {self.all}"
        if resume.how == "load":
            saved = "copy.deepcopy(optimizer.state_dict())" if resume.unharmed else "optimizer.state_dict()"
            yield f"{old}, saved = {both}, {saved}" if resume.unharmed else f"saved = {saved}"
            weights = {name: f"{p}.data.clone()" for name, p in self.variables.items()}
            order, load = resume.order or tuple(weights), "optimizer.load_state_dict(saved)"
            *made, last = self._made(
                order, {name: _laid(w, self.trial.weights[name].ndim, self.trial.strided) for name, w in weights.items()}
            )
            yield from made
            yield from [last, load] if last.startswith("for ") else [f"{last}; {load}"]
        else:
            again = f"copy.deepcopy(({both}))" if resume.how == "copy" else f"pickle.loads(pickle.dumps(({both})))"
            yield f"{old}, ({both}) = {both}, {again}" if resume.unharmed else f"{both} = {again}"
        yield from self._begun(f", {resume.step - 1}")


def of_steps(changes: dict[int, str]) -> str:
    """Changes before steps, as a dict."""
    return f"{{{', '.join(f'{at}: {new}' for at, new in changes.items())}}}"


def has_one_group(way: Way, trial: Trial) -> bool:
    """Whether the optimizer has one parameter group, as most have."""
    with undisturbed():
        return len(begun(way, trial).optimizer.param_groups) == 1


def _dtype(dtype: str) -> str:
    return "" if dtype == "torch.float32" else f", dtype={dtype}"


def _laid(tensor: str, ndim: int, strided: bool) -> str:
    """A tensor in another order in memory, as `tensors.turned` and `tensors.every_second` make it."""
    if not strided or ndim == 0:
        return tensor
    return f"{tensor}.mT.contiguous().mT" if ndim > 1 else f"{tensor}.repeat_interleave(2, -1)[..., ::2]"
