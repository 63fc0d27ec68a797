"""The report: what is read, what follows from it, and what is said of runs that were made to show each case."""

import json
import re

import numpy as np
import pytest

from polyak import report
from polyak.cli import dispatch
from polyak.report.charts import FEW, shortened
from polyak.report.curves import curves
from polyak.report.figures import motion, scores
from polyak.report.measures import fall, fullness_of_noise, own_share
from polyak.report.reading import reading
from polyak.report.reading.statement import OPPOSED
from polyak.report.recorded import NotARun, read
from polyak.report.recursion import recursion
from polyak.report.thinning import condensed, thinned
from recorded_runs import record

# Reading a run


def test_a_table_is_read_as_it_was_written(tmp_path):
    run = read(record(tmp_path / "run", steps=40, every=4))
    assert run.main == "accuracy"
    assert run.steps["step"].tolist() == [*range(4, 41, 4)]
    assert set(run.layers["layer"]) == {"model/dense/kernel", "model/dense/bias"}
    assert run.clock["seconds"].tolist() == [0.5, 1.0, 1.5, 2.0]
    assert run.result["status"] == "completed"
    lion = read(record(tmp_path / "lion", lion=True, steps=40))
    assert np.isnan(lion.steps["momentum"]).all()  # empty cells


def test_a_row_that_is_half_there_is_left_out(tmp_path):
    folder = record(tmp_path / "run", steps=40)
    whole = read(folder).steps["step"].tolist()
    with (folder / "steps.csv").open("a") as file:
        file.write("44,1,0.5,0.")
    assert read(folder).steps["step"].tolist() == whole


def test_a_run_without_recorded_steps_has_a_report(tmp_path):
    folder = record(tmp_path / "run", steps=40)
    for name in ("steps.csv", "layers.csv", "timing.csv", "result.json"):
        (folder / name).unlink()
    report.write(folder)
    (folder / "metrics.csv").write_text("")
    report.write(folder)
    page = (folder / "report.html").read_text()
    assert "not ended" in page
    assert "0 recorded steps are too few" in page


@pytest.mark.parametrize(("steps", "every", "epochs"), [(20, 25, 5), (24, 24, 3), (350, 25, 30), (350, 25, 7), (400, 4, 4)])
def test_few_recorded_steps_make_a_curve_and_are_marked(steps, every, epochs, tmp_path):
    folder = record(tmp_path / "run", steps=steps, every=every, epochs=epochs)
    report.write(folder)
    run = read(folder)
    training = next(scores(run)).figure.data[0]
    assert len(training.x) == max(steps // every, epochs)  # what there is more of
    several = [chart.figure.data for chart in motion(run)] if steps >= every else []
    for line in (line for data in several for line in data):
        assert ("markers" in line.mode) == (len(line.x) < FEW)
    assert len(several) == (0 if steps < every else 3 if steps == every else 4)  # of one row there is no change of the loss


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: [path.unlink() for path in run.iterdir()], "has no config.toml"),
        (lambda run: (run / "environment.json").write_text("{"), "environment.json cannot be read"),
        (lambda run: (run / "environment.json").write_text("[]"), "should hold an object; it holds list"),
        (lambda run: (run / "config.toml").write_text("task = "), "config.toml cannot be read"),
        (lambda run: (run / "config.toml").write_bytes(b"task = '\xff'"), "config.toml cannot be read"),
        (lambda run: (run / "steps.csv").write_text("step,loss\n1,0.5,7\n"), "steps.csv is no table of numbers"),
        (lambda run: (run / "steps.csv").write_text("step,loss\n1,abc\n"), "steps.csv is no table of numbers"),
        (lambda run: (run / "steps.csv").write_bytes(b"step,loss\n1,\xff\xfe\n"), "steps.csv is no table of numbers"),
    ],
)
def test_what_is_no_run_is_one_message_and_exit_2(spoil, message, tmp_path, capsys):
    run = record(tmp_path / "run", steps=8)
    spoil(run)
    with pytest.raises(NotARun, match=re.escape(message)):
        read(run)
    assert dispatch(["report", str(run)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("polyak: ")
    assert message in err
    assert not (run / "report.html").exists()


def test_the_command_makes_the_page_again(tmp_path, capsys):
    run = record(tmp_path / "run", steps=8)
    assert dispatch(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert dispatch(["report", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


# What follows from the numbers


def test_the_promise_of_small_steps_comes_true(tmp_path):
    """In the limit of small steps the loss falls by g . step; here the weights' change in direction over four steps is 2 %."""
    run = read(record(tmp_path / "run", lr=0.001))
    found = fall(run.steps, own_share(run.environment["optimizer"], run.steps["momentum"]))
    assert found.change == pytest.approx(found.promised, rel=0.03)
    # Of a velocity of gradients that hardly change, a tenth is the step's own.
    assert found.carried == pytest.approx(0.9 * found.promised, rel=0.03)
    assert found.error < 0.01 * abs(found.change)


@pytest.mark.parametrize("velocity", ["gradient", "step", "average"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_own_part_of_a_step_is_what_the_first_step_is(velocity, nesterov, tmp_path):
    """At the first step there is no velocity from before, so that nothing was carried."""
    options = {"velocity": velocity, "nesterov": nesterov, "momentum": 0.8}
    run = read(record(tmp_path / "run", steps=4, every=1, **options))
    own = own_share(run.environment["optimizer"], run.steps["momentum"])
    first = {name: column[0] for name, column in run.steps.items()}
    # The files have float32.
    assert own[0] * first["learning_rate"] * first["gradient_norm"] ** 2 == pytest.approx(-first["predicted_change"], rel=1e-6)


@pytest.mark.parametrize("change", [{"global_clipnorm": 1.0}, {"groups": {"bias": {"learning_rate": 1.0}}}, {"class": "Lion"}])
def test_steps_that_are_no_sum_of_what_was_recorded_are_not_divided(change, tmp_path):
    run = read(record(tmp_path / "run", steps=4))
    assert own_share({**run.environment["optimizer"], **change}, run.steps["momentum"]) is None


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_length_of_steps_that_are_noise(nesterov):
    """Against a simulation of 5,000 steps in 200 dimensions: the norm averages over both, to about 1 %."""
    rng = np.random.default_rng(0)
    m, v, lengths, sizes = 0.9, np.zeros(200), [], []
    for g in rng.normal(size=(5_000, 200)):
        v = m * v + g
        lengths.append(np.linalg.norm(m * v + g if nesterov else v))
        sizes.append(np.linalg.norm(g))
    expected = np.mean(lengths) / np.mean(sizes) * (1 - m)
    assert fullness_of_noise(np.array([m]), nesterov=nesterov)[0] == pytest.approx(expected, rel=0.02)


def test_thinning_keeps_peaks_ends_and_gaps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000)
    values[[777, 55_555]] = 50, -50
    values[70_000:80_000] = np.nan
    kept = thinned(values, 500)
    assert len(kept) <= 500
    assert {0, 777, 55_555, 99_999} <= {*kept}
    assert np.all(np.diff(kept) > 0)
    assert np.isnan(values[kept]).sum() >= 20  # one of each of the stretches, of which a tenth are in the gap
    assert thinned(np.arange(500.0), 500).tolist() == [*range(500)]


def test_a_heat_map_is_condensed_to_medians():
    values = np.tile(np.arange(1000.0), (2, 1))
    values[1, :500] = np.nan
    at, found = condensed(values, 10)
    assert at.tolist() == [49 + 100 * i for i in range(10)]
    np.testing.assert_array_equal(found[0], [49.5 + 100 * i for i in range(10)])
    assert np.isnan(found[1, :5]).all()
    assert condensed(values, 1000)[1] is values


def test_names_of_layers_are_short_and_differ():
    names = ["model/block_1/dense/kernel", "model/block_1/dense/bias", "model/block_2/dense/kernel"]
    assert shortened(names) == ["block_1/dense/kernel", "block_1/dense/bias", "block_2/dense/kernel"]
    assert shortened(["kernel"]) == ["kernel"]
    assert max(map(len, shortened([f"{'long' * 20}/{i}" for i in range(3)]))) <= 24


# The statements

CASES = {
    # name: what to record, and the verdict on each question
    "a persistent direction": ({"lr": 0.001}, "yes no yes no no"),
    "a minimum that is passed again and again": ({"lr": 0.5, "momentum": 0.97}, "no yes no ? no"),
    # The limit of heavy ball at the curvature 1 is 2 (1 + m) = 3.8.
    "just below the limit": ({"lr": 3.79}, "no yes no yes no"),
    "beyond the limit": ({"lr": 3.9}, "no yes no yes no"),
    "noise alone": ({"lr": 0.01, "noise": 3.0}, "? no no yes no"),
    "noise alone, with look-ahead": ({"lr": 0.01, "noise": 3.0, "nesterov": True}, "? no no yes no"),
    "no momentum": ({"lr": 0.3, "momentum": 0.0}, "? ? ? no no"),
    # Of descent along the curvature 1, the limit is 2: at the end 1 - 1.97 / 2 of the promise is kept.
    "no momentum, near the limit": ({"lr": 1.97, "momentum": 0.0, "batches": 1}, "? ? ? yes no"),
    "no momentum, in noise": ({"lr": 0.3, "momentum": 0.0, "noise": 0.3}, "? ? ? ? no"),
    "a layer without a gradient": ({"lr": 0.001, "frozen": ("model/dense/bias",)}, "yes no yes no yes"),
    "a layer far behind": (
        {"lr": 0.001, "curvature": {"a": np.full(9, 1.0), "b": np.full(9, 0.9), "c": np.full(9, 1e-4)}},
        "yes no yes no yes",
    ),
    "steps below the last bit": ({"lr": 1e-10}, "yes no yes no yes"),
    "too short": ({"steps": 36}, "? ? ? ? ?"),
    "long enough for medians, not for shares": ({"lr": 0.001, "steps": 350, "every": 25}, "? ? yes ? no"),
    "signs": ({"lion": True, "lr": 0.003}, "yes no ? no no"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_read_as_what_it_is(case, tmp_path):
    options, expected = CASES[case]
    said = reading(read(record(tmp_path / "run", **options)))
    assert [s.question.partition(" ")[0] for s in said] == ["Is", "Is", "Is", "Is", "Did"]
    assert [{"can't tell": "?"}.get(s.verdict, s.verdict) for s in said] == expected.split(), said
    for statement in said:
        assert statement.answer.endswith(".")
        assert statement.rule.endswith(".")
        assert statement.numbers or statement.verdict != "no"


@pytest.mark.parametrize("velocity", ["step", "average"])
def test_the_unit_of_the_velocity_does_not_change_the_reading(velocity, tmp_path):
    same = {"lr": 0.02 if velocity == "average" else 0.002, "momentum": 0.9, "velocity": velocity}
    first = reading(read(record(tmp_path / "a", lr=0.002)))
    assert [s.verdict for s in reading(read(record(tmp_path / "b", **same)))] == [s.verdict for s in first]


def test_the_numbers_of_a_statement_are_those_of_the_files(tmp_path):
    run = read(record(tmp_path / "run", lr=0.5, momentum=0.97))
    helping, oscillating, *_ = reading(run)
    cosine = run.steps["cosine"]
    assert dict(helping.numbers)["steps with a positive cosine"] == f"{(cosine > 0).mean():.0%} of {len(cosine)}"
    opposed = (cosine < OPPOSED).mean()
    assert dict(oscillating.numbers)[f"steps with a cosine below {OPPOSED}"] == f"{opposed:.0%} of {len(cosine)}"


def test_the_layer_that_stalled_is_named(tmp_path):
    *_, stalled = reading(read(record(tmp_path / "run", lr=0.001, frozen=("model/dense/bias",))))
    assert stalled.answer == "model/dense/bias hardly moves beside the others. No gradient reaches model/dense/bias."
    assert ("model/dense/bias", "0") in stalled.numbers


def test_weights_of_nothing_but_zeros_have_not_stalled(tmp_path):
    """Their relative step is 0 / 0, and says nothing."""
    run = record(tmp_path / "run", lr=0.001)
    rows = [row.split(",") for row in (run / "layers.csv").read_text().splitlines()]
    at = rows[0].index("weight_norm")
    text = "\n".join(",".join([*r[:at], "0.0", *r[at + 1 :]] if "bias" in r[1] else r) for r in rows)
    (run / "layers.csv").write_text(text + "\n")
    *_, stalled = reading(read(run))
    assert stalled.verdict == "no"


# The optimizer in words


def config(name, **changes):
    usual = {"weight_decay": None, "decay": None, "learning_rate": 0.1, "momentum": 0.9}
    usual |= {"nesterov": False, "velocity": "gradient", "dampening": 0.0}
    return {"class": name, **usual, **changes}


SCHEDULE = {
    "module": "polyak.keras.schedules",
    "class_name": "StepFunction",
    "config": {"function": {"class_name": "cosine", "config": {"peak": 0.1, "steps": 100}}},
}


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (config("Momentum"), ["v = 0.9 v + g", "w = w - 0.1 v"]),
        (config("Momentum", learning_rate=0.10000000149011612, nesterov=True), ["v = 0.9 v + g", "w = w - 0.1 (0.9 v + g)"]),
        (config("Momentum", momentum=0.0), ["w = w - 0.1 g"]),
        (config("Momentum", velocity="step", dampening=0.2), ["v = 0.9 v + 0.1 * 0.8 g", "w = w - v"]),
        (config("Momentum", velocity="average"), ["v = v + 0.1 (g - v)", "w = w - 0.1 v"]),
        (config("Momentum", learning_rate=SCHEDULE), ["v = 0.9 v + g", "w = w - lr v", "lr = cosine(peak=0.1, steps=100)"]),
        (
            config("Momentum", weight_decay=0.01, decay="coupled", global_clipnorm=1.0),
            ["g = g min(1, 1 / |all g|)", "g = g + 0.01 w", "v = 0.9 v + g", "w = w - 0.1 v"],
        ),
        (
            config("Momentum", weight_decay=0.01, decay="decoupled", groups={"bias": {"learning_rate": 0.2}}),
            ["v = 0.9 v + g", "w = w - 0.1 v", "w = w - 0.1 * 0.01 w", "weights like bias: learning_rate 0.2"],
        ),
        (config("QHM", nu=0.7), ["v = v + 0.1 (g - v)", "w = w - 0.1 (0.3 g + 0.7 v)"]),
        (config("AggMo", momenta=[0.0, 0.9]), ["v1 = 0 v1 + g", "v2 = 0.9 v2 + g", "w = w - 0.1 (v1 + v2) / 2"]),
        (config("Signum"), ["v = v + 0.1 (g - v)", "w = w - 0.1 sign(v)"]),
        (config("Lion", b1=0.9, b2=0.99), ["w = w - 0.1 sign(0.9 v + 0.1 g)", "v = 0.99 v + 0.01 g"]),
    ],
)
def test_a_recursion_has_its_numbers(given, lines):
    assert recursion(given) == lines


def test_every_method_has_its_recursion():
    from polyak.methods import METHODS

    extra = {"nu": 0.7, "momenta": (0.0, 0.9), "b1": 0.9, "b2": 0.99, "trust_coefficient": 0.001, "warmup_steps": 0}
    for name in METHODS:
        lines = recursion(config(name, **extra))
        assert len(lines) > 1, name
        assert any(line.lower().startswith(("w = w - ", "x = ")) for line in lines)


# curves.png


@pytest.mark.parametrize(("main", "panels"), [("accuracy", 2), (None, 1), ("missing", 1)])
def test_the_picture_has_a_panel_for_each_score(main, panels, tmp_path):
    run = record(tmp_path / "run", steps=8)
    curves(run / "metrics.csv", tmp_path / "picture.png", "a run", main)
    width = int.from_bytes((tmp_path / "picture.png").read_bytes()[16:20], "big")
    assert width == panels * 5 * 150  # inches, dots an inch


def test_the_picture_of_a_run_without_validation(tmp_path):
    run = record(tmp_path / "run", steps=8)
    (run / "metrics.csv").write_text("epoch,step,loss,mae,learning_rate,momentum\n1,8,-0.5,,0.1,\n")
    curves(run / "metrics.csv", tmp_path / "picture.png", "a run", "mae")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    report.write(run)
    assert json.loads((run / "environment.json").read_text())["main"] == "accuracy"
