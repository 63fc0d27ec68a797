"""Checkpoints: folders that are put in place whole, with checksums, of which the last few are kept.

    RUN/checkpoints/step-000000123/     files of any kind, and position.json, which has the checksums of all of them

Nothing here knows what is in the files.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # of a run folder: what a later version cannot go on with has another number

POSITION = "position.json"
CHECKSUM = "sha256"  # of position.json itself, without this entry


class Damaged(ValueError):  # noqa: N818  (it says what is wrong)
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class Every:
    """When checkpoints are made, beside the end of each epoch.

    Attributes:
        steps: After every so many steps; 0 for never.
        minutes: When so many minutes have passed since the last one; 0 for never.
    """

    steps: int = 0
    minutes: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Every":
        """What a person writes: "epoch", "500 steps", "5 minutes".

        Raises:
            ValueError: It is none of these.
        """
        if text == "epoch":
            return cls()
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(steps?|minutes?)", text.strip())
        number = float(match[1]) if match else 0.0
        if match and match[2].startswith("step") and number >= 1 and number.is_integer():
            return cls(steps=int(number))
        if match and match[2].startswith("minute") and number > 0:
            return cls(minutes=number)
        raise ValueError(
            f'--checkpoint must be "epoch", or like "500 steps" or "5 minutes", which are made as well; got {text!r}.'
        )

    def due(self, step: int, seconds: float) -> bool:
        """Whether one is due at a step, so many seconds after the last one."""
        return bool(self.steps and step % self.steps == 0) or bool(self.minutes and seconds >= 60 * self.minutes)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        path: Its folder.
        position: What was said of it when it was written.
    """

    path: Path
    position: Mapping[str, Any]


def write(folder: Path, step: int, fill: Callable[[Path], None], position: Mapping[str, Any], keep: int) -> None:
    """Make a checkpoint, and remove old ones.

    At any moment, those that are there under their names are whole, for this one gets its name last.

    Args:
        folder: Of all checkpoints.
        step: At which this one is made: its name.
        fill: Writes its files into a folder.
        position: What is said of it, in JSON.
        keep: How many stay.

    Raises:
        OSError: It could not be written. Nothing of it is left.
    """
    path = folder / f"step-{step:09}"
    new = folder / f".{path.name}"
    try:
        new.mkdir(parents=True)
        fill(new)
        sums = {file.name: _checksum(file) for file in sorted(new.iterdir())}
        text = _signed({"format": FORMAT, **position, "files": sums})
        (new / POSITION).write_text(text, encoding="ascii")
        for file in (*new.iterdir(), new):
            _sync(file)
        new.rename(path)
        _sync(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for old in _all(folder)[keep:]:
        _remove(old)


def newest(folder: Path, skipped: Callable[[Damaged], object]) -> Checkpoint | None:
    """The newest checkpoint that is whole.

    Args:
        folder: Of all checkpoints.
        skipped: Is told of newer ones that are not.
    """
    for path in _all(folder):
        try:
            return read(path)
        except Damaged as error:
            skipped(error)
    return None


def read(path: Path) -> Checkpoint:
    """A checkpoint, after every byte of it was checked.

    Raises:
        Damaged: A file is missing, or is not as it was written.
    """
    try:
        text = (path / POSITION).read_text(encoding="ascii")
        position = json.loads(text)
        whole = _signed({name: value for name, value in position.items() if name != CHECKSUM}) == text
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(f"checkpoint {path.name} is damaged: {POSITION} cannot be read ({error})") from None
    if not whole:
        raise Damaged(f"checkpoint {path.name} is damaged: {POSITION} is not as it was written")
    for name, expected in position["files"].items():
        try:
            found = _checksum(path / name)
        except OSError as error:
            raise Damaged(f"checkpoint {path.name} is damaged: {name} cannot be read ({error.strerror})") from None
        if found != expected:
            raise Damaged(f"checkpoint {path.name} is damaged: {name} is not as it was written")
    return Checkpoint(path, position)


def forget_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps, which are damaged, and what was left half written or half removed."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".step-"):
                shutil.rmtree(path, ignore_errors=True)
    for path in _all(folder):
        if int(path.name.removeprefix("step-")) > step:
            _remove(path)


def _all(folder: Path) -> list[Path]:
    """The checkpoints by their names, the newest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint, which has its name no longer when the first file of it goes."""
    gone = path.rename(path.with_name(f".{path.name}"))
    shutil.rmtree(gone, ignore_errors=True)


def _signed(position: Mapping[str, Any]) -> str:
    text = json.dumps(position, allow_nan=False)
    return json.dumps({**position, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}, indent=1) + "\n"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
