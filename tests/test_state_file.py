"""Files of optimizer state: what is in them, and that broken and hostile ones are refused with the reason."""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

import polyak.numpy
from polyak import state
from polyak.state.header import LENGTH, LONGEST_HEADER


def optimizer(scale=1.0):
    """One with a velocity that is not zero, of all that a shape can be."""
    rng = np.random.default_rng(0)
    shapes = {"dense/kernel": (3, 2), "b": (), "none": (0, 4)}
    params = {name: np.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}
    params["half"] = rng.standard_normal(5).astype(np.float32)
    made = polyak.numpy.Momentum(params, lr=0.1)
    made.step({name: np.asarray(scale * w, w.dtype) for name, w in params.items()})
    return made


def slots(made):
    return {name: array.copy() for name, array in made.slots["velocity"].items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "a.safetensors"
    state.save(path, optimizer())
    return path


@pytest.fixture(scope="module")
def content(saved):
    return saved.read_bytes()


def packed(header, numbers=b""):
    header = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return len(header).to_bytes(LENGTH, "little") + header + numbers


def unpacked(content):
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    return json.loads(content[LENGTH:end]), content[end:]


def refused(path, content):
    """The error for a file with this content, and the certainty that the optimizer is as it was."""
    path.write_bytes(content)
    made = optimizer(scale=2.0)
    made.lr = 0.3
    before = slots(made)
    with pytest.raises(ValueError, match=r"broken\.safetensors") as info:
        state.load(path, made)
    assert_same(slots(made), before)
    assert made.lr == 0.3
    return str(info.value)


def test_it_is_a_safetensors_file(saved):
    assert_same({f"velocity/{name}": array for name, array in slots(optimizer()).items()}, load_file(saved))


def test_the_numbers_are_aligned(content):
    header, _ = unpacked(content)
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    for name, entry in header.items():
        if name != "__metadata__":
            assert (start + entry["data_offsets"][0]) % {"F64": 8, "F32": 4}[entry["dtype"]] == 0


def test_what_read_returns(saved):
    contents = state.read(saved)
    assert {name: str(spec) for name, spec in contents.tensors.items()} == {
        "velocity/b": "float64[]",
        "velocity/dense/kernel": "float64[3, 2]",
        "velocity/none": "float64[0, 4]",
        "velocity/half": "float32[5]",
    }
    (group,) = contents.groups
    assert group.names == ("dense/kernel", "b", "none", "half")
    assert group.method == "Momentum"
    assert group.hyperparameters == {"learning_rate": 0.1, "momentum": 0.9}
    assert group.options["velocity"] == "gradient"
    assert group.last_learning_rate == 0.1
    assert contents.count == 1


def growth(path):
    """By how many bytes a process grows at most while it reads what a file holds."""
    code = f"""import polyak.state
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
before = peak()
try:
    polyak.state.read({str(path)!r})
except ValueError:
    pass
print(peak() - before)"""
    return 1024 * int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


measured = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how large a process was")


@measured
def test_read_takes_no_numbers_into_memory(tmp_path):
    made = polyak.numpy.Momentum({"w": np.zeros(4 << 20)})
    state.save(tmp_path / "a", made)
    assert growth(tmp_path / "a") < 8 << 20  # of 32 MiB


def test_truncated_at_every_length(content, tmp_path):
    for length in range(len(content)):
        refused(tmp_path / "broken.safetensors", content[:length])


def test_longer_than_announced(content, tmp_path):
    assert "the file ends at byte" in refused(tmp_path / "broken.safetensors", content + b"x")


@given(st.data())
def test_flipped_bytes_in_the_header(content, tmp_path_factory, data):
    """Each is refused, or is another state that fits, or has other names or numbers in its metadata: never another error."""
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    flipped = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "broken.safetensors"
    path.write_bytes(flipped)
    made = optimizer(scale=2.0)
    before = slots(made)
    try:
        state.load(path, made)
    except ValueError:
        assert_same(slots(made), before)
    else:
        assert [array.shape for array in made.slots["velocity"].values()] == [array.shape for array in before.values()]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(tmp_path_factory, junk, framed):
    path = tmp_path_factory.getbasetemp() / "broken.safetensors"
    path.write_bytes(packed(junk) if framed else junk)
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        state.read(path)


def entry(shape=(1,), offsets=(0, 8), dtype="F64"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


METADATA = {"format": "polyak.state", "version": "1", "count": "null", "names": "w"}
GROUP = {"method": "Momentum", "parameters": 1, "options": {}, "hyperparameters": {}, "scheduled": []} | {
    "last_learning_rate": None
}
CHOSEN = {"velocity": "gradient", "nesterov": False, "dampening": 0.0}


def with_group(**changes):
    return METADATA | {"groups": json.dumps([GROUP | changes])}


FINE = {"__metadata__": with_group(), "velocity/w": entry()}

EIGHT = b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "announce a header of 1099511627776 bytes, and 2 follow"),
        (packed(b"[" * 100_000), "must be one of b'{'"),
        (packed(b'{"v/a":' * 100_000), "must have a dtype, a shape and data_offsets, and nothing else"),
        (packed(b'{"v/a":{"shape":' + b"[" * 3000 + b"}}"), "is no JSON: maximum recursion depth"),
        (packed(b"{"), "no string at its byte 1"),
        (packed(b'{"v'), "no string at its byte 1"),
        (packed(json.dumps(FINE).encode() + b" x", EIGHT), "goes on at its byte"),
        (packed(b'{"velocity/\xff":'), "can't decode byte 0xff"),
        (packed(b"{}"), "does not name the format polyak.state"),
        (packed(FINE, EIGHT[:4]), "end at byte 8 after the header, and 4 follow it"),
        (packed(FINE, EIGHT * 2), "the file ends at byte 16 after the header, and what is before it ends at 8"),
        (packed({"velocity/w": entry(offsets=(0, 16))}, EIGHT * 2), r"velocity/w', float64\[1\], has 8 bytes"),
        (packed({"velocity/w": entry(), "velocity/v": entry()}, EIGHT), "begins at byte 0 after the header"),
        (packed({"velocity/w": entry(offsets=(8, 16))}, EIGHT * 2), "'velocity/w' begins at byte 8 after the header"),
        (packed({"velocity/w": entry(shape=(2**40, 2**40))}, EIGHT), "has 9671406556917033397649408 bytes"),
        (packed({"velocity/w": entry(shape=(-1,))}, EIGHT), "whole numbers >= 0 in its shape"),
        (packed(b'{"v/w":{"dtype":"F64","shape":[-0],"data_offsets":[0,0]}}'), "whole numbers >= 0 in its shape"),
        (packed({"velocity/w": entry(shape=(1.0,))}, EIGHT), "whole numbers >= 0 in its shape"),
        (packed({"velocity/w": entry(shape=(True,))}, EIGHT), "whole numbers >= 0 in its shape"),
        (packed({"velocity/w": entry(offsets=(0, 8, 8))}, EIGHT), "whole numbers >= 0 in its shape"),
        (packed({"velocity/w": entry() | {"more": 1}}, EIGHT), "and nothing else"),
        (packed(b'{"v/w":{"dtype":"F64","shape":[1],"shape":[1],"data_offsets":[0,8]}}', EIGHT), "and nothing else"),
        (packed({"velocity/w": ["F64", [1], [0, 8]]}, EIGHT), "and nothing else"),
        (packed({"velocity/w": entry(dtype="F99")}, EIGHT), "dtype 'F99'; a slot has one of"),
        (packed({"velocity/w": entry(dtype=[])}, EIGHT), r"dtype \[\]; a slot has one of"),
        (packed(FINE | {"velocity/w": entry(dtype="I64")}, EIGHT), "dtype 'I64'; a slot has one of"),
        (packed(json.dumps(FINE)[:-1].encode() + b', "velocity/w": ' + json.dumps(entry()).encode() + b"}", EIGHT), "twice"),
        (packed(b'{"__metadata__":{},"__metadata__":{}}'), "'__metadata__' twice"),
        (packed(b'{"__metadata__":{"format":"a","format":"b"}}'), "'format' twice"),
        (packed({"__metadata__": with_group(), "velocity/../w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity//etc/w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity/a\\..\\w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity/w\0": entry()}, EIGHT), "cannot be printed"),
        (packed({"__metadata__": with_group(), "w": entry()}, EIGHT), "not of the form slot/parameter"),
        (packed({"velocity/w": entry()}, EIGHT), "does not name the format polyak.state"),
        (packed(FINE | {"__metadata__": with_group() | {"version": "2"}}, EIGHT), "version '2'; this polyak reads version 1"),
        (packed(FINE | {"__metadata__": with_group() | {"count": "-1"}}, EIGHT), "count must be a whole number"),
        (packed(FINE | {"__metadata__": with_group() | {"count": str(2**31)}}, EIGHT), "count must be a whole number"),
        (packed(FINE | {"__metadata__": with_group() | {"count": "{"}}, EIGHT), "count is no JSON"),
        (packed(FINE | {"__metadata__": METADATA}, EIGHT), "no groups"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "[" * 99_999}}, EIGHT), "groups is no JSON"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "{}"}}, EIGHT), "groups must be a list"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "[1]"}}, EIGHT), r"groups\[0\] must be an object"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": " " * (2 << 20)}}, EIGHT), "groups has 2097152 characters"),
        (packed(FINE | {"__metadata__": with_group() | {"names": "\n" * 100_000}}, EIGHT), "more than 100000 names"),
        (packed(FINE | {"__metadata__": with_group() | {"names": ".."}}, EIGHT), "parameter '..' looks like a path"),
        (packed(FINE | {"__metadata__": with_group() | {"names": "v"}}, EIGHT), "'velocity/w' first"),
        (packed(FINE | {"__metadata__": with_group(parameters=2) | {"names": "w\nw"}}, EIGHT), "names are not unique"),
        (packed(FINE | {"__metadata__": with_group(parameters=2)}, EIGHT), "has 1 names, and its groups have 2 parameters"),
        (packed(FINE | {"__metadata__": with_group(parameters=-1)}, EIGHT), "parameters must be a whole number"),
        (packed(FINE | {"__metadata__": with_group(method="Adam")}, EIGHT), "method 'Adam'; this polyak has Momentum, QHM"),
        (packed(FINE | {"__metadata__": with_group(options=CHOSEN | {"velocity": "speed"})}, EIGHT), "velocity must be one of"),
        (packed(FINE | {"__metadata__": with_group(options=CHOSEN | {"nesterov": {}})}, EIGHT), "nesterov must be True or"),
        (packed(FINE | {"__metadata__": with_group(options={"nu": 1.0})}, EIGHT), "options has 'nu', which Momentum does not"),
        (packed(FINE | {"__metadata__": with_group(options={"maximize": 1})}, EIGHT), "maximize must be true or false"),
        (packed(FINE | {"__metadata__": with_group(options={"decay": "x"})}, EIGHT), "decay must be"),
        (packed(FINE | {"__metadata__": with_group(options={"weight_decay": -1.0})}, EIGHT), "weight_decay must be"),
        (
            packed(FINE | {"__metadata__": with_group(method="AggMo", options={"momenta": [0.5, 1.0]})}, EIGHT),
            r"momenta\[1\] must be in \[0, 1\)",
        ),
        (packed(FINE | {"__metadata__": with_group(hyperparameters={"momentum": "x"})}, EIGHT), "an object of numbers"),
        (packed(FINE | {"__metadata__": with_group(hyperparameters={"momentum": 10**400})}, EIGHT), "an object of numbers"),
        (packed(FINE | {"__metadata__": with_group(hyperparameters={"momentum": 1.5})}, EIGHT), "momentum must be in"),
        (packed(FINE | {"__metadata__": with_group(hyperparameters={"b1": 0.5})}, EIGHT), "has 'b1', which Momentum does not"),
        (packed(FINE | {"__metadata__": with_group(scheduled=["b1"])}, EIGHT), "scheduled has 'b1', which Momentum does not"),
        (packed(FINE | {"__metadata__": with_group(last_learning_rate=float("nan"))}, EIGHT), "last_learning_rate"),
        (packed(FINE | {"__metadata__": with_group(last_learning_rate=-1.0)}, EIGHT), "learning_rate must be finite"),
        (pickle.dumps({"velocity": [1, 2]}), "begins as a pickle does"),
    ],
)
def test_what_is_wrong_is_said(content, message, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as info:
        state.read(path)
    assert str(path) in str(info.value)


def test_the_header_of_these_cases_is_fine_otherwise(tmp_path):
    (tmp_path / "a").write_bytes(packed(FINE, EIGHT))
    assert state.read(tmp_path / "a").tensors.keys() == {"velocity/w"}


@given(st.data())
def test_what_safetensors_refuses_is_refused(content, tmp_path_factory, data):
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    changed = bytearray(content)
    at = data.draw(st.integers(LENGTH, end - 1))
    changed[at] = data.draw(st.sampled_from(b'0123456789[]{}",: ') | st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "broken.safetensors"
    path.write_bytes(changed)
    try:
        with safe_open(path, "numpy"):
            pass
    except SafetensorError:
        with pytest.raises(ValueError, match="this is not a state"):
            state.read(path)


@measured
def test_a_long_header_is_refused_before_it_is_read(tmp_path):
    """Gigabytes of announced header that the file has, too: sparse, so that it takes no room on the disk."""
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write((3 << 30).to_bytes(8, "little"))
        file.truncate(4 << 30)
    with pytest.raises(ValueError, match="its header has 3221225472 bytes; the longest that is read"):
        state.read(path)
    assert growth(path) < 8 << 20


def with_tensors(names):
    """A header of empty tensors, of which no two have one shape."""
    metadata = METADATA | {"names": "\n".join(names), "groups": json.dumps([GROUP | {"parameters": len(names)}])}
    return packed({"__metadata__": metadata} | {f"v/{name}": entry((0, 1000 + i), (0, 0)) for i, name in enumerate(names)})


LARGE = {
    "30,000 tensors with names of 80 characters": lambda: with_tensors([f"{i:080}" for i in range(30_000)]),
    "many short names": lambda: with_tensors([f"{i:x}" for i in range(90_000)]),
    "characters of four bytes": lambda: with_tensors([f"{i:x}\U0001f600" for i in range(80_000)]),
    "many groups": lambda: packed({"__metadata__": METADATA | {"groups": "[" + "[]," * 349_000 + "[]]"}}),
    "lists in an entry": lambda: packed(b'{"v/w":{"dtype":"F32","more":[' + b"[]," * 2_500_000 + b"[]]}}"),
    "long shapes, and a character of four bytes": lambda: packed(
        b'{"__metadata__":{"\xf0\x9f\x98\x80":""},'
        + b",".join(
            b'"v/%d":{"dtype":"F32","shape":[0%s],"data_offsets":[0,0]}' % (i, b",999" * (900 + i % 64)) for i in range(2_000)
        )
        + b"}"
    ),
    "a shape of millions": lambda: packed(
        b'{"v/w":{"dtype":"F32","shape":[0' + b",0" * 3_500_000 + b'],"data_offsets":[0,0]}}'
    ),
    "many metadata": lambda: packed(b'{"__metadata__":{' + b",".join(b'"%x":""' % i for i in range(700_000)) + b"}}"),
    "many names": lambda: packed({"__metadata__": METADATA | {"names": "abc\n" * 1_500_000}}),
}


@measured
@pytest.mark.parametrize("what", LARGE)
def test_the_memory_for_a_header(what, tmp_path):
    path = tmp_path / "large"
    content = LARGE[what]()
    path.write_bytes(content)
    assert len(content) < LONGEST_HEADER  # so that it is read
    assert growth(path) < (32 << 20) + 8 * len(content)
    if what.startswith("30,000"):
        assert len(state.read(path).tensors) == 30_000
        assert growth(path) < 5 * len(content)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_executed(protocol, tmp_path):
    for name in ("a.safetensors", "a.pt", "a.keras"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(), protocol))
        if name != "a.keras":  # of Keras's loader, in test_state_keras
            with pytest.raises(ValueError, match="not a state that can be read"):
                state.load(tmp_path / name, optimizer())


def test_an_archive_is_named_as_such(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"zip archive.*weights_only=True"):
        state.read(tmp_path / "a.pt")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        state.load(tmp_path / "nowhere", optimizer())
    with pytest.raises(OSError, match="missing"):
        state.save(tmp_path / "missing" / "a", optimizer())


@pytest.mark.parametrize("name", ["../w", "/w", "a/../b", "w\n", "\ud800"])
def test_a_name_that_could_not_be_read_is_not_written(name, tmp_path):
    made = polyak.numpy.Momentum({name: np.zeros(2)})
    with pytest.raises(ValueError, match="cannot stand in a file"):
        state.save(tmp_path / "a", made)
    assert not list(tmp_path.iterdir())
