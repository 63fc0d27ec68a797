"""A trial of a PyTorch optimizer as a program."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from polyak.check.drivers.scripts import indented, joined, numbers, variables, written
from polyak.check.drivers.torch.running import Way, switches
from polyak.check.trial import Array, Gradient, Resume, Rows, Trial

_TAKEN = (
    *("closure", "copy", "each", "first", "grad", "gradients", "group", "io", "old", "optimizer"),
    *("pickle", "saved", "scheduler", "start", "step", "steps", "torch"),
)


def program(trial: Trial, way: Way) -> str:
    """A trial of an optimizer that is used in a way; see `polyak.check.trial.Subject.script`."""
    return "\n".join(_Program(trial, way).lines()) + "\n"


class _Program:
    """The parts of the program, with what all of them need."""

    def __init__(self, trial: Trial, way: Way) -> None:
        self.trial, self.way = trial, way
        self.variables = variables(trial.weights, _TAKEN)
        self.all = ", ".join(self.variables.values())
        self.several = len(self.variables) > 1

    def lines(self) -> Iterator[str]:
        """All of it."""
        trial, resume = self.trial, self.trial.resume
        made = self._optimizer(tuple(trial.weights))
        yield "import torch"
        if resume:
            yield f"import {'io' if resume.how == 'load' else resume.how}"
        yield self.way.maker.script("", {})[0]
        yield ""
        for name, w in trial.weights.items():
            yield f"{self.variables[name]} = torch.nn.Parameter({_laid(_tensor(w), w.ndim, trial.strided)})"
        if trial.held:
            copies = f"[each.detach().clone() for each in [{self.all}]]"
            yield f"first = {copies if self.several else f'{self.all}.detach().clone()'}"
        yield from made
        yield from self._scheduler("")
        yield from self._loop()

    # What is made.

    def _optimizer(self, order: tuple[str, ...]) -> list[str]:
        def listed(names: tuple[str, ...]) -> str:
            of = [(name, self.variables[name]) for name in order if name in names]
            return f"[{', '.join(f'({name!r}, {p})' if self.way.named else p for name, p in of)}]"

        groups = [f"{{'params': {listed(g.names)}{_items(g.options)}}}" for g in self.trial.groups]
        params = f"[{', '.join(groups)}]" if groups else listed(order)
        options = {**self.trial.options, **switches(self.trial.implementation, self.way.maker.defaults)}
        return [*self.way.maker.script(params, options)[1], *(["optimizer.train()"] if self.way.mode else [])]

    def _scheduler(self, last: str) -> list[str]:
        if self.way.scheduled is None:
            return []
        changes = {step: new[self.way.scheduled] for step, new in self.trial.changes.items() if self.way.scheduled in new}
        default = {**self.way.maker.defaults, **self.trial.options}[self.way.scheduled]
        factors = []
        for group in self.trial.groups or (None,):
            first = written(float(group.options.get(self.way.scheduled, default) if group else default))
            of = "".join(f"{written(changes[at])} / {first} if step >= {at} else " for at in sorted(changes, reverse=True))
            factors.append(f"lambda step: {of}1.0")
        several = f"[{', '.join(factors)}]" if len(factors) > 1 else factors[0]
        return [f"scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, {several}{last})"]

    # Steps.

    def _loop(self) -> Iterator[str]:
        trial = self.trial
        each = [self._gradients(name) for name in trial.weights]
        changes = {at: {k: v for k, v in new.items() if k != self.way.scheduled} for at, new in trial.changes.items()}
        changes = {at: new for at, new in changes.items() if new}
        numbered = bool(trial.resume or changes)
        if self.several:
            yield from ["steps = zip(", *(f"    {items}," for items in each), ")"]
        items = "steps" if self.several else each[0]
        yield f"for step, gradients in enumerate({items}):" if numbered else f"for gradients in {items}:"
        if trial.resume and trial.resume.step < len(trial.gradients):
            yield f"    if step == {trial.resume.step}:"
            yield from indented(indented(self._replaced(trial.resume)))
        if trial.held:
            put = [f"for each, start in zip([{self.all}], first):", "    each.data.copy_(start)"]
            yield from indented(put if self.several else [f"{self.all}.data.copy_(first)"])
        for at, new in changes.items():
            yield from indented([f"if step == {at}:", "    for group in optimizer.param_groups:"])
            yield f"            group.update({{{_items(new)[2:]}}})"
        yield from indented(self._step())
        if self.way.scheduled:
            yield "    scheduler.step()"
        if trial.resume and trial.resume.unharmed and trial.resume.step < len(trial.gradients):
            yield f"    if step >= {trial.resume.step}:"
            yield from indented(indented(self._other_step()))
        yield f"    print({', '.join(f'{p}.tolist()' for p in self.variables.values())})"
        if trial.resume and trial.resume.step == len(trial.gradients):
            yield from self._replaced(trial.resume)

    def _step(self) -> Iterator[str]:
        given = f"{', '.join(f'{p}.grad' for p in self.variables.values())} = gradients"
        if self.trial.reused:
            yield f"for each, grad in zip([{self.all}], {'gradients' if self.several else '[gradients]'}):"
            yield "    each.grad = each.grad.copy_(grad) if each.grad is not None and grad is not None else grad"
        else:
            yield given
        if self.way.closure:
            loss = f"sum((each.detach() * each.grad).sum() for each in [{self.all}] if each.grad is not None)"
            yield from ["def closure():", f"    {given}", f"    return {loss}", "", "optimizer.step(closure)"]
        else:
            yield "optimizer.step()"

    def _gradients(self, name: str) -> str:
        """Those of a parameter at all steps: one tensor, or a list where some are missing or sparse."""
        w = self.trial.weights[name]
        given = [step.get(name) for step in self.trial.gradients]
        dense = [g for g in given if isinstance(g, np.ndarray)]
        if len(dense) == len(given):
            return _laid(_tensor(np.stack(dense)), 1 if w.ndim else 0, self.trial.strided)
        return joined(self._gradient(g, w) for g in given)

    def _gradient(self, given: Gradient, w: Array) -> str:
        if isinstance(given, Rows):
            rows = f"[{given.rows.tolist()}], {numbers(given.values)}, {w.shape}{_dtype(given.values)}"
            return f"torch.sparse_coo_tensor({rows}).coalesce()"
        return "None" if given is None else _laid(_tensor(given), min(given.ndim, 1), self.trial.strided)

    # Another instance.

    def _replaced(self, resume: Resume) -> Iterator[str]:
        if resume.unharmed:
            yield f"old = optimizer, [{self.all}]"
        if resume.how != "load":
            again = "copy.deepcopy(%s)" if resume.how == "copy" else "pickle.loads(pickle.dumps(%s))"
            both = f"(optimizer, [{self.all}])"
            yield f"optimizer, [{self.all}] = {again % both}"
        else:
            yield "torch.save(optimizer.state_dict(), saved := io.BytesIO())"
            for p, w in zip(self.variables.values(), self.trial.weights.values(), strict=True):
                yield f"{p} = torch.nn.Parameter({_laid(f'{p}.data.clone()', w.ndim, self.trial.strided)})"
            yield from self._optimizer(resume.order or tuple(self.trial.weights))
            yield "optimizer.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=False))"
        if self.way.mode:
            yield "optimizer.train()"
        yield from self._scheduler(f", last_epoch={resume.step - 1}")

    def _other_step(self) -> Iterator[str]:
        yield f"for each, grad in zip(old[1], {'gradients' if self.several else '[gradients]'}):"
        yield "    each.grad = None if grad is None else 1 - 3 * grad"
        yield "old[0].step()"


def _items(options: Mapping[str, Any]) -> str:
    """Options as the further items of a dict."""
    return "".join(f", {name!r}: {written(value)}" for name, value in options.items())


def _tensor(array: Array) -> str:
    if array.size == 0:
        return f"torch.zeros({array.shape}{_dtype(array)})"
    return f"torch.tensor({numbers(array)}{_dtype(array)})"


def _dtype(array: Array) -> str:
    if array.dtype == np.float32:
        return ""
    return f", dtype=torch.{'bfloat16' if array.dtype == bfloat16 else array.dtype.name}"


def _laid(tensor: str, ndim: int, strided: bool) -> str:
    """A tensor in another order in memory, as `tensors.turned` and `tensors.every_second` make it."""
    if not strided or ndim == 0:
        return tensor
    return _turned(tensor) if ndim > 1 else f"{tensor}.repeat_interleave(2, -1)[..., ::2]"


def _turned(tensor: str) -> str:
    return f"{tensor}.mT.contiguous().mT"
