"""The header of a file of the format safetensors: names, dtypes, shapes and places of the tensors, and metadata, in JSON.

It is read an entry at a time, and an entry is checked and made small before the next one is read. A header may be there only
to fill the memory, and what a parser makes of JSON can be twenty times as long as its text: so it is with Python's, and with
that of the package safetensors, which keeps parts of an entry that no tensor has.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from polyak.state.contents import Spec
from polyak.state.metadata import KEYS
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
_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8}  # bytes of an element

LENGTH = 8  # bytes before the header, with its own length
LONGEST_HEADER = 8 << 20  # bytes: 30,000 tensors with names of 80 characters have 7.1 MB

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ENTRY = re.compile(rb"\{[^{}]{0,4000}\}")  # 64 dimensions of 20 digits have 1,500 characters


class Header:
    """What a header says.

    Args:
        text: The header. It stays in bytes, since one wide character makes all of a string wide.
        size: How many bytes follow it in the file: the numbers of the tensors, one after the other.

    Attributes:
        tensors: Shape and dtype of each tensor by its name.
        begins: Where the numbers of each begin, in bytes after the header.
        metadata: The metadata that a state has, None if there is none.

    Raises:
        ValueError: It is not of the format, or its tensors are none of a state; the reason, and the place.
    """

    def __init__(self, text: bytes, size: int) -> None:
        self.tensors: dict[str, Spec] = {}
        self.begins: dict[str, int] = {}
        self.metadata: dict[str, str] | None = None
        self._text, self._at, self._size = text, 0, size
        for name in self._members():
            if name == "__metadata__":
                self.metadata = self._of_a_state()
                continue
            if name in self.tensors:
                raise ValueError(f"the header has {name!r} twice")
            if wrong := fault(name):
                raise ValueError(f"the name of tensor {name!r} {wrong}")
            self.tensors[name], self.begins[name] = self._entry(name)
        self._skip()
        if self._at < len(text):
            raise ValueError(f"the header goes on at its byte {self._at}, after its end")
        self._check_order()
        self._text = b""  # which memory can do without from here on

    def _members(self) -> Iterator[str]:
        """The names in the object that begins here. Who takes one reads its value before taking the next."""
        self._take(b"{")
        if self._skip() == b"}":
            self._at += 1
            return
        while True:
            name = self._string()
            self._take(b":")
            yield name
            if self._take(b",}") == b"}":
                return

    def _of_a_state(self) -> dict[str, str]:
        if self.metadata is not None:
            raise ValueError("the header has '__metadata__' twice")
        found: dict[str, str] = {}
        for key in self._members():
            value = self._string()
            if key in found:
                raise ValueError(f"the metadata has {key!r} twice")
            if key in KEYS:
                found[key] = value
        return found

    def _entry(self, name: str) -> tuple[Spec, int]:
        """Shape and dtype of a tensor, and where its numbers begin."""
        self._skip()
        match = _ENTRY.match(self._text, self._at)
        try:
            pairs = json.loads(match[0].decode(), object_pairs_hook=list) if match else []
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the entry of tensor {name!r} is no JSON: {error}") from None
        entry = dict(pairs)
        if not match or len(pairs) != 3 or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} must have a dtype, a shape and data_offsets, and nothing else")
        self._at = match.end()
        dtype, shape, offsets = (entry[part] for part in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ValueError(f"tensor {name!r} is of dtype {dtype!r}; a slot has one of {', '.join(_DTYPES)}")
        if b"-" in match[0] or not (_are_whole(shape) and _are_whole(offsets) and len(offsets) == 2):
            raise ValueError(f"tensor {name!r} must have whole numbers >= 0 in its shape and as its two data_offsets")
        spec = Spec(tuple(shape), _DTYPES[dtype])
        begin, end = offsets
        if not end <= self._size:
            raise ValueError(f"the numbers of tensor {name!r} end at byte {end} after the header, and {self._size} follow it")
        if end - begin != size_of(spec):
            raise ValueError(f"tensor {name!r}, {spec}, has {size_of(spec)} bytes; its data_offsets are {offsets}")
        return spec, begin

    def _check_order(self) -> None:
        """That the tensors lie one after the other, from the header to the end of the file."""
        begins = np.fromiter(self.begins.values(), np.int64, len(self.begins))
        ends = begins + np.fromiter(map(size_of, self.tensors.values()), np.int64, len(self.tensors))
        order = np.lexsort((ends, begins))
        before, after = np.append(0, ends[order]), np.append(begins[order], self._size)
        if (wrong := np.flatnonzero(before != after)).size:
            place = int(wrong[0])
            what = "the file ends" if place == len(order) else f"tensor {list(self.begins)[order[place]]!r} begins"
            raise ValueError(f"{what} at byte {after[place]} after the header, and what is before it ends at {before[place]}")

    def _take(self, expected: bytes) -> bytes:
        """One of these characters, after white space."""
        found = self._skip()
        if not found or found not in expected:
            raise ValueError(f"the header has {found!r} at its byte {self._at}, and there must be one of {expected!r}")
        self._at += 1
        return found

    def _string(self) -> str:
        self._skip()
        match = _STRING.match(self._text, self._at)
        if not match:
            raise ValueError(f"the header has no string at its byte {self._at}, and there must be one")
        try:
            string: str = json.loads(match[0].decode())
        except ValueError as error:
            raise ValueError(f"the string at byte {self._at} of the header is none: {error}") from None
        self._at = match.end()
        return string

    def _skip(self) -> bytes:
        """The first character after white space, empty at the end."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches the empty string
        return self._text[self._at : self._at + 1]


def size_of(spec: Spec) -> int:
    """How many bytes the numbers of a tensor take."""
    return _SIZES[spec.dtype] * math.prod(spec.shape)


def _are_whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(x) is int for x in numbers)


def encoded(tensors: Mapping[str, Spec], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The bytes before the numbers, and the names of the tensors in the order in which their numbers follow.

    Raises:
        ValueError: A dtype or a name that the format does not have, or too much of them.
    """
    if foreign := sorted(f"{name} ({spec.dtype})" for name, spec in tensors.items() if spec.dtype not in CODES):
        raise ValueError(f"These slots have dtypes that a file cannot hold: {foreign}. It holds {', '.join(CODES)}.")
    # Wide numbers first, so that each tensor lies at a multiple of its item's size.
    order = sorted(tensors, key=lambda name: (-_SIZES[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in order:
        if wrong := fault(name):
            raise ValueError(f"The tensor's name {name!r} {wrong}.")
        spec = tensors[name]
        begin, end = end, end + size_of(spec)
        header[name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"The names and shapes take {len(text)} bytes; a file can have {LONGEST_HEADER}.")
    return len(text).to_bytes(LENGTH, "little") + text, order
