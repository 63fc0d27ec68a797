"""Comparing runs: which of them belong together, what is measured, what is said of differences, and the command."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from browser import Outline, needs_browser, shown
from polyak import report
from polyak.cli import dispatch
from polyak.compare.differences import differences, sentences
from polyak.compare.goals import Goal, falls, goal, score_name
from polyak.compare.groups import grouped
from polyak.compare.page import page
from polyak.compare.plan import parse, plan
from polyak.compare.result import compared, curve
from polyak.compare.text import lines
from polyak.report.recorded import read
from recorded_runs import record

# Groups and their names


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path):
    runs = [read(record(tmp_path / f"{lr}-{seed}", lr=lr, seed=seed, steps=8)) for seed in (1, 0) for lr in (0.1, 0.2)]
    groups = grouped(runs)
    assert [group.name for group in groups] == ["momentum lr=0.1", "momentum lr=0.2"]
    assert [[run.options["seed"] for run in group.runs] for group in groups] == [[0, 1], [0, 1]]


def test_an_option_of_one_optimizer_alone_is_no_part_of_a_name(tmp_path):
    one = record(tmp_path / "one", steps=8)
    two = record(tmp_path / "two", steps=8, label="lion", lion=True)
    with (two / "config.toml").open("a") as file:
        file.write("[set]\nb1 = 0.8\n")
    assert [group.name for group in grouped([read(one), read(two)])] == ["momentum", "lion"]
    three = record(tmp_path / "three", steps=8, label="lion", lion=True)
    assert [group.name for group in grouped([read(two), read(three)])] == ["lion b1=0.8", "lion"]


def test_what_is_kept_of_a_run_makes_no_group(tmp_path):
    one, two = (record(tmp_path / name, steps=8) for name in ("one", "two"))
    with (two / "config.toml").open("a") as file:
        file.write('checkpoint = "5 minutes"\nkeep = 9\nrecord = 7\ntensorboard = true\n')
    assert len(grouped([read(one), read(two)])) == 1


def test_a_model_that_was_left_to_the_task_is_that_model(tmp_path):
    one, two = (record(tmp_path / name, steps=8) for name in ("one", "two"))
    for run, model in ((one, ""), (two, "bowl")):
        with (run / "config.toml").open("a") as file:
            file.write(f'model = "{model}"\n')
    assert len(grouped([read(one), read(two)])) == 1


def test_runs_of_two_tasks_are_not_compared(tmp_path, capsys):
    one, two = (record(tmp_path / name, steps=8) for name in ("one", "two"))
    about = json.loads((two / "environment.json").read_text())
    (two / "environment.json").write_text(json.dumps(about | {"task": "moons"}))
    assert dispatch(["compare", str(one), str(two), "--out", str(tmp_path / "out")]) == 2
    assert f"different tasks: quadratic ({one}), moons ({two})" in capsys.readouterr().err
    assert dispatch(["compare", str(one), str(one), "--out", str(tmp_path / "out")]) == 2
    assert "given twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Goals


def test_a_goal_is_reached_at_the_first_step_that_shows_it(tmp_path):
    run = read(record(tmp_path / "run", lr=0.02, steps=400, every=4, epochs=4))
    val = run.epochs["val_loss"]
    assert Goal("val_loss", val[1]).step(run) == 200
    assert Goal("val_loss", val[1]).seconds(run) == 1.0
    assert np.isnan(Goal("val_loss", val.min() / 2).step(run))
    assert np.isnan(Goal("val_loss", val.min() / 2).seconds(run))
    # The training loss is known at every recorded step, so between the ends of epochs.
    at = Goal("loss", run.steps["loss"][30])
    assert at.step(run) == run.steps["step"][30] == 124
    assert at.seconds(run) == pytest.approx(0.5 * 124 / 100)
    assert Goal("loss", run.steps["loss"][9]).seconds(run) == pytest.approx(0.5 * 40 / 100)  # the clock starts at 0
    assert at.grain(run) == 4
    assert Goal("val_loss", 1.0).grain(run) == 100
    assert str(Goal("val_accuracy", 0.98)) == "val_accuracy >= 0.98"
    few = read(record(tmp_path / "few", lr=0.02, steps=60, every=25, epochs=6))
    assert Goal("loss", few.epochs["loss"][3]).step(few) == 40  # by epochs, of which there are more
    assert Goal("loss", 1.0).grain(few) == 10


def test_the_goal_that_nobody_named_is_the_hardest_that_all_reach(tmp_path):
    runs = [read(record(tmp_path / str(lr), lr=lr)) for lr in (0.002, 0.02)]
    found = goal(None, runs)
    assert (found.column, found.chosen) == ("val_accuracy", True)
    assert found.value == min(run.epochs["val_accuracy"].max() for run in runs)
    assert [found.step(run) <= 400 for run in runs] == [True, True]
    # A run that failed does not make it easy.
    failed = read(record(tmp_path / "failed", lr=1e-6, status="failed"))
    assert goal(None, [*runs, failed]) == found
    assert np.isnan(found.step(failed))


@pytest.mark.parametrize("text", ["f1=0.5", "val_accuracy", "val_accuracy=high", "step=5", "=", ""])
def test_a_goal_that_is_none_names_what_there_is(text, tmp_path):
    run = read(record(tmp_path / "run", steps=8))
    with pytest.raises(ValueError, match=r"choose from loss, accuracy, val_loss, val_accuracy\.|has no number"):
        goal(text, [run])


def test_the_score_is_what_all_runs_have(tmp_path):
    one, two = (read(record(tmp_path / name, steps=8, **rest)) for name, rest in (("a", {}), ("b", {"test_accuracy": None})))
    assert score_name([one]) == "test_accuracy"
    assert score_name([one, two]) == "test_loss"
    stopped = read(record(tmp_path / "c", steps=8, status="interrupted", test_accuracy=None, test_loss=None))
    assert score_name([one, two, stopped]) == "val_accuracy"
    assert falls("val_loss")
    assert falls("MAE")
    assert not falls("accuracy")


# Differences


def test_the_interval_is_that_of_welch():
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(0.0, 1.0, 4), rng.normal(1.0, 3.0, 6)
    (found,) = differences({"a": a, "b": b}, smaller_is_better=True)
    assert (found.best, found.other, found.counts) == ("a", "b", (4, 6))
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    # The same formula in another order of sums.
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-12)


def test_of_several_differences_each_has_its_part_of_the_level():
    from scipy import stats

    groups = dict(zip("abcd", np.random.default_rng(0).normal([[0], [1], [2], [3]], size=(4, 3)), strict=True))
    for found in differences(groups, smaller_is_better=True):
        expected = stats.ttest_ind(groups[found.other], groups["a"], equal_var=False).confidence_interval(1 - 0.05 / 3)
        np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-12)


def test_a_difference_that_is_there_is_found():
    found = differences({"a": np.array([1.0, 1.1, 0.9]), "b": np.array([5.0, 5.2, 4.8])}, smaller_is_better=False)
    assert (found[0].best, found[0].is_beyond) == ("b", True)
    assert found[0].mean == pytest.approx(-4)


def test_arriving_in_the_same_epoch_is_no_certainty():
    same, later = np.array([400.0, 400.0, 400.0]), np.array([500.0, 500.0, 500.0])
    (sure,) = differences({"a": same, "b": later}, smaller_is_better=True)
    assert sure.is_beyond
    (coarse,) = differences({"a": same, "b": later}, smaller_is_better=True, grain=100)
    assert (coarse.low, coarse.high) == pytest.approx((100 - 65.4, 100 + 65.4), abs=0.1)  # 2.776 * 100 / sqrt(12) * sqrt(2 / 3)
    (coarser,) = differences({"a": same, "b": later}, smaller_is_better=True, grain=200)
    assert not coarser.is_beyond


def test_single_runs_tell_nothing():
    found = differences({"a": np.array([1.0]), "b": np.array([5.0, np.nan])}, smaller_is_better=True)
    (sentence,) = sentences("loss", found, "{:.1f}".format)
    assert sentence == "loss: b against a: 4.0 with single runs (n = 1 and 1): can't tell, the spread over seeds is unknown."
    assert differences({"a": np.array([1.0]), "b": np.array([np.nan])}, smaller_is_better=True) == []


def test_what_is_said_of_differences():
    near = {"a": np.array([0.98, 0.99, 0.97]), "b": np.array([0.97, 0.98, 0.985])}
    (sentence,) = sentences("accuracy", differences(near, smaller_is_better=False), "{:.1%}".format)
    assert re.fullmatch(
        r"accuracy: b against a: -0\.2%, interval -\d\.\d% to \d\.\d% \(n = 3 and 3\): no difference beyond the spread\.",
        sentence,
    )
    far = {"a": np.array([0.98, 0.981, 0.979]), "b": np.array([0.5, 0.51, 0.52])}
    (sentence,) = sentences("accuracy", differences(far, smaller_is_better=False), "{:.1%}".format)
    assert sentence.endswith(": a difference beyond the spread.")


# The whole


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        record(folder / f"{name}-{seed}", seed=seed, label=name, **options)
        for seed in range(3)
        for name, options in (("momentum", {"lr": 0.02}), ("descent", {"lr": 0.02, "momentum": 0.0}))
    ]


def test_the_command_prints_a_table_and_writes_a_page(runs, tmp_path, capsys):
    assert dispatch(["compare", *map(str, runs), "--reach", "val_loss=5", "--out", str(tmp_path / "out")]) == 0
    head, first, second, *said, page = capsys.readouterr().out.splitlines()
    assert head.split("  ")[-1] == "reached by"
    assert "steps to val_loss <= 5" in head
    assert re.match(r"momentum +3 +\d\d\.\d\d% \+- \d+\.\d\d% +100 \+- 0 +0\.5 \+- 0\.0 +3 of 3$", first)
    assert second.startswith("descent")
    assert len(said) == 2
    assert said[0].startswith("test accuracy: descent against momentum: -")
    assert said[0].endswith("a difference beyond the spread.")
    assert page == str(tmp_path / "out" / "compare.html")
    text = (tmp_path / "out" / "compare.html").read_text()
    for sentence in said:
        assert sentence.replace("<", "&lt;").replace(">", "&gt;") in text
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["group"] for row in table] == ["momentum"] * 3 + ["descent"] * 3
    assert [int(row["seed"]) for row in table] == [0, 1, 2, 0, 1, 2]
    for row in table:
        result = json.loads((Path(row["run"]) / "result.json").read_text())
        assert float(row["test_accuracy"]) == result["test_accuracy"]
        assert (row["status"], row["goal"]) == ("completed", "val_loss <= 5")


def test_the_page_links_to_the_runs(runs):
    report.write(runs[0])
    text = page(compared([read(run) for run in runs]), runs[0].parent)
    assert re.findall(r'<a href="([^"]*)">report', text) == ["momentum-0/report.html"]


@needs_browser
def test_a_browser_draws_the_page(runs, tmp_path):
    assert dispatch(["compare", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    console, frames = shown(tmp_path / "out" / "compare.html", tmp_path, dark=True)
    assert console == []
    for frame in frames:
        assert frame["content"] == frame["width"]  # nothing to scroll to the side
        assert frame["outside"] == 0
        assert frame["charts"] == frame["drawn"] == 4
        assert frame["lines"] == 4 * (2 + 2)  # a mean and the edge of a band for each group
    outline = Outline((tmp_path / "out" / "compare.html").read_text())
    assert [text for tag, text in outline.headings if tag == "h2"] == ["Results", "Differences", "Curves", "Optimizers", "Runs"]


def test_curves_are_means_over_seeds(runs):
    group = grouped([read(run) for run in runs])[0]
    steps, seconds, values = curve(group, "loss")
    assert steps.tolist() == [100, 200, 300, 400]
    assert seconds.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert values.shape == (3, 4)
    np.testing.assert_array_equal(values[1], group.runs[1].epochs["loss"])


def test_a_run_that_was_stopped_or_failed_is_counted_and_named(tmp_path, runs):
    failed = record(
        tmp_path / "failed", lr=0.02, label="momentum", seed=3, status="failed", test_accuracy=None, val_accuracy=None
    )
    (failed / "metrics.csv").write_text((runs[0] / "metrics.csv").read_text().splitlines()[0] + "\n")
    found = compared([read(run) for run in [*runs, failed]])
    _, rows = found.table()
    assert rows[0][1] == "4 (1 failed)"
    assert rows[0][-1] == "3 of 4"
    assert any("not every run of momentum gets there" in sentence for sentence in found.said)
    assert list(lines(found))


@pytest.mark.parametrize("left", [0, 1])
def test_runs_that_recorded_no_epoch_are_compared_all_the_same(left, runs, tmp_path):
    failed = record(tmp_path / "run", steps=8, status="failed", **dict.fromkeys(("val_loss", "val_accuracy", "test_loss")))
    for name in ("metrics.csv", "timing.csv"):
        (failed / name).write_text("".join((failed / name).read_text().splitlines(keepends=True)[:left]))
    assert list(lines(compared([read(failed)])))
    assert page(compared([read(failed)]), tmp_path)
    found = compared([read(run) for run in [failed, *runs]])
    assert (found.score, found.goal.column) == ("test_accuracy", "val_accuracy")
    assert page(found, tmp_path)


# What is to be trained


def test_optimizers_are_names_and_calls():
    assert parse("descent,momentum, nesterov") == [(name, name, {}) for name in ("descent", "momentum", "nesterov")]
    (one,) = parse("momentum(lr=cosine(0.1, warmup=100), nesterov=true, groups={'bias': {'momentum': 0.5}})")
    assert one[1:] == (
        "momentum",
        {"learning_rate": "cosine(0.1, warmup=100)", "nesterov": True, "groups": {"bias": {"momentum": 0.5}}},
    )


@pytest.mark.parametrize("text", ["", "momentum(", "momentum lion", "momentum(0.1)", "1", "a.b", "momentum(**x)", "lion, lion"])
def test_optimizers_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="--optimizers"):
        parse(text)


def test_the_plan_goes_seed_by_seed(tmp_path):
    planned = plan("descent, momentum(lr=0.05)", 2, None, {"task": "digits", "epochs": 3}, tmp_path)
    assert [run.folder.name for run in planned] == [
        "descent-seed-0",
        "momentum-lr-0.05-seed-0",
        "descent-seed-1",
        "momentum-lr-0.05-seed-1",
    ]
    assert [run.options.seed for run in planned] == [0, 0, 1, 1]
    assert {run.options.epochs for run in planned} == {3}
    assert planned[1].options.settings == {"learning_rate": 0.05}
    assert not any(run.is_there for run in planned)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "give the folders of runs"),
        (["compare", "none"], "none is not a folder"),
        (["compare", "digits", "--epochs", "3"], "--epochs is for runs that are trained: name them with --optimizers"),
        (["compare", "--optimizers", "lion"], "--optimizers trains one task"),
        (["compare", "digits", "--optimizers", "lio"], "lio"),
        (["compare", "digits", "--optimizers", "lion(momentum=0.5)"], "momentum"),
        (["compare", "digits", "--optimizers", "lion", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["compare", "digits", "--optimizers", "lion", "--seeds", "1.5"], "1.5 is not a whole number"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dispatch(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("polyak: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


# Training, with a stand-in for `polyak train`: what counts here is which runs are started, and what becomes of them

STAND_IN = """
import json, os, pathlib, shutil, signal, sys, time
words = sys.argv[1:]
if words[0] == "--resume":
    folder = pathlib.Path(words[1])
    (folder / "went_on").touch()
else:
    folder = pathlib.Path(words[3])
    shutil.copytree({recorded!r}, folder)
    shutil.copy(words[1], folder / "config.toml")
result = folder / "result.json"
content = json.loads(result.read_text())
if {hang!r} in folder.name and words[0] != "--resume":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result.unlink()
    try:
        print("trains", "alone" if os.getpgrp() == os.getpid() else "in the group of the command", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        result.write_text(json.dumps(content | dict(status="interrupted")))
        sys.exit(130)
if {fail!r} in folder.name:
    result.write_text(json.dumps(content | dict(status="failed")))
    sys.exit(1)
result.write_text(json.dumps(content | dict(status="completed")))
"""


@pytest.fixture
def stand_in(tmp_path_factory):
    """Makes the command that takes the place of `polyak train`: names of runs that hang until Ctrl-C, or that fail."""
    recorded = str(record(tmp_path_factory.mktemp("recorded") / "run", steps=8))
    return lambda hang="nothing", fail="nothing": (
        sys.executable,
        "-c",
        STAND_IN.format(recorded=recorded, hang=hang, fail=fail),
    )


WORDS = ["compare", "digits", "--optimizers", "descent, momentum", "--seeds", "2", "--out", "out"]


def test_what_is_complete_is_not_trained_again(stand_in, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("polyak.compare.training._COMMAND", stand_in())
    assert dispatch(WORDS) == 0
    first = capfd.readouterr().out
    assert "momentum, seed 1 (4 of 4):" in first
    assert "reached by" in first
    assert (tmp_path / "out" / "compare.html").exists()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("metrics.csv")}
    assert len(times) == 4
    assert dispatch([*WORDS[:5], "3", *WORDS[6:]]) == 0  # one seed more
    again = capfd.readouterr().out
    assert again.count("trained already") == 4
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len([*(tmp_path / "out").rglob("metrics.csv")]) == 6
    assert dispatch([*WORDS, "--epochs", "7"]) == 2
    assert "has a run with other options than are asked for now" in capfd.readouterr().err


def test_a_run_that_failed_is_counted_and_exit_1(stand_in, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("polyak.compare.training._COMMAND", stand_in(fail="momentum"))
    assert dispatch(WORDS) == 1
    assert "2 (2 failed)" in capfd.readouterr().out


def test_ctrl_c_compares_what_is_complete_and_the_same_command_goes_on(stand_in, tmp_path, monkeypatch, capfd):
    start = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import polyak.compare.training as training
training._COMMAND = {stand_in(hang="momentum-seed-1")!r}
from polyak.cli import main
main()
"""
    words = (sys.executable, "-c", start, *WORDS)
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    # In a group of its own it gets one Ctrl-C from the command, not another one from the terminal, which would be the second.
    while process.stdout.readline() != "trains alone\n":
        assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == "polyak: interrupted; 3 of 4 runs are complete. The same command with --out out goes on.\n"
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(("descent", "momentum"))] == [
        ["descent", "2"],
        ["momentum", "1"],
    ]
    assert json.loads((tmp_path / "out" / "momentum-seed-1" / "result.json").read_text())["status"] == "interrupted"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("polyak.compare.training._COMMAND", stand_in())
    assert dispatch(WORDS) == 0
    assert "momentum, seed 1 (4 of 4): goes on" in capfd.readouterr().out
    assert [path.parent.name for path in tmp_path.rglob("went_on")] == ["momentum-seed-1"]
