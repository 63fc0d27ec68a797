"""report.html as a browser shows it: one file that opens without a network, on a phone and on a desk, in light and in dark."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from browser import Outline, contrast, needs_browser, shown
from polyak import report
from polyak.report.page import page
from polyak.report.recorded import read
from polyak.report.thinning import COLUMNS, POINTS
from recorded_runs import record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = record(tmp_path_factory.mktemp("report") / "run", lr=0.5, momentum=0.97)
    report.write(folder)
    return folder


def test_the_page_has_all_that_it_needs_inside(run):
    outline = Outline((run / "report.html").read_text())
    for tag, attributes in outline.elements:
        assert tag not in ("iframe", "object", "embed")
        assert not attributes.get("src")
        assert attributes.get("href", "data:,").startswith("data:")
    css = Path(report.__file__).with_name("page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_the_page_has_an_outline_and_words_for_each_chart(run):
    outline = Outline((run / "report.html").read_text())
    assert outline.headings[0] == ("h1", "quadratic: Momentum on bowl")
    levels = [int(tag[1]) for tag, _ in outline.headings]
    assert max(np.diff(levels)) == 1  # none is left out on the way down
    assert [text for tag, text in outline.headings if tag == "h2"] == [
        "The optimizer",
        "The data",
        "Reading",
        "Loss and score",
        "Learning rate and momentum",
        "What the steps did",
        "Layer by layer",
    ]
    ids = {attributes.get("id") for _, attributes in outline.elements}
    charts = [attributes for _, attributes in outline.elements if attributes.get("class") == "chart"]
    assert len(charts) == 11
    for chart in charts:
        assert chart["role"] == "img"
        assert {chart["aria-labelledby"], chart["aria-describedby"]} <= ids
    assert next(attributes["lang"] for tag, attributes in outline.elements if tag == "html") == "en"


def test_names_cannot_become_code(tmp_path):
    layer = "</script><script>x()"
    run = record(tmp_path / "run", steps=8, curvature={layer: np.ones(3), "b": np.ones(3)})
    environment = json.loads((run / "environment.json").read_text())
    environment |= {"task": layer, "notes": [layer]}
    (run / "environment.json").write_text(json.dumps(environment))
    text = page(read(run))
    assert "<script>x()" not in text
    assert text.count("\\u003cscript") >= 3  # the name is there: in the charts,
    assert "&lt;script&gt;x()" in text  # and in the text


def test_a_long_run_has_a_page_of_the_same_size(tmp_path):
    run = record(tmp_path / "run", steps=8)
    steps, layers = 40_000, [f"model/layer_{i}/kernel" for i in range(40)]
    head, row = (run / "steps.csv").read_text().splitlines()[:2]
    rest = row.partition(",")[2]
    (run / "steps.csv").write_text("\n".join([head, *(f"{i},{rest}" for i in range(1, steps + 1))]) + "\n")
    head, row = (run / "layers.csv").read_text().splitlines()[:2]
    rest = row.split(",", 2)[2]
    rows = (f"{i},{layer},{rest}" for i in range(1, steps + 1, 40) for layer in layers)
    (run / "layers.csv").write_text("\n".join([head, *rows]) + "\n")
    report.write(run)
    # Plotly is 5 MB. A number is a float32 as base64, 6 bytes, or an int64 of 11 where it is a step.
    points = 14 * POINTS * (6 + 11) + 3 * COLUMNS * (40 * 6 + 11)
    assert (run / "report.html").stat().st_size < 5e6 + 1.2 * points


def colours(*, dark):
    """The first four that the page has for lines."""
    script = Path(report.__file__).with_name("page.js").read_text()
    theme = re.search(rf"{'dark' if dark else 'light'}: {{.*lines: \[(.*?)\]", script)[1]
    return {f"rgb{tuple(bytes.fromhex(each))}" for each in re.findall(r'"#(\w+)"', theme)[:4]}


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_all_charts_on_a_phone_and_on_a_desk(dark, run, tmp_path):
    console, frames = shown(run / "report.html", tmp_path, dark=dark)
    assert console == []
    assert [frame["width"] // 100 for frame in frames] == [3, 11]
    for frame in frames:
        assert frame["content"] == frame["width"]  # nothing to scroll to the side
        assert frame["outside"] == 0
        assert frame["charts"] == frame["drawn"] == 11
        assert (frame["lines"], frame["maps"]) == (15, 3)
        assert frame["dark"] == dark
        # WCAG 2.2: 4.5 for text (1.4.3), 3 for what is to be told from its background (1.4.11).
        assert contrast(frame["ink"], frame["ground"]) > 4.5
        assert all(contrast(label, frame["ground"]) > 4.5 for label in frame["labels"])
        assert {*frame["strokes"]} == colours(dark=dark)
        assert all(contrast(stroke, frame["ground"]) >= 3 for stroke in frame["strokes"])
