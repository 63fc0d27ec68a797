"""Files of optimizer state: what is in them, and that broken and hostile ones are refused with the reason."""

import json
import pickle
import resource
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import polyak.numpy
from polyak import state

LENGTH = 8


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
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
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
    assert group.hyperparameters == {"learning_rate": 0.1, "momentum": 0.9}
    assert group.options["velocity"] == "gradient"
    assert group.last_learning_rate == 0.1


def test_read_takes_no_numbers_into_memory(tmp_path):
    made = polyak.numpy.Momentum({"w": np.zeros(4 << 20)})
    state.save(tmp_path / "a", made)
    code = f"""import resource, polyak.state
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
polyak.state.read({str(tmp_path / "a")!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    kib = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert kib < 8 << 10  # of 32 MiB


def test_truncated_at_every_length(content, tmp_path):
    for length in range(len(content)):
        refused(tmp_path / "broken.safetensors", content[:length])


def test_longer_than_announced(content, tmp_path):
    assert "not fully covered" in refused(tmp_path / "broken.safetensors", content + b"x")


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


METADATA = {"format": "polyak.state", "version": "1", "count": "null"}
GROUP = {"names": ["w"], "options": {}, "hyperparameters": {}, "scheduled": [], "last_learning_rate": None}


def with_group(**changes):
    return METADATA | {"groups": json.dumps([GROUP | changes])}


FINE = {"__metadata__": with_group(), "velocity/w": entry()}

EIGHT = b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "announce a header of 1099511627776 bytes, and 2 follow"),
        (packed(b"[" * 100_000), "invalid JSON"),
        (packed(b'{"a":' * 100_000), "recursion limit"),
        (packed(FINE, EIGHT[:4]), "not fully covered"),
        (packed({"velocity/w": entry(offsets=(0, 16))}, EIGHT * 2), "velocity/w|invalid"),
        (packed({"velocity/w": entry(), "velocity/v": entry()}, EIGHT), "invalid offset"),
        (packed({"velocity/w": entry(offsets=(8, 16))}, EIGHT * 2), "invalid offset"),
        (packed({"velocity/w": entry(shape=(2**40, 2**40))}, EIGHT), "overflow"),
        (packed({"velocity/w": entry(shape=(-1,))}, EIGHT), "invalid value"),
        (packed({"velocity/w": entry(dtype="F99")}, EIGHT), "unknown variant"),
        (packed(FINE | {"velocity/w": entry(dtype="I64")}, EIGHT), "dtype I64; a slot has one of"),
        (packed(json.dumps(FINE)[:-1].encode() + b', "velocity/w": ' + json.dumps(entry()).encode() + b"}", EIGHT), "twice"),
        (packed({"__metadata__": with_group(), "velocity/../w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity//etc/w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity/a\\..\\w": entry()}, EIGHT), "path out of its folder"),
        (packed({"__metadata__": with_group(), "velocity/w\0": entry()}, EIGHT), "cannot be printed"),
        (packed({"__metadata__": with_group(), "w": entry()}, EIGHT), "not of the form slot/parameter"),
        (packed({"velocity/w": entry()}, EIGHT), "does not name the format polyak.state"),
        (packed(FINE | {"__metadata__": with_group() | {"version": "2"}}, EIGHT), "version '2'; this polyak reads version 1"),
        (packed(FINE | {"__metadata__": with_group() | {"count": "-1"}}, EIGHT), "count must be a whole number"),
        (packed(FINE | {"__metadata__": with_group() | {"count": "{"}}, EIGHT), "count is no JSON"),
        (packed(FINE | {"__metadata__": METADATA}, EIGHT), "no groups"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "[" * 99_999}}, EIGHT), "groups is no JSON"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "{}"}}, EIGHT), "groups must be a list"),
        (packed(FINE | {"__metadata__": METADATA | {"groups": "[1]"}}, EIGHT), r"groups\[0\] must be an object"),
        (packed(FINE | {"__metadata__": with_group(names=["v"])}, EIGHT), r"do not name: \['velocity/w'\]"),
        (packed(FINE | {"__metadata__": with_group(names=["w", "w"])}, EIGHT), "name a parameter twice"),
        (packed(FINE | {"__metadata__": with_group(options={"velocity": "speed"})}, EIGHT), "options.velocity"),
        (packed(FINE | {"__metadata__": with_group(hyperparameters={"momentum": "x"})}, EIGHT), "hyperparameters.momentum"),
        (packed(FINE | {"__metadata__": with_group(last_learning_rate=float("nan"))}, EIGHT), "last_learning_rate"),
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


def test_a_long_header_is_refused_before_it_is_read(tmp_path):
    """Gigabytes of announced header that the file has, too: sparse, so that it takes no room on the disk."""
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write((3 << 30).to_bytes(8, "little"))
        file.truncate(4 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="its header has 3221225472 bytes; the longest that is read"):
        state.read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB


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
