"""The picture of an identity: what is drawn, and that it is of the recurrence."""

from dataclasses import replace

import numpy as np
import pytest

from polyak.check.drivers.loading import load
from polyak.check.identity import Identity, Number
from polyak.check.plot import plot
from polyak.check.report import Report
from polyak.check.response import impulse, measured, transfer, transform

OPTIONS = {"lr": 0.1, "nesterov": True}


def nesterov(m=0.9, lr=0.1, steps=40):
    """Nesterov's momentum, with the impulse response of its recursion."""
    v, found = 0.0, []
    for g in [1.0] + (steps - 1) * [0.0]:
        v = m * v + g
        found.append(lr * (m * v + g))
    return Identity(
        "momentum", linear=True, impulse=np.array(found), poles=np.array([m]), residues=np.array([lr * m]), direct=lr
    )


def report(identity, m=0.9):
    return Report(load("torch.optim:SGD", {**OPTIONS, "momentum": m}), identity, ())


def lines(axes):
    return {line.get_label(): np.asarray(line.get_data()) for line in axes.lines if not line.get_label().startswith("_")}


def test_the_impulse_response_is_that_of_the_recursion():
    found = nesterov()
    np.testing.assert_allclose(impulse(found, 40), found.impulse, rtol=1e-13)  # some 40 roundings
    assert impulse(found, 0).shape == (0,)


def test_the_transfer_function_is_the_transform_of_the_impulse_response():
    found = nesterov(m=0.5, steps=60)  # 0.5^60 is below the last bit: nothing is cut off
    at = np.array([1e-3, 0.1, 0.25, 0.5])
    np.testing.assert_allclose(transfer(found, at), transform(found.impulse, at), rtol=1e-12)
    np.testing.assert_allclose(transfer(found, np.zeros(1)), [0.1 * (1 + 0.5 / 0.5)], rtol=1e-12)  # lr / (1 - m)


def test_oscillating_poles_give_real_steps():
    p, r = np.array([0.5 + 0.5j, 0.5 - 0.5j]), np.array([1.0, 1.0])
    found = impulse(Identity("linear", linear=True, poles=p, residues=r), 5)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [2 * (p[0] ** k).real for k in range(5)], atol=1e-15)


@pytest.mark.parametrize(("m", "steps"), [(0.5, 40), (0.9, 66), (0.99, 688), (0.999, 2000)])
def test_it_is_measured_to_its_end(m, steps):
    subject = report(None, m).subject
    found = measured(subject, nesterov(m))
    assert len(found) == steps  # 40 were there; m^66 and 0.99^688 are a thousandth
    np.testing.assert_allclose(found, nesterov(m, steps=steps).impulse, rtol=1e-12)  # a rounding a step


def test_below_its_norm_a_clipped_optimizer_is_measured_too():
    found = replace(nesterov(), linear=False, clip=(Number(0.2, 0.0), "all"))
    np.testing.assert_allclose(measured(report(None).subject, found), nesterov(steps=66).impulse, rtol=1e-12)


def test_measured_and_recurrence_are_drawn_in_both_panels():
    figure = plot(report(nesterov()))
    left, right = figure.axes
    np.testing.assert_allclose(lines(left)["measured"][1], lines(left)["recurrence"][1], rtol=1e-12)
    drawn, recurrence = lines(right)["measured, 66 steps"], lines(right)["recurrence"]
    assert (drawn[0][0], drawn[0][-1]) == (recurrence[0][0], recurrence[0][-1]) == pytest.approx((1e-3, 0.5))
    # What is cut off is a thousandth of the first step; 500 points between which the line is straight add less.
    np.testing.assert_allclose(drawn[1], np.interp(drawn[0], *recurrence), rtol=2e-3)
    assert figure.get_suptitle() == "torch.optim:SGD(lr=0.1, nesterov=True, momentum=0.9)"


def test_what_is_not_linear_has_no_frequency_response():
    left, right = plot(report(Identity("adaptive", linear=False, impulse=np.array([0.1, 0.09, 0.08])))).axes
    assert list(lines(left)) == ["measured"]
    assert not right.lines
    assert "adaptive, not linear" in right.texts[0].get_text()


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="what was measured is unknown"):
        plot(report(Identity("unknown")))


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_picture_is_written_whole(tmp_path, name, start):
    plot(report(nesterov()), path=tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [found.name for found in tmp_path.iterdir()] == [name]
