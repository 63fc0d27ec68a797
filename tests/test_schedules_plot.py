"""`polyak.schedules.plot`: what is drawn, and what is written."""

import sys

import numpy as np
import pytest

from polyak.schedules import cosine, linear, one_cycle, piecewise, plot


def lines(figure):
    """Label -> (steps, values), and the title of its axes."""
    return {
        line.get_label(): (axes.get_ylabel(), *(np.asarray(data) for data in line.get_data()))
        for axes in figure.axes
        for line in axes.lines
    }


def test_each_step_of_each_schedule_is_drawn():
    schedule = cosine(0.1, 100, warmup=10)
    drawn = lines(plot(schedule, steps=120, line=linear(0.1, 0.0, 100), other=lambda t: 0.1 / (1 + t)))
    assert list(drawn) == [repr(schedule), "line", "other"]
    title, steps, values = drawn[repr(schedule)]
    assert title == "value"
    np.testing.assert_array_equal(steps, np.arange(121))
    np.testing.assert_array_equal(values, schedule(np.arange(121)))
    np.testing.assert_array_equal(drawn["other"][2], 0.1 / (1 + np.arange(121)))


def test_many_steps_are_drawn_at_some_of_them_the_ends_included():
    _, steps, values = lines(plot(s=linear(0.0, 1.0, 10**6), steps=10**6))["s"]
    assert 1000 < len(steps) < 3000
    assert (steps[0], steps[-1], values[0], values[-1]) == (0, 10**6, 0.0, 1.0)
    assert (steps == steps.astype(int)).all()


def test_the_momentum_of_a_cycle_has_axes_of_its_own():
    cycle = one_cycle(0.5, 100)
    drawn = lines(plot(cycle, quick=one_cycle(0.5, 50), steps=100))
    assert list(drawn) == [
        "one_cycle, learning rate",
        "quick, learning rate",
        "one_cycle, momentum",
        "quick, momentum",
    ]
    title, steps, values = drawn["one_cycle, momentum"]
    assert title == "momentum"
    np.testing.assert_array_equal(values, cycle.momentum(steps.astype(int)))
    (bottom, top) = plot(cycle, steps=100).axes[1].get_ylim()
    assert bottom == 0
    assert top > 0.95


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a", b"\x89PNG")])
def test_a_picture_is_written_whole(tmp_path, name, start):
    path = tmp_path / name
    path.write_text("before")
    plot(piecewise((5,), (1.0, 0.5)), steps=10, path=path)
    assert path.read_bytes().startswith(start)
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_after_an_error_the_file_before_is_there(tmp_path):
    path = tmp_path / "a.odd"
    path.write_text("before")
    with pytest.raises(ValueError, match="odd"):
        plot(linear(1.0, 0.0, 5), steps=10, path=path)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["a.odd"]


def test_no_window_and_no_state(monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # which another test may have imported
    plot(linear(1.0, 0.0, 5), steps=10)
    assert "matplotlib.pyplot" not in sys.modules


def test_bad_arguments():
    with pytest.raises(TypeError, match="at least one schedule"):
        plot(steps=10)
    with pytest.raises(TypeError, match=r"got 0\.1 of type float"):
        plot(0.1, steps=10)
    with pytest.raises(TypeError, match="steps counts steps"):
        plot(linear(1.0, 0.0, 5), steps=10.0)


def test_without_matplotlib(monkeypatch):
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'polyak\[train\]'"):
        plot(linear(1.0, 0.0, 5), steps=10)
