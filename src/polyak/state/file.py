"""A file of the format safetensors: 8 bytes with the header's length, the header in JSON, the numbers.

Its parser checks what the header claims against the file's size before anything is taken into memory: dtypes, shapes, offsets
that overlap or leave gaps. What a state must have beyond that is checked here.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from polyak.state.contents import Array, Contents, Spec, State, numpy_dtype
from polyak.state.metadata import decode
from polyak.state.names import fault

# The names that safetensors has for the dtypes a slot can have.
CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
}
_DTYPES = {code: name for name, code in CODES.items()}

LENGTH = 8  # bytes, at the beginning
LONGEST_HEADER = 32 << 20  # of 150,000 tensors with long names; what is made of it in memory is some times as large

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
            header = _header(file, path)
            metadata = header.pop("__metadata__", None)
            tensors = {name: _spec(name, entry) for name, entry in header.items()}
            contents = decode(metadata, tensors)
        except ValueError as error:
            raise ValueError(f"{path}: this is not a state that can be read: {error}.") from None
        start = file.tell()

        def array(name: str) -> Array:
            begin, end = header[name]["data_offsets"]
            numbers = np.empty(end - begin, np.uint8)
            file.seek(start + begin)
            if file.readinto(numbers.data) != len(numbers):
                raise ValueError(f"the file became shorter while {name!r} was read from it.")
            dtype = numpy_dtype(tensors[name].dtype)
            little = numbers.view(dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype)
            return little.astype(dtype, copy=False).reshape(tensors[name].shape)

        yield State(contents, array)


def read(path: Path) -> Contents:
    """What a file holds, without its numbers."""
    with opened(path) as state:
        return state.contents


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
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
    try:
        with safe_open(path, "numpy"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{error} (in the header, bytes {LENGTH} to {LENGTH + length}, or the numbers after it)") from None
    header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_without_repetition)
    return header


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the header has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _spec(name: str, entry: dict[str, Any]) -> Spec:
    if wrong := fault(name):
        raise ValueError(f"the name of tensor {name!r} {wrong}")
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"tensor {name!r} is of dtype {entry['dtype']}; a slot has one of {', '.join(_DTYPES)}")
    return Spec(tuple(entry["shape"]), _DTYPES[entry["dtype"]])


def header_of(contents: Contents, metadata: dict[str, str]) -> tuple[bytes, list[str]]:
    """The bytes before the numbers, and the names of the tensors in the order in which their numbers follow.

    Raises:
        ValueError: A dtype or a name that the format does not have.
    """
    dtypes = {name: numpy_dtype(spec.dtype) for name, spec in contents.tensors.items()}
    if foreign := sorted(f"{name} ({spec.dtype})" for name, spec in contents.tensors.items() if spec.dtype not in CODES):
        raise ValueError(f"These slots have dtypes that a file cannot hold: {foreign}. It holds {', '.join(CODES)}.")
    # Wide numbers first, so that each tensor lies at a multiple of its item's size.
    order = sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in order:
        if wrong := fault(name):
            raise ValueError(f"The tensor's name {name!r} {wrong}.")
        spec = contents.tensors[name]
        begin, end = end, end + dtypes[name].itemsize * int(np.prod(spec.shape, dtype=object))
        header[name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"The names and shapes take {len(text)} bytes; a file can have {LONGEST_HEADER}.")
    return len(text).to_bytes(LENGTH, "little") + text, order


def raw(array: Array) -> memoryview:
    """The numbers as they stand in a file: in C order, little-endian. A view where they lie so already."""
    array = np.asarray(array, order="C")
    if sys.byteorder == "big" and array.dtype.isbuiltin == 1:
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data
