"""Going on with a run that was stopped, from its last checkpoint that is whole."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyak.complain import complain
from polyak.train import checkpoints, config
from polyak.train.backends import check_installed, use
from polyak.train.checkpoints import FORMAT, Checkpoint
from polyak.train.display import say
from polyak.train.folder import locked, write_json
from polyak.train.interrupt import Interruption
from polyak.train.job import Job
from polyak.train.optimizers import build_optimizer
from polyak.train.options import Options
from polyak.train.position import Position
from polyak.train.recording import Recording
from polyak.train.records import CHECKPOINTS, Records
from polyak.train.run import ENVIRONMENT, RESULT, Result, train


class CannotResume(ValueError):  # noqa: N818  (it says why)
    """There is nothing to go on with, or not in this way. The message says why, and what to do."""


def resume(folder: Path, interruption: Interruption, *, backend: str | None = None, epochs: int | None = None) -> Result:
    """Go on with a run. On the same machine and backend it ends with the bits that it would have had without the stop.

    Args:
        folder: Of the run.
        interruption: Asked after each step.
        backend: Another one to go on with: weights and the optimizer's state move, bits do not.
        epochs: Another length of the run.

    Returns:
        How the run ended; for one that is complete already, how it did.

    Raises:
        CannotResume: It is no run, or one of another version, or it failed, or no checkpoint is whole, or the data or the code
            have changed, or a schedule was made for its length.
        BusyError: Another process trains in the folder.
        OSError: As from `run`.
    """
    environment = _environment(folder)
    with locked(folder):
        before = config.read(folder / config.NAME)
        options = replace(before, backend=backend or before.backend, epochs=before.epochs if epochs is None else epochs)
        check_installed(options.backend)
        if (ended := _ended(folder)) and (result := _settled(ended, folder, before, options)):
            return result
        newest = checkpoints.newest(folder / CHECKPOINTS, lambda damaged: complain(f"{damaged}; the one before it is taken."))
        if newest is None:
            raise CannotResume(
                f"{folder} has no checkpoint that is whole: begin a new run with --config {folder / config.NAME}."
            )
        start = Position(**{name: newest.position[name] for name in vars(Position())})
        if options.epochs < start.epoch + (start.batch > 0):
            raise CannotResume(f"{folder} is in epoch {start.epoch + 1} already: --epochs must be at least that.")
        use(options.backend)
        job, recording = _restored(options, folder, newest, environment)
        if options.epochs != before.epochs:
            _check_length(job, before)
            options = replace(options, record=recording.every)  # which was chosen by the length that the run had
        try:
            records = Records(folder, job, recording, newest.position)
        except ValueError as error:  # a file is shorter than it was
            raise CannotResume(f"{folder} cannot go on: {error} Begin a new run.") from error
        interruption.defer()
        (folder / RESULT).unlink(missing_ok=True)  # it told how the sitting before ended
        checkpoints.forget_after(folder / CHECKPOINTS, start.step)
        config.write(options, folder / config.NAME)
        now, sittings = job.environment(), environment.get("sittings", [])
        _tell({**environment, **(sittings[-1] if sittings else {})}, now)
        # Only what differs from the beginning.
        other = {name: now[name] for name in ("backend", "versions", "platform") if now[name] != environment[name]}
        write_json(folder / ENVIRONMENT, {**environment, "sittings": [*sittings, {"step": start.step, **other}]})
        say(f"{folder} goes on in epoch {start.epoch + 1}, after step {start.step:,} of {job.steps:,}; {options.backend}")
        return train(job, folder, records, interruption, start)


def _environment(folder: Path) -> dict[str, Any]:
    """What environment.json has, after a look at whether this version can go on with the run."""
    if not folder.is_dir():
        raise CannotResume(f"there is no run {folder}.")
    try:
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        found = environment["format"]
    except (OSError, ValueError, KeyError, TypeError):
        older = (folder / "config.json").exists()
        what = "is of an older version, which made no checkpoints" if older else f"is no run: it has no {ENVIRONMENT}"
        raise CannotResume(f"{folder} {what}. Begin a new run.") from None
    if found != FORMAT:
        raise CannotResume(f"{folder} is of format {found}, and this version of polyak goes on with format {FORMAT} only.")
    return dict(environment)


def _ended(folder: Path) -> dict[str, Any] | None:
    """What result.json has, if the run ended by itself or was stopped, and not killed."""
    try:
        return dict(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _settled(ended: Mapping[str, Any], folder: Path, before: Options, options: Options) -> Result | None:
    """How the run ended, where nothing is left to do."""
    if ended["status"] == "failed":
        raise CannotResume(
            f"{folder} failed: {ended['stopped']}. From its last checkpoint it would fail again, for every step would have the "
            f"same bits. Begin a new run with a smaller learning rate."
        )
    if ended["status"] == "completed" and options.epochs <= before.epochs:
        names = ("status", "epochs", "step", "stopped")
        scores = {name: value for name, value in ended.items() if name not in names}
        say(f"{folder} is complete: all {before.epochs} epochs are done. With --epochs it can be made longer.")
        return Result("completed", ended["epochs"], ended["step"], None, scores)
    return None


def _restored(options: Options, folder: Path, newest: Checkpoint, environment: Mapping[str, Any]) -> tuple[Job, Recording]:
    """The job as it was, and the recording of its steps."""
    job = Job(options)
    recording = Recording(folder, job, newest.position["recording"])
    job.build()
    # The file has lists where the task has tuples.
    now = json.loads(json.dumps(job.environment()))
    changed = [name for name in ("examples", "steps_per_epoch", "classes", "notes", "data") if environment[name] != now[name]]
    if changed:
        what = "; ".join(f"{name} was {shortened(environment[name])} and is {shortened(now[name])}" for name in changed)
        raise CannotResume(f"the data of {folder} has changed: {what}. Begin a new run.")
    try:
        job.restore(newest.path, recording.variables, within=newest.position["batch"] > 0)
    except ValueError as error:
        raise CannotResume(f"{folder} cannot go on: {error}. Has the code of the model changed?") from error
    return job, recording


def shortened(value: Any) -> str:
    """A value for a message."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_length(job: Job, before: Options) -> None:
    """Refuse another length where a schedule was made for the one that the run had."""
    then = build_optimizer(before, steps=before.epochs * job.steps_per_epoch, steps_per_epoch=job.steps_per_epoch)
    if then.get_config() != job.optimizer.get_config():
        raise CannotResume(
            f"a schedule of this run goes by its length, {before.epochs} epochs, and its steps so far were made by that: "
            f"--epochs cannot change it. Begin a new run, or give the schedule a number of steps."
        )


def _tell(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say why bits may differ from those of a run that was not stopped."""
    if before["backend"] != now["backend"]:
        say(
            f"from {before['backend']} to {now['backend']}: weights and the optimizer's state are the same, later bits are not."
        )
        return
    changed = [
        f"{name} {before['versions'].get(name)} then, {version} now"
        for name, version in now["versions"].items()
        if before["versions"].get(name) != version
    ]
    if changed or before["platform"] != now["platform"]:
        what = ", ".join(changed) or "another machine"
        say(f"not what the run began on ({what}): later bits may differ from those of an unbroken run.")
