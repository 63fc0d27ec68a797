"""The options of a rule and the arguments that all front-ends check."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from polyak.arguments import check_dampening, check_decay, check_learning_rate, check_momentum
from polyak.rules import RULES, heavy_ball
from polyak.update import clip_scale, decoupled, pipeline


@pytest.mark.parametrize("velocity", ["gradient", "step", "average"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_heavy_ball_takes_the_rule_of_its_options(velocity, nesterov):
    rule = heavy_ball(velocity=velocity, nesterov=nesterov)
    assert rule is RULES[velocity + ("_nesterov" if nesterov else "")]
    assert rule.slots == ("velocity",)


def test_momentum_0_keeps_no_slot():
    rule = heavy_ball(momentum=False)
    assert rule is RULES["descent"]
    assert rule.slots == ()


def test_defaults_are_the_text_books():
    assert heavy_ball() is RULES["gradient"]
    assert heavy_ball(dampening=0.5) is RULES["gradient_dampened"]
    assert heavy_ball(velocity="step", dampening=0.5) is RULES["step_dampened"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocity": "steps"}, "'gradient', 'step', 'average'; got 'steps'"),
        ({"momentum": False, "nesterov": True}, "nesterov=True has no effect with momentum=0"),
        ({"momentum": False, "dampening": 0.5}, "dampening=0.5 has no meaning with momentum=0"),
        ({"nesterov": True, "dampening": 0.5}, "takes no dampening"),
        ({"velocity": "average", "dampening": 0.5}, "already weights the gradient"),
    ],
)
def test_options_without_effect_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        heavy_ball(**options)


def test_the_pipeline_of_the_same_options_is_the_same():
    """So that what was compiled for one optimizer serves the next."""
    assert pipeline(heavy_ball(), "coupled") is pipeline(heavy_ball(), "coupled")
    assert pipeline(heavy_ball()) is not pipeline(heavy_ball(), "coupled")


def test_an_update_says_what_it_is():
    assert (pipeline(heavy_ball()).rule, pipeline(heavy_ball()).decay) == (heavy_ball(), None)
    assert (pipeline(heavy_ball(), "coupled").rule, pipeline(heavy_ball(), "coupled").decay) == (heavy_ball(), "coupled")
    assert (pipeline(heavy_ball()).scale, pipeline(heavy_ball(), scale=True).scale) == (False, True)


def test_a_decay_that_is_small_beside_the_weight_is_not_rounded_to_the_weight():
    """Of lr wd = 1e-9, float32 weights would lose nothing at all; the step has it to the last bit."""
    w = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    for c in (1e-9, 1e-7, 1e-5, 1e-3):
        h = SimpleNamespace(learning_rate=np.float32(c), weight_decay=np.float32(1))
        exact = np.float64(np.float32(c)) * w.astype(np.float64)
        # A product and two sums of its size, each rounded once.
        np.testing.assert_allclose(decoupled(np.float32(0), w, h), exact, rtol=3 * 2.0**-24)


def test_hyperparameters_are_those_that_are_read():
    assert pipeline(heavy_ball(dampening=0.5)).Hyperparameters._fields == ("learning_rate", "momentum", "dampening")
    assert pipeline(heavy_ball(nesterov=True), "coupled").Hyperparameters._fields == (
        "learning_rate",
        "momentum",
        "weight_decay",
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_nothing_is_changed_in_place(rule):
    rng = np.random.default_rng(0)
    g, w, v = rng.standard_normal((3, 5))
    copies = g.copy(), w.copy(), v.copy()
    for decay in (None, "coupled", "decoupled"):
        update = pipeline(rule, decay)
        update.apply(g, w, (v,) * len(rule.slots), update.Hyperparameters(*[0.5] * len(update.Hyperparameters._fields)))
    for array, copy in zip((g, w, v), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_learning_rate, [0, 0.1, 1, 1e9, np.float32(0.5)], [-0.1, -1e-300, math.inf, math.nan]),
        (check_momentum, [0, 0.0, 0.9, 0.999999], [1, 1.0, 1.5, -0.1, math.nan, math.inf]),
        (check_dampening, [0, 0.5], [1, -0.5, math.nan]),
    ],
)
def test_ranges(check, good, bad):
    for value in good:
        assert check(value) == float(value)
        assert type(check(value)) is float
    for value in bad:
        with pytest.raises(ValueError, match=r"must be .*; got "):
            check(value)
    for value in ("0.5", None, True, [0.5], np.array([0.5]), 1j):
        with pytest.raises(TypeError, match="must be a number; got"):
            check(value)


def test_decay_and_weight_decay_go_together():
    assert check_decay(0, None) == (0.0, None)
    assert check_decay(0.1, "coupled") == (0.1, "coupled")
    assert check_decay(0.1, "decoupled") == (0.1, "decoupled")
    with pytest.raises(ValueError, match=r'(?s)weight_decay=0.1 needs decay.*"coupled".*torch.optim.SGD.*"decoupled".*Keras'):
        check_decay(0.1, None)
    with pytest.raises(ValueError, match="has no effect with weight_decay=0"):
        check_decay(0.0, "coupled")
    with pytest.raises(ValueError, match='decay must be "coupled", "decoupled" or None; got \'l2\''):
        check_decay(0.1, "l2")
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight_decay must be finite and at least 0"):
            check_decay(bad, "coupled")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
def test_scale_multiplies_the_gradient_before_anything_else(rule, decay):
    values = {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.125, "scale": 4.0}

    def apply(g, **options):
        update = pipeline(rule, decay, **options)
        return update.apply(
            g, 3.0, (2.0,) * len(rule.slots), update.Hyperparameters(*(values[n] for n in update.Hyperparameters._fields))
        )

    assert apply(2.0, scale=True) == apply(8.0)  # powers of two: exact
    assert apply(2.0, scale=True) != apply(2.0)


def test_clip_scale():
    assert clip_scale(4.0, max_norm=1.0) == 0.25
    assert clip_scale(1.0, max_norm=1.0) == 1.0
    assert clip_scale(0.5, max_norm=1.0) == 1.0
    assert clip_scale(0.0, max_norm=1.0) == 1.0
    assert clip_scale(math.inf, max_norm=1.0) == 0.0
    assert math.isnan(clip_scale(math.nan, max_norm=1.0))
