"""Every rule of the registry, with every kind of decay: exact in fractions, right in float64, and what theory says."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textbook
from polyak.rules import RULES
from polyak.update import pipeline

DECAYS = (None, "coupled", "decoupled")
EVERY = [pytest.param(rule, decay, id=f"{rule.name}-{decay}") for rule, decay in product(RULES.values(), DECAYS)]
WITH_VELOCITY = [rule for rule in RULES.values() if rule.slots]

# Steps along a sign are not linear in the gradient.
SIGNS = ("sign_descent", "signum", "lion")
LINEAR = [
    pytest.param(rule, decay, id=f"{rule.name}-{decay}")
    for rule, decay in product(RULES.values(), DECAYS)
    if rule.name not in SIGNS
]

# Denominators that are powers of two keep the numbers short over some ten steps; any number would be exact.
fractions = st.builds(Fraction, st.integers(-64, 64), st.sampled_from([1, 4, 16]))
unit = st.builds(Fraction, st.integers(0, 15), st.just(16))

# The textbook's name of each hyperparameter.
LETTERS = {
    "learning_rate": "lr",
    "momentum": "m",
    "dampening": "d",
    "nu": "nu",
    "b1": "b1",
    "b2": "b2",
    "average": "c",
    "weight_decay": "wd",
}


def train(rule, w, gradients, *, momenta=(), decay=None, **letters):
    """As `textbook.train`, by the rule and the pipeline of the package."""
    update = pipeline(rule, decay)
    slots = tuple(0 * w for _ in rule.slots)
    weights = []
    values = {name: letters.get(letter, 0) for name, letter in LETTERS.items()}
    if momenta:
        values |= {"share": 1 / (len(momenta) + 0 * momenta[0]), **{f"momentum_{i}": m for i, m in enumerate(momenta)}}
    for t, g in enumerate(gradients):
        at = {name: v[t] if isinstance(v, list) else v for name, v in values.items()}
        w, slots = update.apply(g, w, slots, update.Hyperparameters(*(at[name] for name in update.Hyperparameters._fields)))
        weights.append(w)
    return weights, list(slots) if momenta else slots[0] if slots else 0 * w


def momenta_of(rule, *values):
    """The first of the values, as many as the rule has momenta."""
    return values[: sum(name.startswith("momentum_") for name in rule.hyperparameters)]


@pytest.mark.parametrize(("rule", "decay"), EVERY)
@given(data=st.data(), w=fractions, gradients=st.lists(fractions, min_size=1, max_size=6), wd=unit)
def test_exact_in_fractions(rule, decay, data, w, gradients, wd):
    n = len(gradients)
    each = st.lists(unit, min_size=n, max_size=n)
    options = {letter: data.draw(each, label=letter) for name, letter in LETTERS.items() if name in rule.hyperparameters}
    if rule.name == "schedule_free":  # its momentum is above 0
        options["m"] = [(m + 1) / 2 for m in options["m"]]
    if "d" in options:  # the only one that is fixed
        options["d"] = options["d"][0]
    options |= {"wd": wd, "decay": decay, "momenta": momenta_of(rule, *data.draw(st.tuples(unit, unit, unit), label="momenta"))}
    assert train(rule, w, gradients, **options) == textbook.train(rule.name, w, gradients, **options)


@pytest.mark.parametrize(("rule", "decay"), EVERY)
def test_a_short_run_by_hand_differs_from_every_other_rule(rule, decay):
    """No two rules, and no two decays, may be one and the same: then an option would have no effect."""

    def run(other, other_decay):
        options = {"m": 8, "d": 4, "nu": 5, "b1": 7, "b2": 12, "c": 3, "wd": 4}
        options = {letter: Fraction(n, 16) for letter, n in options.items()}
        # Some so small that the decay makes them point the other way.
        gradients = [Fraction(n, 64) for n in (-15, 8, 0, -2, 6, 21, -24, 5)]
        return train(
            other,
            Fraction(1),
            gradients,
            lr=[Fraction(1, 2), Fraction(1, 4), *[Fraction(1, 8)] * 6],
            momenta=momenta_of(other, Fraction(3, 16), Fraction(9, 16), Fraction(15, 16)),
            decay=other_decay,
            **options,
        )[0]

    same = [(r.name, k) for r, k in product(RULES.values(), DECAYS) if run(r, k) == run(rule, decay)]
    if rule.name == "descent" and decay:  # without a velocity to remember the decay, its two kinds are one
        assert same == [("descent", "coupled"), ("descent", "decoupled")]
    else:
        assert same == [(rule.name, decay)]


@pytest.mark.parametrize(("rule", "decay"), EVERY)
def test_float32_stays_close_to_float64(rule, decay):
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(100), list(rng.standard_normal((1000, 100)))
    gradients = [g.astype(np.float32).astype(np.float64) for g in gradients]
    numbers = {"lr": 0.01, "m": 0.9, "d": 0.25, "nu": 0.7, "b1": 0.9, "b2": 0.99, "c": 0.01, "wd": 0.004}
    h = {letter: np.float32(x) for letter, x in numbers.items()}
    momenta = tuple(np.float32(m) for m in momenta_of(rule, 0.0, 0.9, 0.99))
    single = train(rule, w.astype(np.float32), [g.astype(np.float32) for g in gradients], decay=decay, momenta=momenta, **h)
    double = train(
        rule,
        w.astype(np.float32).astype(np.float64),
        gradients,
        decay=decay,
        momenta=tuple(map(float, momenta)),
        **{letter: float(x) for letter, x in h.items()},
    )
    for one, other in zip((single[0][-1], np.array(single[1])), (double[0][-1], np.array(double[1])), strict=True):
        assert one.dtype == np.float32
        # Two roundings a step, each by up to 2^-24 of a weight: 1.2e-4 if all had one sign, some 3e-6 with signs at random.
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_momentum_0_is_gradient_descent(rule):
    """Or descent along the sign."""
    gradients = [Fraction(1), Fraction(-3), Fraction(2)]
    descent = RULES["sign_descent" if rule.name in SIGNS else "descent"]
    expected = train(descent, Fraction(5), gradients, lr=Fraction(1, 3))[0]
    options = {"momenta": momenta_of(rule, *[Fraction(0)] * 3), "nu": Fraction(1, 2)}
    assert train(rule, Fraction(5), gradients, lr=Fraction(1, 3), **options)[0] == expected


@given(gradients=st.lists(fractions, min_size=1, max_size=6), lr=unit, m=unit)
def test_members_of_the_family_that_are_one(gradients, lr, m):
    def run(name, **options):
        return train(RULES[name], Fraction(1), gradients, lr=lr, **options)[0]

    assert run("qhm", m=m, nu=Fraction(1)) == run("average", m=m)
    assert run("qhm", m=m, nu=m) == run("average_nesterov", m=m)
    assert run("qhm", m=m, nu=Fraction(0)) == run("descent")
    assert run("aggmo_1", momenta=(m,)) == run("gradient", m=m)
    assert run("aggmo_3", momenta=(m, m, m)) == run("gradient", m=m)
    assert run("lion", b1=m, b2=m) == run("signum", m=m)


@pytest.mark.parametrize("name", SIGNS)
def test_only_the_sign_of_the_gradients_scale_counts(name):
    gradients = [Fraction(x) for x in (1, -2, 3, 5, -8)]
    options = {"lr": Fraction(1, 8), "m": Fraction(3, 4), "b1": Fraction(3, 4), "b2": Fraction(7, 8)}
    weights, _ = train(RULES[name], Fraction(1), gradients, **options)
    assert train(RULES[name], Fraction(1), [1000 * g for g in gradients], **options)[0] == weights
    assert train(RULES[name], Fraction(-1), [-g for g in gradients], **options)[0] == [-w for w in weights]


@pytest.mark.parametrize("name", SIGNS)
def test_the_sign_of_zero_is_zero_and_of_nan_is_nan(name):
    (w,), _ = train(RULES[name], np.ones(4), [np.array([0.0, -0.0, np.nan, -1e30])], lr=0.5, m=0.5, b1=0.5, b2=0.5)
    np.testing.assert_array_equal(w, [1, 1, np.nan, 1.5])


@pytest.mark.parametrize(("rule", "decay"), LINEAR)
@given(a=st.lists(fractions, min_size=4, max_size=4), b=st.lists(fractions, min_size=4, max_size=4), c=fractions)
def test_linear_in_gradient_and_weight(rule, decay, a, b, c):
    options = {"lr": Fraction(1, 4), "m": Fraction(3, 4), "d": Fraction(1, 8), "nu": Fraction(3, 8), "c": Fraction(1, 4)}
    options |= {"wd": Fraction(1, 16)}
    options |= {"decay": decay, "momenta": momenta_of(rule, Fraction(0), Fraction(1, 2), Fraction(7, 8))}
    (w1, *g1), (w2, *g2) = a, b
    run1, run2 = (train(rule, w, g, **options)[0][-1] for w, g in ((w1, g1), (w2, g2)))
    both = train(rule, w1 + c * w2, [x + c * y for x, y in zip(g1, g2, strict=True)], **options)[0][-1]
    assert both == run1 + c * run2


@pytest.mark.parametrize("nesterov", ["", "_nesterov"])
def test_the_units_of_velocity_agree_while_nothing_changes(nesterov):
    gradients = [Fraction(x) for x in (1, -2, 3, 5)]
    lr, m = Fraction(1, 8), Fraction(3, 4)
    by_gradient, v_gradient = train(RULES["gradient" + nesterov], Fraction(1), gradients, lr=lr, m=m)
    by_step, v_step = train(RULES["step" + nesterov], Fraction(1), gradients, lr=lr, m=m)
    by_average, v_average = train(RULES["average" + nesterov], Fraction(1), gradients, lr=lr / (1 - m), m=m)
    assert by_gradient == by_step == by_average
    assert v_step == lr * v_gradient
    assert v_average == (1 - m) * v_gradient


def test_a_constant_gradient_reaches_the_terminal_velocity():
    g, m, lr = 2.0, 0.9, 0.1
    weights, v = train(RULES["gradient"], 0.0, [g] * 400, lr=lr, m=m)
    assert v == pytest.approx(g / (1 - m), rel=1e-12)  # 0.9^400 is 5e-19: only rounding is left
    assert weights[-2] - weights[-1] == pytest.approx(lr * g / (1 - m), rel=1e-10)  # the difference of two weights near 750


# On a quadratic f(w) = curvature w^2 / 2 a step is a linear map of (w, v); its eigenvalues say everything about convergence.


def transition(rule, lr, m, curvature):
    """The matrix of one step, found by stepping from (1, 0) and from (0, 1)."""
    update = pipeline(rule)
    values = {"learning_rate": lr, "momentum": m, "dampening": 0.0}
    h = update.Hyperparameters(*(values[name] for name in update.Hyperparameters._fields))
    columns = []
    for w, v in ((1.0, 0.0), (0.0, 1.0)):
        w_new, (v_new,) = update.apply(curvature * w, w, (v,), h)
        columns.append((w_new, v_new))
    return np.array(columns).T


def rate(rule, lr, m, curvature):
    """The factor by which the error shrinks a step, in the long run."""
    return max(abs(np.linalg.eigvals(transition(rule, lr, m, curvature))))


@given(lr=st.floats(0.01, 2), m=st.floats(0, 0.99), curvature=st.floats(0.01, 2))
def test_convergence_rate_on_a_quadratic(lr, m, curvature):
    # Heavy ball: z^2 - (1 + m - lr curvature) z + m = 0 (Polyak 1964). Nesterov: the same with m (1 - lr curvature) for m in
    # both places where the look-ahead shrinks it (Sutskever et al. 2013, theorem 2.1).
    a = lr * curvature
    for name, polynomial in (
        ("gradient", [1, -(1 + m - a), m]),
        ("step", [1, -(1 + m - a), m]),
        ("gradient_nesterov", [1, -(1 + m) * (1 - a), m * (1 - a)]),
        ("step_nesterov", [1, -(1 + m) * (1 - a), m * (1 - a)]),
    ):
        # A double root moves by the square root of a rounding error: sqrt(1e-16) = 1e-8, and some for the sizes involved.
        assert rate(RULES[name], lr, m, curvature) == pytest.approx(max(abs(np.roots(polynomial))), abs=1e-6)


@pytest.mark.parametrize("name", ["gradient", "gradient_nesterov", "step", "step_nesterov", "average"])
def test_an_infinite_gradient_stays_infinite(name):
    """And no NaN, as it would be if the default computed g - 0 g."""
    (w,), v = train(RULES[name], np.ones(2), [np.array([np.inf, 1.0])], lr=0.5, m=0.5)
    assert np.isneginf(w[0])
    assert np.isposinf(v[0])
    assert np.isfinite([w[1], v[1]]).all()


@pytest.mark.parametrize("m", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["gradient", "step", "average"])
def test_stable_exactly_below_2_plus_2m(name, m):
    scale = 1 / (1 - m) if name == "average" else 1  # its step is (1 - m) times as long
    curvature = 3.0
    limit = (2 + 2 * m) / curvature * scale
    assert rate(RULES[name], limit * 0.999, m, curvature) < 1
    assert rate(RULES[name], limit * 1.001, m, curvature) > 1
    assert rate(RULES[name], 1e-3 * limit, m, curvature) < 1
    assert rate(RULES[name], -1e-3 * limit, m, curvature) > 1


@pytest.mark.parametrize("condition", [4, 100, 10_000])
def test_best_momentum_and_learning_rate_for_a_condition_number(condition):
    low, high = 1.0, float(condition)
    root = math.sqrt(condition)
    best_m, best_lr = ((root - 1) / (root + 1)) ** 2, (2 / (1 + root)) ** 2  # Polyak 1964
    best = (root - 1) / (root + 1)
    heavy_ball = RULES["gradient"]

    def worst(lr, m):
        return max(rate(heavy_ball, lr, m, low), rate(heavy_ball, lr, m, high))

    assert worst(best_lr, best_m) == pytest.approx(best, abs=1e-6)  # double roots, as above
    for lr, m in product(best_lr * np.linspace(0.5, 1.5, 11), np.linspace(0, 0.9999, 41)):
        assert worst(lr, m) >= best - 1e-6
    # And a run, not only its matrix: the error falls as t best^t, double roots giving the factor t.
    w = np.array([1.0, 1.0])
    curvature, v = np.array([low, high]), np.zeros(2)
    update = pipeline(heavy_ball)
    steps = math.ceil(30 / (1 - best))
    for _ in range(steps):
        w, (v,) = update.apply(curvature * w, w, (v,), update.Hyperparameters(best_lr, best_m))
    bound = 4 * steps * best ** (steps - 1)
    assert np.linalg.norm(w) < max(bound, 1e-12)
    # Gradient descent at its own best learning rate cannot do better than (k - 1) / (k + 1) a step.
    assert best < (condition - 1) / (condition + 1)
