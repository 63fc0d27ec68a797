"""`polyak train`, as the command line sees it: the signature and the docstring are its options and its help."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

from polyak.complain import complain
from polyak.train.backends import check_installed
from polyak.train.config import NAME, TABLE, combined, left_out, read, values_of
from polyak.train.folder import create, discard
from polyak.train.interrupt import EXIT, Interruption
from polyak.train.optimizers import OPTIMIZERS
from polyak.train.options import Options, flag_of
from polyak.train.settings import settings as parsed

if TYPE_CHECKING:
    from polyak.train.run import Result


def whole(kind: object, tokens: Sequence[Token]) -> int:  # noqa: ARG001  (the signature of a converter)
    """An int as Python reads it. The default converter rounds, so that 1.5 epochs would be 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value} is not a whole number.") from None


Whole = Annotated[int, Parameter(converter=whole)]
Flag = Annotated[bool, Parameter(show_default=False)]
Settings = Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)]


def train(
    task: str | None = None,
    /,
    *,
    target: str | None = None,
    validation: float | None = None,
    model: str | None = None,
    backend: str | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    settings: Settings = (),
    epochs: Whole | None = None,
    batch_size: Whole | None = None,
    seed: Whole | None = None,
    config: Path | None = None,
    out: Path | None = None,
    checkpoint: str | None = None,
    keep: Whole | None = None,
    resume: Path | None = None,
    record: Whole | None = None,
    tensorboard: bool | None = None,
    debug: Flag = False,
) -> int:
    """Train a network with momentum, and record the run in a folder.

    Args:
        task: digits (also without it), mnist1d, two-moons, or a path: table, folder of pictures, .npz; or module:function.
        target: The column of a table to learn.
        validation: Share of the examples to watch, not train on. [0.2]
        model: One of the task's: mlp, cnn, resnet. [its first]
        backend: One of tensorflow, jax, torch. [tensorflow]
        optimizer: descent, momentum, nesterov, qhm, aggmo, signum, lion, lars, schedule_free, muon. [momentum]
        lr: Learning rate. [0.1 for momentum]
        momentum: Share of the velocity kept, in [0, 1). [0.9]
        nesterov: Step along the look-ahead velocity.
        settings: NAME=VALUE: any setting of the optimizer; repeat it.
        epochs: Passes over the training examples. [30]
        batch_size: Examples a step. [256; if they are few, less]
        seed: Of weights, split and order of the examples. [0]
        config: A TOML file with any of these options.
        out: New folder for the run. [runs/TASK-DATE-TIME]
        checkpoint: Also every "500 steps", "5 minutes". [epoch]
        keep: How many checkpoints stay. [3]
        resume: Go on with the run in this folder.
        record: Record every so many steps. [by length]
        tensorboard: Write event files for TensorBoard too.
        debug: With an error, show where it comes from.

    Returns:
        The exit code: 0; 1 for a run that failed; 2 for what cannot be trained, or no run can have; 130 after Ctrl-C; 143 after
        SIGTERM.
    """
    given = {name: x for name, x in locals().items() if x is not None and name in FLAGS}
    with Interruption() as interruption:
        try:
            if resume is not None:
                beside = {"set": settings or None, "config": config, "out": out}
                refuse_beside_resume(resume, [*given, *(name for name, x in beside.items() if x is not None)])
                interruption.leave_at_once(lambda: None)
                from polyak.train.resume import resume as go_on

                folder, result = resume, go_on(resume, interruption, backend=backend, epochs=epochs)
            else:
                options = combined_options(config, given, settings)
                check_installed(options.backend)
                folder = create(out, name_of(options.task))
                interruption.leave_at_once(lambda: discard(folder))
                from polyak.train.run import run

                result = run(options, folder, interruption)
        except KeyboardInterrupt:
            return complain("interrupted twice, so nothing more was saved. What was recorded before is kept.", EXIT)
        except Exception as error:
            return failed(error, interruption, debug)
        return ended(result, folder, interruption)


FLAGS = tuple(name for name in vars(Options()) if name != "settings")
"""The flags that are options of a run, by their names in `Options`; `--set` is read apart."""


def combined_options(config: Path | None, given: dict[str, Any], settings: Sequence[str]) -> Options:
    """The options from the file and the flags."""
    flags = {**given, "settings": parsed(settings)} if settings else given
    options = combined(config, flags)
    if config is not None and (names := left_out(values_of(config), flags)):
        from polyak.train.display import say

        words = " and ".join(TABLE if name == "settings" else name for name in names)
        say(f"{config}: {words} left out, for its optimizer is another one than {options.optimizer}")
    return options


def name_of(task: str) -> str:
    """What the folder of a run is called after: a task, the module of one's code, or a file or folder without its path."""
    module, colon, _ = task.partition(":")
    return re.sub(r"[^\w-]+", "-", module if colon else Path(task).resolve().stem)


def refuse_beside_resume(folder: Path, given: Sequence[str]) -> None:
    """A run that goes on has the options that it began with."""
    if others := [flag_of(name) for name in given if name not in ("backend", "epochs")]:
        raise ValueError(
            f"--resume goes on with the options of its run, of which only --backend and --epochs can change; got "
            f"{', '.join(others)} too. For a new run with other options: --config {folder / NAME}."
        )


def ended(result: "Result", folder: Path, interruption: Interruption) -> int:
    """Say how a run ended, and give its exit code."""
    from polyak.train.display import say, shown

    kept = f"{result.epochs} whole epoch{'s' * (result.epochs != 1)} recorded in {folder}"
    if result.status == "failed":
        return complain(f"{result.stopped}; {kept}. {advice(read(folder / NAME))}", result.code)
    if result.status == "interrupted":
        return complain(f"interrupted {result.stopped}; {kept}. To go on: polyak train --resume {folder}", result.code)
    # A person's own data have no test part.
    part = "test_" if "test_loss" in result.scores else "val_"
    scores = {name: x for name, x in result.scores.items() if x is not None and name.startswith(part)}
    loss_first = sorted(scores, key=lambda name: name != f"{part}loss")
    said = shown(scores, loss_first).replace("_", " ")
    say("  ".join(filter(None, [said, f"run in {folder}"])))
    if interruption.requested:
        return complain("interrupted after the last epoch; the run is complete.", interruption.code)
    return result.code


def advice(options: Options) -> str:
    """What to try after a run that failed."""
    usual = OPTIMIZERS[options.optimizer].settings["learning_rate"]
    rate = options.chosen.get("learning_rate", usual)
    if isinstance(rate, str):
        return f"Try a smaller learning rate than {rate}."
    return f"Try a smaller learning rate: --lr {min(rate / 10, usual):g}."


def failed(error: Exception, interruption: Interruption, debug: bool) -> int:
    """Say what an error is about, and give the exit code that goes with it: 2 if training has not begun."""
    if debug:
        traceback.print_exception(error)
    expected = isinstance(error, ValueError | TypeError | ImportError | OSError)
    if expected and not interruption.deferred:
        return complain(error, 2)
    if isinstance(error, OSError):  # a full disk, say
        return complain(error, 1)
    where = "" if debug else " --debug shows where it comes from."
    return complain(f"the run stopped: {type(error).__name__}: {str(error).rstrip('.')}.{where}", 1)
