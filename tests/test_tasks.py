"""Built-in tasks, the split, and how a task is found. Nothing here needs Keras."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from polyak.train.tasks import BUILT_IN, Arrays, TaskError, digits, find, mnist1d, model, moons
from polyak.train.tasks.split import split
from polyak.train.tasks.task import Batched


def parts(task):
    return task.train, task.validation, task.test


# Digits


def test_the_split_of_the_digits_is_fixed_disjoint_complete_and_stratified():
    train, validation, test = digits.split()
    assert (len(train), len(validation), len(test)) == (1280, 160, 357)
    assert sorted(np.concatenate([train, validation, test])) == list(range(1797))
    # Recorded once: with other test images, results could not be compared with earlier ones.
    assert hashlib.sha256(np.sort(test).astype("<i8").tobytes()).hexdigest()[:16] == "5d651cf3b440ca44"
    labels = digits.digits().test.y
    assert np.bincount(labels).min() >= 34  # 35.7 of each class, before rounding
    assert np.bincount(labels).max() <= 37


def test_digits_are_images_in_0_1_and_only_training_has_shifts():
    task = find("digits", seed=3)
    assert [len(part) for part in parts(task)] == [5 * 1280, 160, 357]
    for part in parts(task):
        assert part.x.shape == (len(part), 8, 8, 1)
        assert (part.x.dtype, part.y.dtype) == (np.float32, np.int32)
        assert (part.x.min(), part.x.max()) == (0, 1)
    assert list(task.models) == ["cnn", "mlp", "resnet"]
    np.testing.assert_array_equal(task.train.x, find("digits").train.x)  # no seed changes them


def test_shifts_move_by_one_pixel_and_keep_the_label():
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0, 0, 3] = images[1, 5, 5] = 1
    moved = digits.shifted(images, np.array([7, 3], np.int32))
    places = {7: [], 3: []}
    for image, label in zip(moved.x, moved.y, strict=True):
        places[int(label)] += [tuple(map(int, place[:2])) for place in np.argwhere(image)]
    assert sorted(places[3]) == [(4, 5), (5, 4), (5, 5), (5, 6), (6, 5)]
    assert sorted(places[7]) == [(0, 2), (0, 3), (0, 4), (1, 3)]  # upwards, it left the picture


# MNIST-1D

# Of the file mnist1d_data.pkl that comes with the paper's code: mean and deviation by class, over all 5,000 examples.
PAPER_MEAN = [0.471, -0.097, 0.035, 0.333, -0.127, 0.000, -0.383, 0.168, -0.253, -0.146]
PAPER_DEVIATION = [1.196, 0.873, 0.835, 1.009, 0.881, 0.838, 1.191, 0.877, 1.000, 0.899]
PAPER_FOURTH_MOMENT, PAPER_NEXT, PAPER_FIFTH = 4.402, 0.8148, 0.2004  # of a number; of it with the next one, and the fifth next


def test_mnist1d_has_the_distribution_of_the_papers_file():
    x, y = mnist1d.examples()
    assert x.shape == (5000, 40)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert np.bincount(y).tolist() == [500] * 10
    assert x.mean() == pytest.approx(0, abs=1e-5)  # exact but for float32 sums
    assert x.std() == pytest.approx(1, abs=1e-5)
    # 500 examples a class, each of about five independent numbers: the standard error of a mean is 1 / sqrt(2500) = 0.02, and
    # ten of twenty differences of two such means are below 0.03 by chance; four standard errors are above all of them.
    np.testing.assert_allclose([x[y == k].mean() for k in range(10)], PAPER_MEAN, atol=0.08)
    np.testing.assert_allclose([x[y == k].std() for k in range(10)], PAPER_DEVIATION, atol=0.05)
    assert (x**4).mean() == pytest.approx(PAPER_FOURTH_MOMENT, abs=0.2)  # 4 / sqrt(25,000), times four, twice
    assert (x[:, 1:] * x[:, :-1]).mean() == pytest.approx(PAPER_NEXT, abs=0.02)
    assert (x[:, 5:] * x[:, :-5]).mean() == pytest.approx(PAPER_FIFTH, abs=0.02)


def test_the_templates_begin_at_0_with_a_deviation_of_a_sixth():
    curves = mnist1d.templates()
    np.testing.assert_allclose(curves.std(1), 1 / 6, rtol=1e-12)
    assert (curves[:, 0] == 0).all()


def test_a_seed_chooses_the_validation_part_of_mnist1d_and_nothing_else():
    one, other = find("mnist1d", validation=0.1, seed=1), find("mnist1d", validation=0.1, seed=2)
    np.testing.assert_array_equal(one.test.x, other.test.x)
    assert [len(part) for part in parts(one)] == [3600, 400, 1000]
    assert (one.validation.x != other.validation.x).any()
    rows = {row.tobytes() for part in parts(one) for row in part.x}
    assert rows == {row.tobytes() for part in parts(other) for row in part.x}
    assert len(rows) == 5000


def test_two_moons_are_two_half_circles():
    task = find("two-moons")
    assert [len(part) for part in parts(task)] == [800, 200, 1000]
    x, y = task.test.x, task.test.y
    centre = np.where(y[:, None] == 0, [0, 0], [1, 0.5])
    radius = np.hypot(*(x - centre).T)
    assert radius.mean() == pytest.approx(1, abs=0.04)  # noise across the circle makes it 0.02 longer
    assert radius.std() == pytest.approx(moons.NOISE, rel=0.1)  # of 1,000 draws: 1 / sqrt(2000) = 2 %, four times
    assert list(task.models) == ["mlp"]


# The split


def test_a_split_has_each_class_in_proportion_in_both_parts():
    labels = np.repeat([0, 1, 2], [100, 50, 10]).astype(np.int32)
    train, validation, notes = split(160, 0.2, 0, labels=labels, names=("a", "b", "c"))
    assert sorted(np.concatenate([train, validation])) == list(range(160))
    assert np.bincount(labels[validation]).tolist() == [20, 10, 2]
    assert (np.diff(train) > 0).all()
    assert not notes
    again = split(160, 0.2, 0, labels=labels, names=("a", "b", "c"))[1]
    np.testing.assert_array_equal(validation, again)
    assert (split(160, 0.2, 1, labels=labels, names=("a", "b", "c"))[1] != validation).any()


def test_a_class_of_one_example_is_trained_on_and_said():
    labels = np.array([0] * 10 + [1] * 10 + [2], np.int32)
    train, validation, notes = split(21, 0.2, 0, labels=labels, names=("a", "b", "rare"))
    assert 20 in train
    assert len(validation) == 4
    assert notes == ["'rare': one example only, which is trained on and never validated. Add examples, or take it out."]


@pytest.mark.parametrize(("rows", "share"), [(2, 0.01), (2, 0.99), (3, 0.5), (10, 0.999)])
def test_both_parts_of_a_split_have_an_example(rows, share):
    train, validation, _ = split(rows, share, 0)
    assert len(train) + len(validation) == rows
    assert min(len(train), len(validation)) >= 1


def test_what_cannot_be_parted_is_said():
    with pytest.raises(TaskError, match=r"^1 example cannot be parted"):
        split(1, 0.2, 0)
    with pytest.raises(TaskError, match="2 examples cannot be parted into two parts that both have each class; add examples"):
        split(2, 0.2, 0, labels=np.array([0, 1], np.int32), names=("a", "b"))


# Sources


def test_arrays_are_read_by_number_also_where_they_have_names():
    x, y = np.arange(12).reshape(6, 2), np.arange(6)
    source = Arrays({"a": x, "b": -x}, y)
    order = source.order(np.random.default_rng(0))
    assert sorted(order) == list(range(6))
    np.testing.assert_array_equal(order, source.order(np.random.default_rng(0)))
    given, labels = source.read(order[:2])
    np.testing.assert_array_equal(given["b"], -x[order[:2]])
    np.testing.assert_array_equal(labels, order[:2])


class Twos:
    """Like a keras.utils.PyDataset: read by number, without an end, told when an epoch ends."""

    def __init__(self):
        self.epochs = 0

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return np.full(2, number), np.full(2, self.epochs)

    def on_epoch_end(self):
        self.epochs += 1


def test_batches_are_counted_and_gone_through_again():
    batches = Batched(Twos(), "it")
    assert len(batches) == 3
    assert [int(x[0]) for x, _ in batches] == [0, 1, 2]
    assert [int(y[0]) for _, y in batches] == [1, 1, 1]

    class Unknown:
        def __iter__(self):
            return iter([(1, 2), (3, 4)])

    assert len(Batched(Unknown(), "it")) == 2
    with pytest.raises(TaskError, match="the data has no batch"):
        Batched([], "the data")


# Finding


def test_importing_the_tasks_loads_nothing_heavy_and_finding_one_no_keras():
    script = """
import sys, polyak.train.predict, polyak.train.tasks
heavy = {"keras", "tensorflow", "sklearn", "scipy", "polars", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
polyak.train.tasks.find("two-moons")
assert "keras" not in sys.modules
"""
    subprocess.run((sys.executable, "-c", script), check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown task 'digit', .* choose from digits, mnist1d, two-moons. Did you mean 'digits'?"),
        ("imagenet", "choose from digits, mnist1d, two-moons.$"),
        ("iris.csv", r"there is no file or folder iris.csv. Did you mean 'irises.csv'\?"),
        ("data/iris.csv", "there is no file or folder data/iris.csv.$"),
        ("notes.txt", "a table is .csv, .tsv or .parquet, arrays are .npz"),
        ("nowhere:build", "there is no module 'nowhere'"),
    ],
)
def test_a_task_that_is_not_there_says_what_is(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "irises.csv").write_text("")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(TaskError, match=message):
        find(name)


def test_a_target_is_for_tables():
    with pytest.raises(TaskError, match="--target names a column of a table, and digits is none"):
        find("digits", target="label")


def test_a_model_that_a_task_has_not_says_which_it_has():
    task = find("two-moons")
    assert model(task, "")[0] == "mlp"
    with pytest.raises(TaskError, match="two-moons has no model 'cnn'; choose from mlp"):
        model(task, "cnn")
    assert set(BUILT_IN) == {"digits", "mnist1d", "two-moons"}
