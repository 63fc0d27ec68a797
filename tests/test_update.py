"""The options of a rule and the arguments that all front-ends check."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from polyak.arguments import (
    check_cautious,
    check_dampening,
    check_decay,
    check_finite,
    check_fraction,
    check_learning_rate,
    check_momenta,
    check_momentum,
)
from polyak.methods import METHODS
from polyak.rules import RULES, heavy_ball
from polyak.rules.aggmo import aggmo
from polyak.rules.lars import LARS
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


@pytest.mark.parametrize("nesterov", ["yes", 2, None])
def test_nesterov_is_true_or_false(nesterov):
    with pytest.raises(ValueError, match="nesterov must be True or False; got"):
        heavy_ball(nesterov=nesterov)


def test_the_pipeline_of_the_same_options_is_the_same():
    """So that what was compiled for one optimizer serves the next."""
    assert pipeline(heavy_ball(), "coupled") is pipeline(heavy_ball(), "coupled")
    assert pipeline(heavy_ball()) is not pipeline(heavy_ball(), "coupled")


def test_an_update_says_what_it_is():
    assert (pipeline(heavy_ball()).rule, pipeline(heavy_ball()).decay) == (heavy_ball(), None)
    assert (pipeline(heavy_ball(), "coupled").rule, pipeline(heavy_ball(), "coupled").decay) == (heavy_ball(), "coupled")
    for option in ("scale", "cautious", "cautious_decay"):
        update = pipeline(heavy_ball(), "decoupled", **{option: True})
        assert {name: getattr(update, name) for name in ("scale", "cautious", "cautious_decay")} == {
            **dict.fromkeys(("scale", "cautious", "cautious_decay"), False),
            option: True,
        }


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
    values = {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.125, "scale": -4.0}
    values |= {
        "average": 0.5,
        "nu": 0.75,
        "b1": 0.5,
        "b2": 0.75,
        "share": 0.25,
        "momentum_0": 0.0,
        "momentum_1": 0.5,
        "momentum_2": 0.75,
    }

    def apply(g, **options):
        update = pipeline(rule, decay, **options)
        return update.apply(
            g, 3.0, (2.0,) * len(rule.slots), update.Hyperparameters(*(values[n] for n in update.Hyperparameters._fields))
        )

    assert apply(2.0, scale=True) == apply(-8.0)  # powers of two: exact
    assert apply(2.0, scale=True) != apply(2.0)


def test_clip_scale():
    assert clip_scale(4.0, max_norm=1.0) == 0.25
    assert clip_scale(1.0, max_norm=1.0) == 1.0
    assert clip_scale(0.5, max_norm=1.0) == 1.0
    assert clip_scale(0.0, max_norm=1.0) == 1.0
    assert clip_scale(math.inf, max_norm=1.0) == 0.0
    assert math.isnan(clip_scale(math.nan, max_norm=1.0))


def test_the_cautious_step_waits_where_it_goes_up_the_gradient():
    update = pipeline(RULES["gradient"], cautious=True)
    h = update.Hyperparameters(learning_rate=0.5, momentum=0.5)
    g = np.array([1.0, 1.0, -1.0, -1.0, 0.0, np.nan, np.inf])
    v = np.array([4.0, -4.0, 4.0, -4.0, 4.0, 4.0, 4.0])
    w, (v_new,) = update.apply(g, np.full(7, 8.0), (v,), h)
    np.testing.assert_array_equal(v_new, [3, -1, 1, -3, 2, np.nan, np.inf])  # the velocity goes on
    np.testing.assert_array_equal(w, [6.5, 8, 8, 9.5, 8, np.nan, -np.inf])


def test_the_cautious_step_asks_for_the_gradient_of_the_loss_alone():
    """Not for that with the decay, and for the scaled one: up is down if the scale is negative."""
    update = pipeline(RULES["descent"], "coupled", scale=True, cautious=True)
    for g, w_new in ((1.0, 8.0), (-1.0, 3.5)):
        h = update.Hyperparameters(learning_rate=0.5, weight_decay=1.0, scale=-1.0)
        assert update.apply(g, 8.0, (), h) == (w_new, ())


def test_the_cautious_decay_waits_where_the_step_makes_the_weight_larger():
    update = pipeline(RULES["descent"], "decoupled", cautious_decay=True)
    h = update.Hyperparameters(learning_rate=0.5, weight_decay=0.25)
    g, w = np.array([1.0, -1.0, 1.0, -1.0, 0.0, np.nan, 1.0]), np.array([8.0, 8.0, -8.0, -8.0, 8.0, 8.0, 0.0])
    np.testing.assert_array_equal(update.apply(g, w, (), h)[0], [6.5, 8.5, -8.5, -6.5, 8, np.nan, -0.5])


def test_cautious_options_compare_signs_and_not_a_product_that_could_vanish():
    tiny = 2.0**-700  # its square is 0
    h = SimpleNamespace(learning_rate=0.5, weight_decay=0.25)
    assert pipeline(RULES["descent"], cautious=True).apply(tiny, 0.0, (), h) == (-tiny / 2, ())
    w, _ = pipeline(RULES["descent"], "decoupled", cautious_decay=True).apply(tiny, 8 * tiny, (), h)
    assert w == 6.5 * tiny


def test_a_cautious_step_decays():
    update = pipeline(RULES["gradient"], "decoupled", cautious=True)
    h = update.Hyperparameters(learning_rate=0.5, momentum=0.5, weight_decay=0.25)
    assert update.apply(1.0, 8.0, (-4.0,), h) == (7.0, (-1.0,))
    update = pipeline(RULES["gradient"], "decoupled", cautious=True, cautious_decay=True)
    assert update.apply(1.0, 8.0, (-4.0,), h) == (8.0, (-1.0,))


def test_cautious_arguments():
    check_cautious(True, True, "decoupled")
    check_cautious(True, False, None)
    with pytest.raises(ValueError, match="cautious_decay=True has no effect with decay='coupled'"):
        check_cautious(False, True, "coupled")
    with pytest.raises(TypeError, match="cautious must be True or False; got 1"):
        check_cautious(1, False, None)
    with pytest.raises(TypeError, match="cautious_decay must be True or False; got 'yes'"):
        check_cautious(False, "yes", "decoupled")


def test_other_arguments_of_the_family():
    assert check_fraction("nu", 1) == 1.0
    with pytest.raises(ValueError, match=r"nu must be in \[0, 1\]; got 1.5"):
        check_fraction("nu", 1.5)
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\); got 1"):
        check_fraction("b1", 1, below_one=True)
    with pytest.raises(ValueError, match=r"nu must be in \[0, 1\]; got nan"):
        check_fraction("nu", math.nan)
    assert check_momenta([0, 0.5]) == (0.0, 0.5)
    with pytest.raises(ValueError, match="at least one number"):
        check_momenta([])
    with pytest.raises(TypeError, match="a sequence of numbers"):
        check_momenta(0.9)
    with pytest.raises(ValueError, match=r"momenta\[1\] must be in \[0, 1\); got 1"):
        check_momenta([0.5, 1])
    with pytest.raises(ValueError, match='finite must be "error"'):
        check_finite("raise")
    assert [check_finite(x) for x in ("error", "skip", "off")] == ["error", "skip", "off"]
    with pytest.raises(ValueError, match="at least one velocity; got 0"):
        aggmo(0)


def test_aggmo_reads_its_momenta_by_name_and_by_place_alike():
    """Compiled code finds all but the first by their place."""
    update = pipeline(aggmo(3), "decoupled", scale=True)
    assert update.Hyperparameters._fields[:5] == ("learning_rate", "share", "momentum_0", "momentum_1", "momentum_2")
    assert METHODS["AggMo"].numbers({"momenta": (0.0, 0.5)}) == {"share": 0.5, "momentum_0": 0.0, "momentum_1": 0.5}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_gives_its_rule_all_numbers(method):
    arguments = {"momentum": 0.5, "dampening": 0.0, "nesterov": False, "velocity": "gradient", "nu": 0.5, "b1": 0.5, "b2": 0.5}
    arguments |= {"trust_coefficient": 0.5, "warmup_steps": 4}
    arguments = {name: (arguments | {"momenta": [0.5, 0.25]})[name] for name in method.arguments}
    checked = method.checked(arguments)
    rule = method.choose(**checked)
    assert set(rule.hyperparameters) <= {"learning_rate", *method.numbers(checked), *method.at_step(0, checked)}
    assert rule.slots
    for name in {**method.varying, **method.constants}:
        with pytest.raises((ValueError, TypeError), match=name):
            method.checked(arguments | {name: -1 if name == "warmup_steps" else -1.0})


def test_the_methods_that_need_no_velocity():
    heavy_ball_arguments = {"dampening": 0.0, "nesterov": False, "velocity": "gradient"}
    assert METHODS["Momentum"].choose(momentum=0, **heavy_ball_arguments) is RULES["descent"]
    assert METHODS["Momentum"].choose(momentum=abs, **heavy_ball_arguments) is RULES["gradient"]
    assert METHODS["Signum"].choose(momentum=0.0) is RULES["sign_descent"]
    assert METHODS["Signum"].choose(momentum=None) is RULES["signum"]
    assert METHODS["QHM"].choose(momentum=0.0, nu=0.5) is RULES["qhm"]
    assert METHODS["Lion"].choose(b1=0.0, b2=0.0) is RULES["lion"]


def test_a_rule_of_tensors_takes_no_decoupled_decay():
    assert (LARS.step, LARS.slots) == (RULES["step"].step, RULES["step"].slots)  # the same elements
    assert pipeline(LARS, "coupled").decay == "coupled"
    assert pipeline(LARS).decay is None
    assert pipeline(RULES["gradient"], "decoupled").per_tensor is None
    with pytest.raises(ValueError, match='decay="decoupled" has no meaning with lars'):
        pipeline(LARS, "decoupled")


@pytest.mark.parametrize(
    ("norms", "dimensions", "rate", "decay"),
    [
        ((3, 8), 2, Fraction(5 * 8, 16 * (6 + 4)), Fraction(1, 2)),  # eta |w| / (|scale g| + wd |w|)
        ((3, 8), 1, 1, 0),
        ((3, 8), 0, 1, 0),
        ((0, 8), 2, 1, Fraction(1, 2)),
        ((3, 0), 3, 1, Fraction(1, 2)),
        ((0, 0), 2, 1, Fraction(1, 2)),
    ],
)
def test_the_numbers_of_a_tensor(norms, dimensions, rate, decay):
    h = {
        "learning_rate": Fraction(3),
        "momentum": Fraction(1, 4),
        "trust_coefficient": Fraction(5, 16),
        "weight_decay": Fraction(1, 2),
        "scale": Fraction(-2),
    }
    found = pipeline(LARS, "coupled", scale=True).per_tensor(h, *map(Fraction, norms), dimensions)
    assert found == {**h, "learning_rate": 3 * rate, "weight_decay": decay}
    if rate != 1:
        without_scale = pipeline(LARS, "coupled").per_tensor(h, *map(Fraction, norms), dimensions)
        assert without_scale["learning_rate"] == 3 * Fraction(5 * 8, 16 * (3 + 4))
        without_decay = pipeline(LARS, scale=True).per_tensor(h, *map(Fraction, norms), dimensions)
        assert without_decay["learning_rate"] == 3 * Fraction(5 * 8, 16 * 6)
