"""`polyak train`, as the command line sees it: the signature and the docstring are its options and its help."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from polyak.train.backends import check_installed
from polyak.train.folder import create, discard
from polyak.train.interrupt import EXIT, Interruption
from polyak.train.options import Options


def whole(kind: object, tokens: Sequence[Token]) -> int:  # noqa: ARG001  (the signature of a converter)
    """An int as Python reads it. The default converter rounds, so that 1.5 epochs would be 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value} is not a whole number.") from None


Whole = Annotated[int, Parameter(converter=whole)]


def train(
    task: str = Options.task,
    /,
    *,
    backend: str = Options.backend,
    model: str = Options.model,
    lr: float = Options.lr,
    momentum: float = Options.momentum,
    nesterov: bool = Options.nesterov,
    velocity: str = Options.velocity,
    epochs: Whole = Options.epochs,
    batch_size: Whole = Options.batch_size,
    seed: Whole = Options.seed,
    out: Path | None = None,
) -> int:
    """Train a network with momentum, and record the run in a folder.

    Args:
        task: What to learn: digits, 1,797 images of 8x8 pixels.
        backend: One of tensorflow, jax, torch.
        model: One of mlp, cnn.
        lr: Learning rate, the same in all epochs.
        momentum: Share of the velocity kept, in [0, 1).
        nesterov: Step along the look-ahead velocity.
        velocity: Its unit: gradient, step, average.
        epochs: Passes over the training images.
        batch_size: Images a step.
        seed: Of the weights and the order of the images.
        out: New folder for the run. Else: runs/TASK-DATE-TIME.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for options that no run can have, 130 after Ctrl-C.
    """
    with Interruption() as interruption:
        try:
            options = Options(task, backend, model, lr, momentum, nesterov, velocity, epochs, batch_size, seed)
            check_installed(backend)
            folder = create(out, task)
            interruption.leave_at_once(lambda: discard(folder))
        except (ValueError, ImportError, OSError) as error:
            return complain(error, 2)

        from polyak.train.display import say
        from polyak.train.run import run

        try:
            result = run(options, folder, interruption)
        except OSError as error:  # a full disk, say
            kept = f"What was recorded is in {folder}." if folder.exists() else "Nothing was recorded."
            return complain(f"the run stopped: {error}. {kept}", 1)
        except KeyboardInterrupt:
            return complain(f"interrupted twice, so nothing more was saved. What was recorded is in {folder}.", EXIT)

        kept = f"{result.epochs} whole epoch{'s' * (result.epochs != 1)} recorded in {folder}"
        if result.status == "failed":
            advice = f"Try a smaller learning rate: --lr {min(lr / 10, Options.lr):g}."
            return complain(f"{result.stopped}; {kept}. {advice}", 1)
        if result.status == "interrupted":
            return complain(f"interrupted {result.stopped}; {kept}.", EXIT)
        say(f"test loss {result.test_loss:.4f}  test accuracy {result.test_accuracy:.2%}  run in {folder}")
        if interruption.requested:
            return complain("interrupted after the last epoch; the run is complete.", EXIT)
        return 0


def complain(what: object, code: int) -> int:
    """One message on standard error, and the exit code that goes with it."""
    print(f"polyak: {what}", file=sys.stderr, flush=True)  # noqa: T201  (this is the place that prints errors)
    return code
