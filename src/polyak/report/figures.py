"""The charts of a run."""

from collections.abc import Iterator

import numpy as np

from polyak.report.charts import Chart, Line, heat, lines, shortened
from polyak.report.measures import relative_step
from polyak.report.recorded import Columns, Recorded


def scores(run: Recorded) -> Iterator[Chart]:
    """Loss and the main metric over the steps."""
    steps, epochs = (len(rows.get("step", ())) for rows in (run.steps, run.epochs))
    if not steps and not epochs:
        return
    windows, since = (run.steps, "recorded step") if steps >= epochs else (run.epochs, "epoch")
    about = f"Training: means over the steps since the last {since}. Validation: after each epoch."
    for name in filter(None, ("loss", run.main)):
        drawn = [Line("training", windows["step"], windows[name])] if name in windows else []
        if f"val_{name}" in run.epochs:
            drawn.append(Line("validation", run.epochs["step"], run.epochs[f"val_{name}"], marks=True))
        if drawn:
            yield lines(name.capitalize(), about, drawn, name, log=name == "loss", percent=is_share(run, name))


def is_share(run: Recorded, name: str) -> bool:
    """Whether a metric is a share, such as accuracy."""
    return "accuracy" in name or (name != "loss" and run.environment.get("kind") == "classification")


def settings(run: Recorded) -> Iterator[Chart]:
    """Learning rate and momentum over the steps."""
    rows = run.steps if len(run.steps.get("step", ())) else run.epochs
    at = rows["step"]
    rates = [Line("learning rate", at, rows["learning_rate"])]
    if np.isfinite(rows.get("effective_learning_rate", np.nan)).any():
        rates.append(Line("effective", at, rows["effective_learning_rate"]))
    about = "The effective learning rate is that of descent whose steps are as long where the gradient stays the same."
    chart = lines("Learning rate", about, rates, "learning rate", log=True)
    chart.figure.update_yaxes(rangemode="tozero")  # a constant rate would have an axis from -1 to 1
    yield chart
    if np.isfinite(rows["momentum"]).any():
        chart = lines(
            "Momentum", "The share of the velocity that a step keeps.", [Line("momentum", at, rows["momentum"])], "momentum"
        )
        chart.figure.update_yaxes(range=[0, 1.02])
        yield chart


def motion(run: Recorded) -> Iterator[Chart]:
    """Norms, directions, and the loss against its promise."""
    steps = run.steps
    at = steps["step"]
    norms = [Line(name, at, steps[f"{name}_norm"]) for name in ("gradient", "velocity", "step", "weight")]
    norms = [line for line in norms if np.isfinite(line.y).any()]
    yield lines("Norms", "Of all weights together.", norms, "norm", log=True)
    about = "|step| / |w|: the share of their size by which a step changes the weights."
    yield lines("Relative step size", about, [Line("relative step", at, relative_step(steps))], "|step| / |w|", log=True)
    if np.isfinite(steps["cosine"]).any():
        about = "Between the gradient and the velocity from before the step. Below 0, momentum is fighting the gradient."
        chart = lines("Direction", about, [Line("cosine", at, steps["cosine"])], "cosine")
        chart.figure.update_yaxes(range=[-1.05, 1.05], zeroline=True)
        yield chart
    if len(at) > 1:
        yield promise(steps)


def promise(steps: Columns) -> Chart:
    """The change of the loss from one recorded window to the next, and what the gradient promised for it."""
    length = np.diff(steps["step"])
    with np.errstate(invalid="ignore"):  # a loss that became infinite
        change = np.diff(steps["loss"])
    about = (
        "From one recorded window to the next, beside -g . step times the steps between. Where the loss falls less, the rest "
        "is lost to curvature and to noise."
    )
    drawn = [
        Line("change of the loss", steps["step"][1:], change),
        Line("promised by the gradient", steps["step"][1:], steps["predicted_change"][:-1] * length),
    ]
    chart = lines("Loss against its promise", about, drawn, "change of the loss")
    chart.figure.update_yaxes(zeroline=True)
    return chart


def layers(run: Recorded) -> Iterator[Chart]:
    """Heat maps: layers by steps."""
    rows = run.layers
    names = [*dict.fromkeys(rows["layer"])]
    steps = np.unique(rows["step"])
    place = {name: i for i, name in enumerate(names)}
    where = np.array([place[name] for name in rows["layer"]]), np.searchsorted(steps, rows["step"])
    short = shortened(names)
    for title, about, values, log in (
        ("Relative step by layer", "|step| / |w| of each layer. Dark rows hardly move.", relative_step(rows), True),
        ("Gradient norm by layer", "The size of the gradient of each layer.", rows["gradient_norm"], True),
        (
            "Direction by layer",
            "The cosine of gradient and velocity of each layer: blue agrees, orange opposes.",
            rows["cosine"],
            False,
        ),
    ):
        if not np.isfinite(values).any():
            continue
        grid = np.full((len(names), len(steps)), np.nan)
        grid[where] = values
        yield heat(title, f"{about} {_extremes(names, grid)}", steps, short, grid, log=log)


def _extremes(names: list[str], grid: np.ndarray) -> str:
    """The layers with the smallest and the largest median, in words."""
    medians = {}
    for name, row in zip(names, grid, strict=True):
        known = row[np.isfinite(row)]
        if len(known):
            medians[name] = float(np.median(known))
    low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    return f"Medians go from {medians[low]:.2g} ({low}) to {medians[high]:.2g} ({high})."
