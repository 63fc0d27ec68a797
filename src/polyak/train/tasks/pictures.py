"""A folder of pictures as a task: one sub-folder a class."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyak.train.models import Ends, choices
from polyak.train.tasks import task
from polyak.train.tasks.picture import SUFFIXES, BadPicture, PictureForm, header
from polyak.train.tasks.split import listed, split
from polyak.train.tasks.target import classification
from polyak.train.tasks.task import Arrays, Numbers, Source, Task, TaskError

LONGEST = 96  # pixels of the longer side. Small networks do not see more in it, and every pixel costs time
SHORTEST = 8
PIECE = 256  # files that are decoded at a time


def pictures(folder: Path, validation: float, seed: int) -> Task:
    """The task of a folder.

    Args:
        folder: With a sub-folder of PNG and JPEG files for each class.
        validation: Share of the pictures.
        seed: Of the split.

    Raises:
        TaskError: There are too few of them, or some are damaged: then all of these are named.
    """
    classes, files, labels, notes = collect(folder)
    train, watched, more = split(len(files), validation, seed, labels=labels, names=classes)
    try:
        sizes = decoded(header, files)
        form, pixels = examine(common(sizes), files, train, folder)
    except TaskError:
        decoded(PictureForm(SHORTEST, SHORTEST, 1).read, files)  # names all that are damaged, not only the first found
        raise
    parts: list[Source]
    if pixels is not None:
        parts = [Arrays(pixels[part], labels[part]) for part in (train, watched)]
    else:
        parts = [Files(form, [files[n] for n in part], labels[part]) for part in (train, watched)]
        notes.append("read from their files in each epoch, since they do not fit into memory")
    goal = classification(classes)

    def prepare() -> object:
        from polyak.train.layers import Pictures

        return Pictures(form, name="pictures")

    shape = (form.height, form.width, form.channels)
    return goal.task(
        name=str(folder),
        about=f"{len(files):,} pictures in {len(classes)} classes of {folder.name}",
        train=parts[0],
        validation=parts[1],
        models=choices(Ends(shape, (prepare,), goal, "uint8"), ("cnn", "resnet", "mlp")),
        notes=(f"{len(classes)} classes: {listed(list(classes))}", described(form, sizes), *notes, *more),
    )


def collect(folder: Path) -> tuple[tuple[str, ...], list[Path], NDArray[np.int32], list[str]]:
    """The classes, in the order of their names; all pictures and the class of each; and notes. Hidden files are not there."""
    try:
        visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in visible if entry.is_dir()]
        loose = [entry for entry in visible if entry.suffix.lower() in SUFFIXES and entry.is_file()]
        if not folders:
            what = "pictures, but no sub-folders" if loose else "no sub-folders"
            raise TaskError(f"{folder} has {what}: pictures are sorted into one sub-folder a class.")
        files: list[Path] = []
        labels: list[int] = []
        others: list[str] = []
        empty: list[str] = []
        for label, entry in enumerate(folders):
            inside = sorted(file for file in entry.iterdir() if not file.name.startswith("."))
            good = [file for file in inside if file.suffix.lower() in SUFFIXES and file.is_file()]
            others += [str(file.relative_to(folder)) for file in inside if file not in set(good)]
            empty += [entry.name] * (not good)
            files += good
            labels += [label] * len(good)
    except OSError as error:
        raise TaskError(f"cannot read {error.filename}: {error.strerror}.") from error
    if empty:
        raise TaskError(f"{folder} has sub-folders without a PNG or JPEG file: {listed(empty)}. Fill them or take them out.")
    if len(folders) < 2:
        raise TaskError(f"{folder} has one class only, {folders[0].name!r}: there is nothing to learn. Add another sub-folder.")
    others += [entry.name for entry in loose]
    notes = [f"left out, since they are no PNG or JPEG in a class: {listed(others)}"] * bool(others)
    return tuple(entry.name for entry in folders), files, np.array(labels, np.int32), notes


def examine(form: PictureForm, files: list[Path], train: Numbers, folder: Path) -> tuple[PictureForm, NDArray[np.uint8] | None]:
    """Decode each file once, also where it will be read again: so a damaged one is named before the first step.

    Returns:
        The form with the mean and the spread of the pictures to train on, and all pictures if they fit into memory.
    """
    held = len(files) * form.height * form.width * form.channels <= task.MEMORY
    kept: list[NDArray[np.uint8]] = []
    sums = np.zeros((2, form.channels))
    trained = np.zeros(len(files), bool)
    trained[train] = True
    for start in range(0, len(files), PIECE):
        piece = np.stack(decoded(form.read, files[start : start + PIECE]))
        kept += [piece] * held
        values = piece[trained[start : start + PIECE]].astype(np.float64)
        sums += values.sum((0, 1, 2)), (values**2).sum((0, 1, 2))
    mean, square = sums / (len(train) * form.height * form.width)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    if not spread.any():
        raise TaskError(f"all pictures in {folder} are one even colour: there is nothing to learn.")
    form = replace(form, mean=mean.tolist(), spread=np.where(spread > 0, spread, 1.0).tolist())
    return form, np.concatenate(kept) if held else None


def common(sizes: list[tuple[int, int, bool]]) -> PictureForm:
    """The form for these sizes: the median height and width, the longer of them at most 96, and colour where one has it."""
    height, width = (float(np.median([size[k] for size in sizes])) for k in (0, 1))
    scale = min(1.0, LONGEST / max(height, width))
    side = [max(SHORTEST, round(x * scale)) for x in (height, width)]
    channels = 3 if any(size[2] for size in sizes) else 1
    return PictureForm(side[0], side[1], channels)


def described(form: PictureForm, sizes: list[tuple[int, int, bool]]) -> str:
    """What is done to the pictures."""
    different = {size[:2] for size in sizes}
    colour = "grey" if form.channels == 1 else "colour"
    if different == {(form.height, form.width)}:
        return f"pictures: {colour}, {form.height}x{form.width} (height x width), as they are"
    first = next(iter(different))
    were = f"{first[0]}x{first[1]}" if len(different) == 1 else f"{len(different):,} different sizes"
    return f"pictures: {colour}, resized from {were} to {form.height}x{form.width} (height x width)"


def decoded(read: Callable[[Path], Any], files: Sequence[Path]) -> list[Any]:
    """What `read` gives of each file. Some are read at a time: Pillow decodes outside of Python's lock.

    Raises:
        TaskError: It raised BadPicture for some of them, which are named.
    """

    def one(file: Path) -> Any:
        try:
            return read(file)
        except BadPicture as bad:
            return bad

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(one, files))
    bad = [str(item) for item in found if isinstance(item, BadPicture)]
    if bad:
        first = "; ".join(bad[:8]) + (f"; and {len(bad) - 8} more" if len(bad) > 8 else "")
        raise TaskError(f"{len(bad):,} of {len(files):,} pictures cannot be read: {first}. Repair them or take them out.")
    return found


class Files:
    """Pictures that are read from their files each time, as a source of examples.

    Args:
        form: What each is made into.
        files: One a picture.
        labels: Their classes.
    """

    def __init__(self, form: PictureForm, files: list[Path], labels: NDArray[np.int32]) -> None:
        self._form = form
        self._files = files
        self._labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def order(self, rng: np.random.Generator) -> Numbers:
        """A permutation, each as likely as any other."""
        return rng.permutation(len(self))

    def read(self, numbers: Numbers) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The pictures of these numbers."""
        files = [self._files[number] for number in numbers]
        return np.stack(decoded(self._form.read, files)), self._labels[numbers]
