"""A trial of a Keras optimizer beside the same one that is loaded, as the lines of a program."""

from collections.abc import Iterator, Sequence

from polyak.check.drivers.keras.body import Body
from polyak.check.drivers.keras.making import Maker
from polyak.check.drivers.scripts import stacked
from polyak.check.trial import Resume, Trial


class Beside(Body):
    """A trial, and step by step beside it the same one whose state is loaded: what they come to is in one line."""

    def __init__(self, stopped: Trial, maker: Maker) -> None:
        super().__init__([stopped], maker, "eager", "weights", short=True)
        self.twins = {name: f"{p}_" for name, p in self.names.items()}

    def is_short(self) -> bool:
        """Whether it is no more than to load, with gradients that are one tensor."""
        loads = self.resume is not None and self.resume.how == "load" and not self.resume.unharmed
        return (
            loads and not self.trial.changes and stacked(self.trials, [*self.names], 0, len(self.trial.gradients)) is not None
        )

    def _lines(self) -> Iterator[str]:
        resume, names = self.resume or Resume(0), tuple(self.names)
        values = [self._variable(name) for name in names]
        yield f"{self._new('', 'optimizer', values, names)}; {self._new('_', 'stopped', values, names)}"
        if resume.step:
            yield self._abreast(0, resume.step, names, "")
        copied = [f"keras.Variable({p}.numpy(), dtype={p}.dtype{self._named(name)})" for name, p in self.twins.items()]
        order = resume.order or names
        again = self._new("_", "stopped", copied, order)
        yield f"stopped.save_own_variables(saved := {{}}); {again}; stopped.load_own_variables(saved)"
        shown = ", ".join(f"{p}.numpy().tolist()" for p in (*self.names.values(), *self.twins.values()))
        yield self._abreast(resume.step, len(self.trial.gradients), order, f"; print({shown})")

    def _new(self, twin: str, optimizer: str, values: Sequence[str], order: Sequence[str]) -> str:
        """Variables and an optimizer that is built for them."""
        made = f"{', '.join(p + twin for p in self.names.values())}, {optimizer} = {', '.join(values)}, {self._optimizer()}"
        return f"{made}; {optimizer}.build([{', '.join(self.names[name] + twin for name in order)}])"

    def _abreast(self, begin: int, end: int, order: Sequence[str], shown: str) -> str:
        """Some steps of both."""
        steps = []
        for optimizer, twin, names in (("optimizer", "", tuple(self.names)), ("stopped", "_", order)):
            grads, of = ", ".join(self.grads[n] for n in names), ", ".join(self.names[n] + twin for n in names)
            steps.append(f"{optimizer}.apply([{grads}], [{of}])")
        return f"for {', '.join(self.grads.values())} in {self._given(begin, end)}: {'; '.join(steps)}{shown}"
