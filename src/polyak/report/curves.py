"""The picture of a run: its loss and its main metric by epoch."""

import csv
import logging
from pathlib import Path

# Blue and orange of M. Okabe, K. Ito, "Color universal design", 2008: told apart with any kind of colour vision. The marks
# differ too, for a picture printed in grey.
LINES = {
    "training": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "validation": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
}


def curves(metrics: Path, picture: Path, title: str, main: str | None) -> None:
    """Draw a run.

    Args:
        metrics: Its metrics.csv, with at least one epoch.
        picture: The PNG to write.
        title: Of the picture.
        main: The metric that has the second panel, such as "accuracy"; None for the loss alone.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # "building the font cache", where it is used for the first time
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with metrics.open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) for row in rows]

    names = ("loss",) if main is None or main not in rows[0] else ("loss", main)
    # Without pyplot: no window system is looked for, and no state is left behind.
    figure = Figure(figsize=(5 * len(names), 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        drawn = []
        for part, column in (("training", name), ("validation", f"val_{name}")):
            if column in rows[0]:  # a task of one's own may have nothing to validate with
                values = [float(row[column] or "nan") for row in rows]
                drawn += values
                axes.plot(epochs, values, label=part, markersize=4, **LINES[part])
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        if name == "loss":
            if min(drawn) > 0:
                axes.set_yscale("log")
        elif "accuracy" in name:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(title)
    figure.savefig(picture)
