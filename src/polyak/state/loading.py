"""Where a state to load comes from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from polyak.state import file
from polyak.state.contents import State
from polyak.state.frontends import adapter


@contextmanager
def source_of(place: Any) -> Iterator[State]:
    """The state in a file, in a Keras file, or of an optimizer."""
    if not isinstance(place, str | PathLike):
        state: State = adapter(place).capture(place)
        # A copy, since frameworks may keep an array that they are given, and the other optimizer goes on writing into its own.
        yield replace(state, array=lambda name: np.array(state.array(name)))
    elif (path := Path(place)).suffix == ".keras":
        from polyak.state.keras import of_model

        yield of_model(path)
    else:
        with file.opened(path) as state:
            try:
                yield state
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
