"""Trials of a Keras optimizer as a program."""

from collections.abc import Iterator, Sequence

from polyak.check.drivers.keras.backends import BACKEND
from polyak.check.drivers.keras.beside import Beside
from polyak.check.drivers.keras.body import Body
from polyak.check.drivers.keras.making import Maker
from polyak.check.drivers.pairs import alike, is_stopped_alone
from polyak.check.drivers.scripts import FEW, imports, program_of
from polyak.check.trial import Shown, Trial


def program(trials: Sequence[Trial], maker: Maker, implementations: Sequence[str], shown: Shown, *, apart: bool) -> str:
    """See `polyak.check.trial.Subject.script`.

    Args:
        trials: What is done, without the changes that a schedule makes.
        maker: Makes the optimizer.
        implementations: How the steps of each are taken.
        shown: What is printed.
        apart: Whether the options of one can't stand in a loop for those of another.
    """
    changing = [trial.changes for trial in trials if trial.changes]
    same = len({*implementations}) == 1 and all(changes == changing[0] for changes in changing) and not apart
    groups = [trials] if same and alike(trials, maker.defaults) else [[trial] for trial in trials]

    def lines(short: bool) -> list[str]:
        bodies = [Body(some, maker, how, shown, short=short) for some, how in zip(groups, implementations, strict=False)]
        if short and shown == "weights" and implementations[-1] == "eager" and not apart and is_stopped_alone(trials):
            beside = Beside(trials[-1], maker)
            bodies = [beside] if beside.is_short() else bodies
        of_bodies = [line for body in bodies for line in body.lines()]
        begin = list(_begin(bodies, maker))
        if short and len(begin) + len(of_bodies) > FEW and not any(line.startswith("#") for line in begin):
            begin = ["; ".join(begin)]
        return [*begin, *of_bodies]

    return program_of(lines)


def _begin(bodies: Sequence[Body], maker: Maker) -> Iterator[str]:
    """What is imported, and set for all of it."""
    double, compiled = any(body.double for body in bodies), any(body.compiled for body in bodies)
    again = {body.resume.how for body in bodies if body.in_model and body.resume}
    modules = [*sorted(again), "keras"]
    settings = []
    if BACKEND == "jax" and (compiled or double):
        modules.append("jax")
        settings += ['jax.config.update("jax_enable_x64", True)'] if double else []
    if BACKEND == "tensorflow" and (compiled or any(body.sparse for body in bodies)):
        modules.append("tensorflow as tf")
    if BACKEND == "torch":
        modules.append("torch")
        settings.append("torch.set_grad_enabled(False)")
    settings += ['keras.config.set_floatx("float64")'] if double else []
    *first, last = imports(modules, maker.name)
    yield f'import os; os.environ["KERAS_BACKEND"] = "{BACKEND}"'
    yield from first
    yield "; ".join([last, *settings])
