"""Tables, arrays and pictures: what is understood of a file, and what is said of a bad one. Nothing here needs Keras."""

import datetime as dt
import warnings
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from polyak.train.tasks import TaskError, find, task
from polyak.train.tasks.blocks import Blocks, Store
from polyak.train.tasks.columns import Column, cells, columns_from, columns_to
from polyak.train.tasks.describe import CATEGORIES, describe
from polyak.train.tasks.files import read
from polyak.train.tasks.picture import PictureForm
from polyak.train.tasks.text import recognise


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, content, encoding="utf-8"):
    with open(name, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode(encoding))


def table(rows=40, header="a,b,y"):
    return header + "\n" + "".join(f"{i % 7},{'uv'[i % 2]},{i * 0.5}\n" for i in range(rows))


def column(values, name="c", dtype=None, form=""):
    """What a column of these values is, if all rows are trained on."""
    series = pl.Series(values, dtype=dtype)
    return describe(name, series, np.arange(len(series)), form)


# Text


@pytest.mark.parametrize(
    ("texts", "form", "first"),
    [
        (["1", " 2", "-3"], ".", 1),
        (["1.5", "2e3", None], ".", 1.5),
        (["inf", "1"], ".", np.inf),
        (["TRUE", "false", None], "true/false", True),
        (["2024-02-29", "1999-12-31"], "%Y-%m-%d", dt.date(2024, 2, 29)),
        (["31.12.2024", "1.2.2024"], "%d.%m.%Y", dt.date(2024, 12, 31)),
        (["31/12/2024", "01/02/2024"], "%d/%m/%Y", dt.date(2024, 12, 31)),
        (["12/31/2024", "01/02/2024"], "%m/%d/%Y", dt.date(2024, 12, 31)),
        (["2024-01-02 03:04", "2024-01-02 13:14"], "%Y-%m-%d %H:%M", dt.datetime(2024, 1, 2, 3, 4)),
        (["2024-01-02T03:04:05.5", "2024-01-02T03:04:05"], "%Y-%m-%dT%H:%M:%S%.f", dt.datetime(2024, 1, 2, 3, 4, 5, 500000)),
        (["03:04", "23:59"], "%H:%M", dt.time(3, 4)),
        (["red", "2024-01-02"], "", "red"),
        (["1,5", "2"], "", "1,5"),
    ],
)
def test_text_is_recognised_by_all_of_its_cells(texts, form, first):
    typed, found, _ = recognise(pl.Series("c", texts), comma=False)
    assert found == form
    assert typed[0] == first
    assert typed.null_count() == texts.count(None)


def test_a_decimal_comma_is_one_where_cells_are_not_separated_by_commas():
    typed, form, _ = recognise(pl.Series("c", ["1,5", "2"]), comma=True)
    assert (typed.to_list(), form) == ([1.5, 2.0], ",")


def test_dates_that_could_be_two_and_almost_numbers_are_said():
    _, _, note = recognise(pl.Series("when", ["01/02/2024", "03/04/2024"]), comma=False)
    assert note == "read as day/month/year, though month/day/year would fit too"
    typed, form, note = recognise(pl.Series("size", [*map(str, range(20)), "big"]), comma=False)
    assert (typed.dtype, form) == (pl.String, "")
    assert note == "text, since 1 of 21 cells are no numbers ('big' in row 21)"


# Columns


def test_numbers_are_less_their_median_and_keep_precision_that_float32_has_not():
    values = [1e9, 1e9 + 1, 1e9 + 3, None]
    found, note = column(values)
    assert found == Column("c", "number", missing=True, centre=1e9 + 1, spread=found.spread)
    assert found.spread == pytest.approx(np.std([0, 1, 3]))
    assert note == "missing in 1 row, where the median stands and a mark"
    np.testing.assert_array_equal(cells([found], pl.DataFrame({"c": values})), [[-1], [0], [2], [np.nan]])


def test_categories_have_numbers_and_places_for_the_missing():
    found, note = column(["red", "blue", None, "red"])
    assert (found.categories, found.other, found.missing) == (("blue", "red"), False, True)
    assert note == "missing in 1 row, which is a category of its own"
    new = pl.DataFrame({"c": ["red", "green", None]})
    np.testing.assert_array_equal(cells([found], new), [[1], [np.nan], [2]])  # green was never seen


def test_of_many_categories_the_commonest_are_told_apart():
    values = [f"v{k}" for k in range(2 * CATEGORIES) for _ in range(3 if k < CATEGORIES else 2)]
    found, note = column(values)
    assert set(found.categories) == {f"v{k}" for k in range(CATEGORIES)}
    assert found.other
    assert note == "the 100 commonest of 200 categories are told apart"
    new = pl.DataFrame({"c": ["v0", "v150", "never seen"]})
    np.testing.assert_array_equal(cells([found], new), [[found.categories.index("v0")], [CATEGORIES], [CATEGORIES]])


def test_dates_are_days_and_where_they_stand_in_year_and_week():
    days = [dt.date(2024, 1, 1), dt.date(2024, 1, 8), dt.date(2024, 1, 15)]
    found, _ = column(days)
    assert (found.kind, found.clock, found.cells) == ("date", False, 5)
    given = cells([found], pl.DataFrame({"c": days}))
    np.testing.assert_array_equal(given[:, 0], [-7, 0, 7])
    np.testing.assert_allclose(given[:, 3:], given[:1, 3:].repeat(3, 0), atol=1e-6)  # all are Mondays; sines are float32
    np.testing.assert_allclose(np.hypot(given[:, 1], given[:, 2]), 1, rtol=1e-6)
    moments = [dt.datetime(2024, 1, 1, 6), dt.datetime(2024, 1, 2, 18)]
    found, _ = column(moments)
    assert (found.clock, found.cells) == (True, 7)
    np.testing.assert_allclose(cells([found], pl.DataFrame({"c": moments}))[:, 5:], [[1, 0], [-1, 0]], atol=1e-6)


def test_times_booleans_and_durations_are_numbers():
    times = [dt.time(0), dt.time(6), dt.time(12)]
    found, _ = column(times)
    np.testing.assert_allclose(cells([found], pl.DataFrame({"c": times})), [[-6, 0, 1], [0, 1, 0], [6, 0, -1]], atol=1e-6)
    found, _ = column([True, False, True])
    np.testing.assert_array_equal(cells([found], pl.DataFrame({"c": [True, False]})), [[0], [-1]])
    found, _ = column([dt.timedelta(days=1), dt.timedelta(days=3)])
    assert (found.kind, found.centre, found.spread) == ("number", 2, 1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 1, 1], "the same in every row"),
        ([None, None], "no value at all"),
        (list(range(100, 130)), "counts the rows"),
        ([f"name {k}" for k in range(30)], "30 different texts in 30 rows"),
        ([np.nan, np.inf, np.nan], "no finite value"),
        ([[1], [2]], "List(Int64), neither numbers nor text nor dates"),
    ],
)
def test_columns_of_no_use_are_left_out_with_the_reason(values, reason):
    assert column(values) == (None, reason)


def test_numbers_are_an_identifier_by_name_only_where_all_differ():
    values = np.random.default_rng(0).permutation(1000)[:50].tolist()
    assert column(values, name="user_id") == (None, "another number in every row")
    assert column(values, name="width")[0] is not None
    assert column([1, *values[1:], values[1]], name="user_id")[0] is not None


def test_columns_survive_a_file():
    columns = [column(["a", None, "b"])[0], column([1.5, 2.5])[0]]
    assert columns_from(columns_to(columns)) == columns


# Tables


def test_a_table_is_split_understood_and_said():
    write("flats.csv", "n,city,area,price\n" + "".join(f"{i},{'PL'[i % 2]},{i % 11 + 0.5},{i * 10.5}\n" for i in range(50)))
    found = find("flats.csv", target="price", validation=0.1, seed=5)
    assert (found.kind, found.main, found.classes) == ("regression", "mae", None)
    assert (len(found.train), len(found.validation), found.test) == (45, 5, None)
    assert found.train.x.shape == (45, 2)
    assert (found.train.x.dtype, found.train.y.dtype, found.train.y.shape) == (np.float32, np.float32, (45, 1))
    assert found.notes == (
        "the target 'price' of flats.csv: values (decimals)",
        "columns: 1 number, 1 category",
        "left out: 'n' (counts the rows)",
    )


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["u", "v"] * 10, ("u", "v")),
        (["true", "false"] * 10, ("false", "true")),
        (["3", "1"] * 10, ("1", "3")),
        (["10", "9"] * 10, ("9", "10")),
        (list(map(str, range(20))), None),
        (["1.0", "2.0"] * 10, None),
    ],
)
def test_the_kind_of_a_target_is_told_from_its_values(values, classes):
    write("t.csv", "a,y\n" + "".join(f"{i % 3},{value}\n" for i, value in enumerate(values)))
    found = find("t.csv", target="y")
    assert found.classes == classes
    assert found.kind == ("regression" if classes is None else "classification")
    if classes:
        assert found.train.y.dtype == np.int32
        assert set(found.train.y) == {0, 1}


def test_columns_may_have_any_name():
    names = ["n", "rows", "^.*$", "value", ""]
    write("t.csv", ";".join([*names, "count"]) + "\n" + "u;v;1;w;x;0.5\nv;u;2;x;w;1.5\n" * 6)
    assert find("t.csv", target="count").train.x.shape == (10, 5)
    write("t.csv", ";".join([*names, "^y$"]) + "\n" + "u;v;1;w;x;0.5\nv;u;2;x;w;1.5\n" * 6)
    assert find("t.csv", target="^y$").kind == "regression"


def test_statistics_are_those_of_the_rows_to_train_on():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.lognormal(0, 1, 200), "y": rng.integers(0, 2, 200)})
    frame.write_parquet("t.parquet")
    found = find("t.parquet", target="y")
    column = found.models["mlp"].args[1].before[0]  # Keras would be needed to build the layer: its columns are in the closure
    [spread] = [c.spread for cell in column.__closure__ for c in cell.cell_contents]
    raw = found.train.x[:, 0].astype(np.float64)
    assert np.median(raw) == pytest.approx(0, abs=1e-6)
    assert spread == pytest.approx(raw.std(), rel=1e-6)  # the cells were rounded to float32


def test_csv_and_parquet_with_the_same_content_are_the_same_task():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "number": rng.standard_normal(60),
            "whole": rng.integers(0, 9, 60),
            "text": rng.choice(["red", "blue"], 60),
            "day": [dt.date(2024, 1, 1) + dt.timedelta(int(k)) for k in rng.integers(0, 400, 60)],
            "flag": rng.random(60) < 0.5,
            "y": rng.choice(["u", "v"], 60),
        }
    ).with_columns(pl.when(pl.col("whole") == 3).then(None).otherwise(pl.col("number")).alias("number"))
    frame.write_csv("t.csv")
    frame.write_csv("t.tsv", separator="\t")
    frame.write_parquet("t.parquet", row_group_size=13)
    one, two, three = (find(name, target="y") for name in ("t.csv", "t.tsv", "t.parquet"))
    for other in (two, three):
        np.testing.assert_array_equal(one.train.x, other.train.x)
        np.testing.assert_array_equal(one.validation.y, other.validation.y)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + table(),
        table().replace("\n", "\r\n"),
        table().replace(",", ";"),
        table().replace(".", "D").replace(",", ";").replace("D", ","),
        table().replace(",", "|"),
        table().replace("u", '"u\nu"').replace("v", '"v, ""v"""'),
        table() + "\n\n",
    ],
    ids=["bom", "crlf", "semicolon", "decimal comma", "bar", "quoted", "blank lines"],
)
def test_csv_as_programs_write_it(content):
    write("t.csv", content)
    found = find("t.csv", target="y")
    assert found.kind == "regression"
    np.testing.assert_array_equal(np.sort(np.concatenate([found.train.y, found.validation.y])[:, 0]), np.arange(40) * 0.5)
    assert found.train.x.shape == (32, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "^t.csv is empty"),
        ("a,b,y\n", "has a header and no row"),
        ("a,a,y\n1,2,3\n", "more than one column named 'a': rename them"),
        ("y\n1\n2\n", "names one column only, or its cells are not separated"),
        ("a,b,y\n1,2,3\n", "is 3 in every row"),
        ("a,y\n" + "1,2.5\n2,2.5\n" * 9, "is 2.5 in every row: there is nothing to learn"),
        ("a,y\n" + "1,2.5\n1,3.5\n" * 9, "no column from which 'y' could be learned: 'a' .the same in every row"),
        (table() + "1,u,NaN\n2,u,\n", "is missing or not finite in 2 of 42 rows: 41, 42, where 1 is the first. Fill them in"),
        ("a,y\n1,\n2,\n", "'y' of t.csv has no value at all"),
        ("a,y\n" + "".join(f"{i},name {i}\n" for i in range(40)), "40 different texts in 40 rows: names or remarks"),
        ("a,y\n" + "".join(f"{i % 5},{1e9 + i % 7 * 0.1}\n" for i in range(30)), "hardly differs from 1e.09"),
        ("a,y\n1,u\n2,v\n", "2 examples cannot be parted"),
        (table() + "1,2,3,4\n", "line 42 of t.csv has 4 cells and the header 3"),
        (table() + '1,"x,2\n3,4,5\n', "line 42 of t.csv has a quote that is not closed"),
        ((table() + "é,u,1\n").encode("latin1"), "not UTF-8, from line 42 on: save it as UTF-8"),
        (table().encode("utf-16"), "written in UTF-16"),
        (b"\x00\x01\x02" * 50, "bytes of value 0"),
        (table().replace("\n", "\r").encode(), "carriage return alone"),
    ],
)
def test_a_bad_csv_says_what_is_wrong_and_where(content, message):
    write("t.csv", content)
    with pytest.raises(TaskError, match=message):
        find("t.csv", target="y")


def test_a_target_that_is_not_there_says_which_are():
    write("t.csv", table(header="width,height,species"))
    with pytest.raises(TaskError, match=r"--target has to say .*: one of 'width', 'height', 'species'"):
        find("t.csv")
    with pytest.raises(TaskError, match=r"no column 'specie'; choose from width, height, species. Did you mean 'species'"):
        find("t.csv", target="specie")


def test_a_csv_that_is_too_large_says_how_to_convert_it(monkeypatch):
    write("t.csv", table())
    monkeypatch.setattr("polyak.train.tasks.files.CSV_LIMIT", 100)
    with pytest.raises(TaskError, match=r"polars.scan_csv\('t.csv'\).sink_parquet\('t.parquet'\)"):
        find("t.csv", target="y")


def test_a_damaged_parquet_is_named():
    pl.DataFrame({"a": np.arange(1000), "y": np.arange(1000) % 2}).write_parquet("t.parquet")
    with open("t.parquet", "rb") as file:
        data = file.read()
    for damaged in (data[: len(data) // 2], b"hello", data[: len(data) // 2] + data[-8:]):
        write("bad.parquet", damaged)
        with pytest.raises(TaskError, match=r"^cannot read bad.parquet as a table: .*\.$"):
            find("bad.parquet", target="y")
    write("bad.parquet", b"")
    with pytest.raises(TaskError, match=r"bad.parquet is empty"):
        find("bad.parquet", target="y")
    pl.DataFrame({"l": [[1], [2]], "y": [1, 2]}).write_parquet("list.parquet")
    with pytest.raises(TaskError, match=r"of the type List\(Int64\): numbers, text or booleans can be learned"):
        find("list.parquet", target="l")


# Larger than memory


@pytest.fixture
def large(monkeypatch):
    """A table of 1,000 rows, of which a fifth fits into memory, and the same in memory."""
    rng = np.random.default_rng(0)
    pl.DataFrame({"a": rng.random(1000), "b": rng.choice(["u", "v"], 1000), "y": rng.random(1000)}).write_parquet(
        "t.parquet", row_group_size=128
    )
    whole = find("t.parquet", target="y")
    monkeypatch.setattr("polyak.train.tasks.blocks.SIZE", 64)
    monkeypatch.setattr(task, "MEMORY", 1000 * 2 * 4 // 5)
    return find("t.parquet", target="y"), whole


def test_a_table_larger_than_memory_has_the_same_rows(large):
    pieces, whole = large
    assert isinstance(pieces.train, Blocks)
    assert pieces.notes[:-1] == whole.notes
    assert pieces.notes[-1].startswith("read piece by piece: 3 of 16 pieces of 64 rows are in memory at a time")
    numbers = np.random.default_rng(1).permutation(800)[:100]
    for one, other in ((pieces.train, whole.train), (pieces.validation, whole.validation)):
        assert len(one) == len(other)
        for given, expected in zip(one.read(numbers % len(one)), other.read(numbers % len(one)), strict=True):
            np.testing.assert_array_equal(given, expected)


def test_an_epoch_reads_each_piece_about_once(large, monkeypatch):
    pieces, _ = large
    reads = []
    monkeypatch.setattr(Store, "_block", counted(Store._block, reads))
    order = pieces.train.order(np.random.default_rng(0))
    assert sorted(order) == list(range(800))
    assert (order != np.sort(order)).any()
    np.testing.assert_array_equal(order, pieces.train.order(np.random.default_rng(0)))
    for start in range(0, 800, 32):
        pieces.train.read(order[start : start + 32])
    # 16 pieces; a batch that spans two windows of three pieces may read one or two of them again.
    assert 16 <= len(reads) <= 16 + 2 * 5


def counted(method, reads):
    def block(self, number):
        if number not in self._kept:
            reads.append(number)
        return method(self, number)

    return block


# Arrays


def arrays(name="t.npz", **named):
    np.savez(name, **named)
    return find(name)


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "shape", "dtype", "models"),
    [
        (RNG.random((40, 3)), (3,), np.float32, ["mlp"]),
        (RNG.random((40, 20)), (20,), np.float32, ["mlp", "cnn", "resnet"]),
        (RNG.random(40), (1,), np.float32, ["mlp"]),
        (RNG.random((40, 30, 2)), (30, 2), np.float32, ["cnn", "resnet", "mlp"]),
        (RNG.integers(0, 255, (40, 9, 8), dtype=np.uint8), (9, 8, 1), np.uint8, ["cnn", "resnet", "mlp"]),
        (RNG.random((40, 9, 8, 3)), (9, 8, 3), np.float32, ["cnn", "resnet", "mlp"]),
    ],
)
def test_arrays_are_understood_by_their_shape(x, shape, dtype, models):
    found = arrays(x=x, y=np.arange(40) % 2)
    assert found.train.x.shape == (32, *shape)
    assert found.train.x.dtype == dtype
    assert list(found.models) == models
    assert found.classes == ("0", "1")


def test_arrays_with_a_validation_part_are_not_split():
    x, y = RNG.random((30, 2)), np.array(["u", "v", "w"] * 10)
    found = arrays(x=x, y=y, x_val=x[:9], y_val=y[2:11])
    assert (len(found.train), len(found.validation)) == (30, 9)
    assert found.validation.y.tolist() == [2, 0, 1] * 3
    values = arrays(x=x, y=RNG.random((30, 2)), x_val=x[:9], y_val=RNG.random((9, 2)))
    assert (values.kind, values.validation.y.shape) == ("regression", (9, 2))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"X": 1}, "t.npz lacks x and y; it has X"),
        ({"x": RNG.random((4, 2)), "y": RNG.random(5)}, r"4 examples in x and y of shape \(5,\)"),
        ({"x": np.array([[1.0, np.nan]] * 30), "y": RNG.random(30)}, r"x in t.npz is NaN .* in 30 of 30 .* x\[0\]"),
        ({"x": np.full((30, 2), 1e300), "y": RNG.random(30)}, "infinite .as float32."),
        ({"x": RNG.random((30, 2)), "y": np.full(30, np.nan)}, "y in t.npz is missing or not finite in 30 of 30"),
        ({"x": RNG.random((30, 2)), "y": np.eye(3)[[0, 1, 2] * 10]}, r"classes are given by number, y.argmax\(1\)"),
        ({"x": RNG.random((30, 2)), "y": np.zeros(30, int), "x_val": RNG.random((9, 2))}, "lacks y_val"),
        ({"x": np.array([1, "a", None], object), "y": np.zeros(3)}, "pickled objects, which could run any code"),
        ({"x": RNG.random((30, 2)) * 1j, "y": RNG.random(30)}, "the dtype complex128: it has to be numbers"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, r"the shape \(0, 2\): there is no example"),
        ({"x": np.zeros((4, 2, 2, 2, 2)), "y": np.zeros(4)}, "reshape it"),
        ({"x": RNG.random((30, 2)), "y": np.zeros(30, "M8[D]")}, "numbers, booleans or text"),
        ({"x": RNG.random((30, 2)), "y": np.zeros(30)}, "is 0.0 in every row"),
        (
            {"x": RNG.random((30, 2)), "y": np.arange(30) % 2, "x_val": RNG.random((9, 3)), "y_val": np.zeros(9, int)},
            r"the shape \(2,\) in x and \(3,\) in x_val",
        ),
        (
            {"x": RNG.random((30, 2)), "y": np.arange(30) % 2, "x_val": RNG.random((9, 2)), "y_val": np.full(9, 5)},
            "y_val has classes that y has not: 5",
        ),
        (
            {"x": RNG.random((30, 2)), "y": RNG.random(30), "x_val": RNG.random((9, 2)), "y_val": np.full(9, np.nan)},
            "y_val has to be finite numbers like y",
        ),
    ],
)
def test_bad_arrays_say_what_is_wrong(named, message):
    with pytest.raises(TaskError, match=message):
        arrays(**named)


def test_a_file_that_is_no_npz_is_named():
    np.savez("good.npz", x=RNG.random((30, 2)), y=RNG.random(30))
    with open("good.npz", "rb") as file:
        data = file.read()
    flipped = bytearray(data)
    flipped[200] ^= 255
    np.save("single.npy", np.zeros(3))
    with open("single.npy", "rb") as file:
        single = file.read()
    for content, message in (
        (b"hello", "is damaged or no .npz file"),
        (data[: len(data) // 2], "is damaged or no .npz file"),
        (bytes(flipped), "Bad CRC-32"),
        (single, "a single array"),
    ):
        write("t.npz", content)
        with pytest.raises(TaskError, match=message):
            find("t.npz")
    with zipfile.ZipFile("t.npz", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(TaskError, match=r"lacks x and y; it has hello.txt"):
        find("t.npz")


# Pictures


def picture(path, size=(12, 10), mode="RGB", seed=0):
    """A picture of noise: width and height."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode == "RGBA":
        image.putalpha(0)
    else:
        image = image.convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return noise


@pytest.fixture
def folder(here):
    for k in range(10):
        picture(here / "pets" / ("cat", "dog")[k % 2] / f"{k}.png", seed=k)
    return here / "pets"


def test_pictures_of_one_size_are_taken_as_they_are(folder):
    (folder / ".hidden").mkdir()
    (folder / "cat" / ".DS_Store").write_text("")
    (folder / "cat" / "notes.txt").write_text("")
    found = find("pets", validation=0.2)
    assert found.classes == ("cat", "dog")
    assert (found.train.x.shape, found.train.x.dtype) == ((8, 10, 12, 3), np.uint8)
    assert np.bincount(found.validation.y).tolist() == [1, 1]
    assert found.notes == (
        "2 classes: 'cat', 'dog'",
        "pictures: colour, 10x12 (height x width), as they are",
        "left out, since they are no PNG or JPEG in a class: 'cat/notes.txt'",
    )
    expected = {picture(folder / "x.png", seed=k).tobytes() for k in range(10)}
    assert {image.tobytes() for part in (found.train, found.validation) for image in part.x} == expected


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "jpg"), ("P", "png"), ("RGBA", "png"), ("CMYK", "JPEG"), ("I;16", "png"), ("LA", "png")],
)
def test_all_modes_are_read(here, mode, suffix):
    picture(here / f"p.{suffix}", mode=mode, seed=1)
    noise = picture(here / "rgb.png", seed=1).astype(float)
    for channels in (1, 3):
        given = PictureForm(10, 12, channels).read(here / f"p.{suffix}")
        assert (given.shape, given.dtype) == ((10, 12, channels), np.uint8)
    given = given.astype(float)
    if mode == "RGBA":
        assert (given == 255).all()  # transparent, on white
    elif mode == "I;16":
        np.testing.assert_array_equal(given[..., 0], noise[..., 0])
    else:
        grey = noise @ [0.299, 0.587, 0.114]
        # One bit, a palette of 256 and JPEG lose much of noise, not where it is light.
        assert np.corrcoef(given.mean(-1).ravel(), grey.ravel())[0, 1] > 0.6


def test_mixed_sizes_become_their_median_and_cameras_on_their_side_are_turned(folder):
    for k in range(11):
        picture(folder / "cat" / f"large{k}.png", size=(400, 200))
    found = find("pets")
    assert found.train.x.shape[1:] == (48, 96, 3)
    assert found.notes[1] == "pictures: colour, resized from 2 different sizes to 48x96 (height x width)"
    picture(folder / "p.png", size=(4, 2))
    side = Image.new("L", (40, 20))
    side.paste(255, (0, 0, 20, 20))  # the left half is white
    exif = side.getexif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned by 90 degrees clockwise
    side.save(folder / "side.png", exif=exif)
    turned = PictureForm(40, 20, 1).read(folder / "side.png")[..., 0]
    assert (turned[:20] == 255).all()
    assert (turned[20:] == 0).all()


@pytest.mark.usefixtures("folder")
def test_pictures_that_do_not_fit_into_memory_are_read_again(monkeypatch):
    whole = find("pets")
    monkeypatch.setattr(task, "MEMORY", 100)
    files = find("pets")
    assert files.notes[-1] == "read from their files in each epoch, since they do not fit into memory"
    numbers = np.array([3, 0, 7])
    for given, expected in zip(files.train.read(numbers), whole.train.read(numbers), strict=True):
        np.testing.assert_array_equal(given, expected)
    assert sorted(files.train.order(np.random.default_rng(0))) == list(range(8))


def test_all_damaged_pictures_are_named(folder):
    good = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "0.png").write_bytes(good[: len(good) // 2])
    (folder / "dog" / "1.png").write_bytes(b"hello")
    with pytest.raises(
        TaskError, match=r"2 of 10 pictures cannot be read: .*cat/0.png: .*; .*dog/1.png: no PNG or JPEG. Repair"
    ):
        find("pets")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "pets has no sub-folders"),
        (lambda here: picture(here / "pets" / "1.png"), "pets has pictures, but no sub-folders"),
        (lambda here: picture(here / "pets" / "cat" / "1.png"), "one class only, 'cat'"),
        (lambda here: (here / "pets" / "cat").mkdir(), "sub-folders without a PNG or JPEG file: 'cat'"),
        (
            lambda here: [picture(here / "pets" / name / "1.png", size=(1, 1)) for name in ("cat", "dog")],
            "2 examples cannot be parted",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on_say_why(here, make, message):
    (here / "pets").mkdir()
    make(here)
    with pytest.raises(TaskError, match=message):
        find("pets")


def test_even_pictures_have_nothing_to_learn(here):
    for k in range(4):
        path = here / "pets" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), "red").save(path)
    with pytest.raises(TaskError, match="one even colour"):
        find("pets")


@pytest.mark.usefixtures("folder")
def test_a_picture_of_too_many_pixels_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(TaskError, match="more than 100 pixels"):
            find("pets")


def test_files_are_read_by_name_and_place():
    write("t.csv", table())
    file = read(Path("t.csv"))
    assert (file.names, file.rows) == (["a", "b", "y"], 40)
    assert file.rows_of(["y"], 38, 5)["y"].to_list() == ["19.0", "19.5"]
