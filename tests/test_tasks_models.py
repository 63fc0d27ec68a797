"""Models, the layers of saved models, and a person's own code: what needs Keras, on the backend of this process."""

import importlib
import sys
import types
from pathlib import Path

import keras
import numpy as np
import polars as pl
import pytest

import polyak.keras
from polyak.train import models
from polyak.train.layers import Classes, Columns, Pictures, ScaledSquaredError
from polyak.train.tasks import Arrays, Batched, TaskError, find
from polyak.train.tasks.columns import Column, cells
from polyak.train.tasks.picture import PictureForm
from polyak.train.tasks.target import classification, regression

RNG = np.random.default_rng(0)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


# Layers


COLUMNS = [
    Column("size", "number", centre=10.0, spread=2.0, missing=True),
    Column("colour", "category", categories=("blue", "red"), other=True, missing=True),
    Column("day", "date", centre=19800.0, spread=100.0),
    Column("name", "category", categories=("u", "v", "w")),
    Column("flag", "number", form="true/false", centre=1.0, spread=0.5),
]


@pytest.fixture
def table():
    return pl.DataFrame(
        {
            "flag": [True, False, None, True],
            "size": [10.0, 14.0, None, 8.0],
            "colour": ["red", "green", None, "blue"],
            "day": pl.Series([19800, 19900, None, 19700], dtype=pl.Int32).cast(pl.Date),
            "name": ["w", "x", None, "u"],
        }
    )


def test_cells_become_numbers_near_1_marks_and_places(table):
    layer = Columns(COLUMNS)
    given = numpy(layer(cells(COLUMNS, table)))
    assert given.shape == (4, layer.features) == layer.compute_output_shape((4, None))
    numbers, mark, colour, name = np.split(given, [1 + 5 + 1, 1 + 5 + 1 + 1, 1 + 5 + 1 + 1 + 4], axis=1)
    np.testing.assert_array_equal(numbers[:, 0], [0, 2, 0, -1])
    np.testing.assert_array_equal(numbers[:, 1], [0, 1, 0, -1])  # days; a date that is missing is the median
    np.testing.assert_array_equal(numbers[:, 6], [0, -2, 0, 0])
    np.testing.assert_array_equal(mark[:, 0], [0, 0, 1, 0])
    np.testing.assert_array_equal(colour, [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(name, [[0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]])  # never seen, never missing: none


def test_pictures_become_numbers_near_1():
    form = PictureForm(2, 2, 2, [10.0, 20.0], [2.0, 4.0])
    pixels = RNG.integers(0, 256, (3, 2, 2, 2), dtype=np.uint8)
    np.testing.assert_allclose(numpy(Pictures(form)(pixels)), (pixels - [10.0, 20.0]) / [2.0, 4.0], rtol=1e-6)  # float32


def test_the_loss_counts_in_standard_deviations():
    y, given = RNG.random((5, 2)).astype("float32"), RNG.random((5, 2)).astype("float32")
    expected = (((y - given) / [2.0, 4.0]) ** 2).mean()
    assert float(ScaledSquaredError([2.0, 4.0])(y, given)) == pytest.approx(expected, rel=1e-6)  # float32


@pytest.mark.parametrize(
    "layer", [Columns(COLUMNS), Pictures(PictureForm(2, 2, 1)), Classes(["u", "v"]), ScaledSquaredError([2.0])]
)
def test_a_configuration_is_plain_and_makes_the_same_again(layer):
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


# Models


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("mlp", (3,), "float32"),
        ("mlp", (8, 8, 1), "uint8"),
        ("cnn", (40,), "float32"),
        ("cnn", (96, 37, 3), "uint8"),
        ("cnn", (9, 2), "float32"),
        ("cnn", (1, 1, 1), "float32"),
        ("resnet", (40,), "float32"),
        ("resnet", (1, 30, 2), "float32"),
        ("resnet", (8, 8, 1), "float32"),
    ],
)
def test_every_network_fits_every_shape(name, shape, dtype):
    form = PictureForm(*shape) if dtype == "uint8" and name == "cnn" else None
    before = (lambda: Pictures(form) if form else keras.layers.Rescaling(0.1),)
    model = models.build(name, models.Ends(shape, before, classification(("a", "b", "c")), dtype))
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 3)
    x = RNG.integers(0, 255, (4, *shape)).astype(dtype)
    assert np.isfinite(numpy(model(x, training=False))).all()
    assert isinstance(model.layers[-1], Classes)


def test_a_model_of_values_does_not_depend_on_their_unit():
    x, y = RNG.standard_normal((8, 3)).astype("float32"), RNG.random((8, 1))
    found = []
    for scale, offset in ((1.0, 0.0), (3.28, 100.0)):
        keras.utils.set_random_seed(1)
        values = y * scale + offset
        goal = regression(values.mean(0).tolist(), values.std(0).tolist())
        model = models.build("mlp", models.Ends((3,), (), goal))
        model.compile(polyak.keras.Momentum(0.1, momentum=0.9), loss=goal.loss(), metrics=goal.metrics())
        logs = [model.train_on_batch(x, values.astype("float32"), return_dict=True) for _ in range(3)]
        given = (numpy(model(x)) - offset) / scale
        found.append((given, [log["loss"] for log in logs], [log["mae"] / scale for log in logs]))
    # In another unit other numbers are rounded: float32 has 6e-8, and the offset takes two of its digits.
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["table", "pictures", "arrays"])
def test_a_saved_model_is_the_same_model(name, tmp_path, monkeypatch, table):
    monkeypatch.chdir(tmp_path)
    if name == "table":
        pl.concat([table] * 5).with_columns(y=pl.Series([0.5, 1.5, 2.5, 3.5] * 5)).write_parquet("t.parquet")
        task = find("t.parquet", target="y")
    elif name == "pictures":
        from PIL import Image

        for k in range(6):
            path = Path("pets", "ab"[k % 2], f"{k}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 255, (9, 8), dtype=np.uint8)).save(path)
        task = find("pets")
    else:
        np.savez("t.npz", x=RNG.random((20, 9, 2)), y=np.arange(20) % 2)
        task = find("t.npz")
    model = next(iter(task.models.values()))()
    model.compile(polyak.keras.Momentum(0.1, momentum=0.9), loss=task.loss(), metrics=task.metrics())
    model.train_on_batch(task.train.x, task.train.y)
    model.save("model.keras")
    again = keras.models.load_model("model.keras")
    assert type(again.loss) is type(model.loss)
    np.testing.assert_array_equal(numpy(again(task.train.x)), numpy(model(task.train.x)))


# A person's own code


X, Y = RNG.standard_normal((20, 2)).astype("float32"), np.arange(20) % 2


def small(**compiled):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    if compiled:
        model.compile(**compiled)
    return model


@pytest.fixture
def own(monkeypatch):
    """A function that finds the task of what a function returns."""

    def find_own(returned, **options):
        module = types.ModuleType("own_code")
        module.build = returned if callable(returned) else lambda: returned
        monkeypatch.setitem(sys.modules, "own_code", module)
        return find("own_code:build", **options)

    return find_own


def test_code_may_return_a_dict_or_a_tuple(own):
    loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
    model = small()
    for returned in ({"model": model, "data": (X, Y), "loss": loss, "metrics": metrics}, (model, (X, Y), loss, metrics)):
        task = own(returned, validation=0.25, seed=1)
        assert (task.name, task.kind, task.main, task.compiled) == ("own_code:build", "own", "accuracy", False)
        assert (task.loss(), task.metrics(), task.models["own"]()) == (loss, metrics, model)
        assert (len(task.train), len(task.validation), task.test) == (15, 5, None)
        assert np.bincount(task.validation.y).tolist() in ([2, 3], [3, 2])  # whole numbers are classes: stratified


def test_code_may_give_a_validation_part_named_inputs_or_batches(own):
    task = own((small(), ((X, Y), (X[:3], Y[:3])), "mse"))
    assert (len(task.train), len(task.validation)) == (20, 3)
    task = own((small(), ({"a": X}, Y), "mse"))
    assert isinstance(task.train, Arrays)
    assert set(task.train.read(np.array([0]))[0]) == {"a"}
    batches = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    task = own((small(), (batches, batches[:1]), "mse"))
    assert isinstance(task.train, Batched)
    assert (len(task.train), len(task.validation)) == (2, 1)
    task = own((small(), [(X[:5], Y[:5])] * 4, "mse"))
    assert (len(task.train), task.validation) == (4, None)
    assert "no validation data" in task.notes[0]


def test_a_keras_dataset_is_batches(own):
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, number):
            return X[:4] + number, Y[:4]

    task = own((small(), (Data(), (X, Y)), "mse"))
    assert [float(x[0, 0] - X[0, 0]) for x, _ in task.train] == pytest.approx([0, 1, 2], abs=1e-6)  # float32


@pytest.mark.parametrize(
    ("last", "y", "loss", "note"),
    [
        (None, Y, "SparseCategoricalCrossentropy", "the model giving logits"),
        ("softmax", Y, "SparseCategoricalCrossentropy", "the model giving probabilities"),
        (None, Y[:, None].astype("float32"), "str", "the mean squared error"),
    ],
)
def test_without_a_loss_one_is_taken_from_the_data_and_said(own, last, y, loss, note):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation=last)])
    task = own((model, (X, y)))
    assert type(task.loss()).__name__ == loss
    assert note in task.notes[-1]


def test_a_compiled_model_keeps_its_loss(own):
    task = own((small(optimizer="adam", loss="mse", metrics=["mae"]), (X, Y)))
    assert task.compiled
    assert task.main == "mae"
    assert task.notes[-1] == "the model is compiled: its loss and metrics stay, its optimizer Adam is replaced"


def broken():
    raise RuntimeError("no such file\nand more")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "own_code:build returned None; a dict with 'model' and 'data'"),
        (lambda: 5, "returned an object of type int"),
        (lambda: (1, 2), "an object of type int as its model; a keras.Model is needed"),
        (lambda: {"model": 1}, "a dict with model; a dict with 'model' and 'data'"),
        (lambda: {"model": small(), "data": (X, Y), "lose": 1}, "a dict with model, data, lose"),
        (lambda: (small(), 5), "is an object of type int: .x, y. of arrays or batches"),
        (lambda: (small(), ("train", "val")), "the data to train on is an object of type str"),
        (lambda: (small(), iter([(X, Y)])), "a generator, which ends after one pass"),
        (lambda: (small(), []), "the data has no batch"),
        (lambda: (small(), (X, Y[:5])), "arrays of different lengths"),
        (lambda: (small(), [(X, Y)]), "batches and no loss: return the loss too"),
        (lambda: (small(), (X, np.array(["a", "b"] * 10))), "y of dtype .* and no loss"),
        (lambda: (small(optimizer="sgd", loss="mse"), (X, Y), "mse"), "a compiled model and a loss or metrics beside it"),
        (broken, r"own_code:build failed: .*test_tasks_models.py, line \d+: RuntimeError: no such file \(--debug"),
    ],
)
def test_what_code_may_not_return_is_said(own, returned, message):
    if returned is None:
        returned = lambda: None  # noqa: E731  (a function that returns nothing)
    with pytest.raises(TaskError, match=message):
        own(returned)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("task_a:make", r"task_a has no function 'make'; it has build"),
        ("task_b:build", r"importing task_b failed: .*task_b.py, line 1: SyntaxError"),
        ("task_c:build", r"importing task_c failed: .*task_c.py, line 2: ZeroDivisionError"),
        ("task_d:build", r"importing task_d failed: .*task_d.py, line 1: ModuleNotFoundError: No module named 'absent'"),
        ("task_e.more:build", "there is no module 'task_e.more'"),
    ],
)
def test_modules_of_the_present_folder_are_imported_and_their_errors_have_a_line(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    for letter, text in {"a": "def build(): ...", "b": "def build(:", "c": "\n1 / 0", "d": "import absent"}.items():
        Path(f"task_{letter}.py").write_text(text)
    with pytest.raises(TaskError, match=message):
        find(name)


def test_the_example_is_a_task_that_learns(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1] / "examples")
    monkeypatch.setattr(sys, "path", list(sys.path))
    keras.utils.set_random_seed(0)
    task = find("own_task:build")
    assert (len(task.train), len(task.validation), task.main) == (2000, 500, "accuracy")
    model = task.models["own"]()
    model.compile(polyak.keras.Momentum(0.05, momentum=0.9), loss=task.loss(), metrics=task.metrics())
    losses = [float(model.train_on_batch(task.train.x, task.train.y)[0]) for _ in range(10)]
    assert losses[-1] < losses[0]
    other = importlib.import_module("own_task").build()
    np.testing.assert_array_equal(other["data"][0][0], task.train.x)
