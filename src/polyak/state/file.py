"""A file of the format safetensors: 8 bytes with the header's length, the header in JSON, the numbers.

What the header claims is checked against the file's size before any numbers are taken into memory.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from polyak.state.contents import Array, Contents, State, numpy_dtype
from polyak.state.header import LENGTH, LONGEST_HEADER, Header, size_of
from polyak.state.metadata import decode

_OTHERS = {
    b"\x80": "it begins as a pickle does, which could run code and is never read here; load it with the program that wrote it",
    b"PK": "it is a zip archive, as torch.save and Keras write them. Load the first with torch.load(..., weights_only=True) "
    "and give the state_dict; a Keras file must be named .keras",
    b"\x89HDF": "it is an HDF5 file",
}


@contextmanager
def opened(path: Path) -> Iterator[State]:
    """The state in a file, whose numbers can be read inside the context.

    Raises:
        ValueError: The file is broken, or is no state; the reason, and its place in the file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        try:
            header = _header(file)
            contents = decode(header.metadata, header.tensors)
        except ValueError as error:
            raise ValueError(f"{path}: this is not a state that can be read: {error}.") from None
        start = file.tell()

        def array(name: str) -> Array:
            spec = header.tensors[name]
            dtype = numpy_dtype(spec.dtype)
            numbers = np.empty(size_of(spec), np.uint8)
            file.seek(start + header.begins[name])
            if file.readinto(numbers.data) != len(numbers):
                raise ValueError(f"the file became shorter while {name!r} was read from it.")
            little = numbers.view(dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype)
            return little.astype(dtype, copy=False).reshape(spec.shape)

        yield State(contents, array)


def read(path: Path) -> Contents:
    """What a file holds, without its numbers."""
    with opened(path) as state:
        return state.contents


def _header(file: BinaryIO) -> Header:
    """The header, after which the numbers begin."""
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(LENGTH)
    for magic, reason in _OTHERS.items():
        if start.startswith(magic) and int.from_bytes(start, "little") > size:
            raise ValueError(reason)
    if len(start) < LENGTH:
        raise ValueError(f"it has {size} bytes, fewer than the {LENGTH} that give the length of the header")
    length = int.from_bytes(start, "little")
    if length > size - LENGTH:
        raise ValueError(f"its first {LENGTH} bytes announce a header of {length} bytes, and {size - LENGTH} follow")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes; the longest that is read has {LONGEST_HEADER}")
    return Header(file.read(length), size - LENGTH - length)


def raw(array: Array) -> memoryview:
    """The numbers as they stand in a file: in C order, little-endian. A view where they lie so already."""
    array = np.asarray(array, order="C")
    if sys.byteorder == "big" and array.dtype.isbuiltin == 1:
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data
