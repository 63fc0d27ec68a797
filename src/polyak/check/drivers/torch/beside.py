"""A trial of a PyTorch optimizer beside the same one that is loaded or copied, as the lines of a program."""

from collections.abc import Iterator, Mapping, Sequence

from polyak.check.drivers.scripts import stacked
from polyak.check.drivers.torch.body import Body, has_one_group, of_steps
from polyak.check.drivers.torch.running import Way
from polyak.check.trial import Resume, Trial


class Beside(Body):
    """A trial, and step by step beside it the same one that is loaded or copied: what they come to is in one line."""

    def __init__(self, stopped: Trial, way: Way, taken: Sequence[str]) -> None:
        super().__init__([stopped], way, "weights", (*taken, "stopped"), short=True)
        self.twins = {name: f"{p}_" for name, p in self.variables.items()}

    def is_short(self) -> bool:
        """Whether an optimizer is made, and the gradients are given, in one expression each."""
        whole = stacked(self.trials, [*self.variables], 0, len(self.trial.gradients))
        plain = not (self.way.closure or self.way.mode or self.way.scheduled)
        one_group = not self.trial.changes or has_one_group(self.way, self.trial)
        return plain and one_group and whole is not None and len(self._optimizer(tuple(self.variables), self.variables)) == 1

    def _lines(self) -> Iterator[str]:
        names, resume = tuple(self.variables), self.trial.resume or Resume(0)
        first = {name: self._weight(name) for name in names}
        yield f"optimizer, stopped = {self._new(names, self.variables, first)}, {self._new(names, self.twins, first)}"
        if resume.step:
            yield self._abreast(0, resume.step, "")
        yield self._gone_on(resume)
        shown = ", ".join(f"{p}.tolist()" for p in (*self.variables.values(), *self.twins.values()))
        end = f"; print({shown})" + ("; old.step()" if resume.unharmed else "")
        yield self._abreast(resume.step, len(self.trial.gradients), end, old=resume.unharmed)

    def _gone_on(self, resume: Resume) -> str:
        """The second one is replaced."""
        both = f"stopped, {', '.join(self.twins.values())}"
        old = ", ".join(["old", *(f"old_{p}" for p in self.variables.values())])
        if resume.how == "load":
            copied = {name: f"{p}.data.clone()" for name, p in self.twins.items()}
            again = self._new(resume.order or tuple(self.twins), self.twins, copied)
            saved = "copy.deepcopy(stopped.state_dict())" if resume.unharmed else "stopped.state_dict()"
            kept = f"{old}, saved = {both}, {saved}" if resume.unharmed else f"saved = {saved}"
            return f"{kept}; stopped = {again}; stopped.load_state_dict(saved)"
        again = f"copy.deepcopy(({both}))" if resume.how == "copy" else f"pickle.loads(pickle.dumps(({both})))"
        return f"{old}, ({both}) = {both}, {again}" if resume.unharmed else f"{both} = {again}"

    def _new(self, order: tuple[str, ...], called: Mapping[str, str], weights: Mapping[str, str]) -> str:
        """An optimizer of new parameters."""
        (made,) = self._optimizer(order, {name: f"{p} := torch.nn.Parameter({weights[name]})" for name, p in called.items()})
        return made.removeprefix("optimizer = ")

    def _abreast(self, begin: int, end: int, shown: str, *, old: bool = False) -> str:
        """Some steps of both."""
        target, twins = (", ".join(f"{p}.grad" for p in x.values()) for x in (self.variables, self.twins))
        copies = ", ".join(f"{p}.grad.clone()" for p in self.variables.values())
        if old:
            twins = ", ".join([twins, *(f"old_{p}.grad" for p in self.variables.values())])
            copies = ", ".join([copies, *(f"1 - 3 * {p}.grad" for p in self.variables.values())])
        given, changed = self._given(begin, end), ""
        if within := {at: new for at, new in self._changes(self.trial).items() if begin <= at < end}:
            given, target = f"enumerate({given}, {begin})", f"step, {f'({target})' if len(self.twins) > 1 else target}"
            new = f"{of_steps(within)}.get(step, {{}})"
            changed = f"[each.param_groups[0].update({new}) for each in (optimizer, stopped)]; "
        return f"for {target} in {given}: {changed}{twins} = {copies}; optimizer.step(); stopped.step(){shown}"
