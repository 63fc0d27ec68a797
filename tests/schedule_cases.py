"""Schedules that the tests of every framework share, each with its formula in float64."""

import math

import numpy as np

from polyak.schedules import (
    constant,
    cosine,
    demon,
    linear,
    one_cycle,
    piecewise,
    piecewise_linear,
    sutskever,
    warmup_stable_decay,
)

N = 3001
MANY = 10_000_019  # more than 2^23: neighbouring steps are neighbours in float32
CYCLE = one_cycle(0.7, N, end=1e-5)

LINE_CASES = {
    "linear down": linear(0.1, 0.0, N),
    "linear up": linear(1e-4, 0.3, N),
    "linear, many steps": linear(0.3, 1e-5, MANY),
    "piecewise linear": piecewise_linear((7, 100, 101, 2000), (0.5, 0.1, 0.9, 0.0)),
    "warm-up stable decay": warmup_stable_decay(0.1, N, warmup=113, decay=457, start=1e-6, end=1e-3),
    "one cycle, learning rate": CYCLE.learning_rate,
    "one cycle, momentum": CYCLE.momentum,
    "many tiny steps": linear(1e-15, 0.0, MANY),  # the smallest value, in the smallest steps
}


def _half_cosine(s):
    """By sin^2, which is (1 - cos) / 2 of twice the angle, from the nearer end: near it, peak and cosine would cancel."""
    n = s.steps - s.warmup

    def formula(t):
        k = min(t - s.warmup, n)
        if k < 0:
            return s.start + (s.peak - s.start) * t / s.warmup
        near, far, m = (s.peak, s.end, k) if 2 * k < n else (s.end, s.peak, n - k)
        return near + (far - near) * math.sin(math.pi * m / (2 * n)) ** 2

    return formula


COSINE_CASES = {
    "cosine": cosine(0.1, N),
    "cosine with warm-up": cosine(0.3, N, warmup=100, start=1e-3, end=0.007),
    "cosine up": cosine(0.0, N, end=0.95),
    "cosine of many tiny steps": cosine(0.0, MANY, end=1e-15),
    "cosine, many steps": cosine(0.3, MANY, warmup=1000),
}

CASES = {
    "constant": (constant(0.1), lambda _: 0.1),
    "piecewise": (
        piecewise((10, 100, 1000), (0.1, 0.03, 0.01, 0.003)),
        lambda t: 0.1 if t < 10 else 0.03 if t < 100 else 0.01 if t < 1000 else 0.003,
    ),
    **{name: (s, lambda t, s=s: float(np.interp(t, s.steps, s.values))) for name, s in LINE_CASES.items()},
    **{name: (s, _half_cosine(s)) for name, s in COSINE_CASES.items()},
    "sutskever": (sutskever(0.9), lambda t: min(1 - 2 ** (-1 - math.log2(t // 250 + 1)), 0.9)),
    "sutskever, high": (sutskever(0.9999), lambda t: min(1 - 2 ** (-1 - math.log2(t // 250 + 1)), 0.9999)),
    "demon": (demon(0.9, N), lambda t: 0.9 * max(1 - t / N, 0) / (0.1 + 0.9 * max(1 - t / N, 0))),
    "demon, many steps": (
        demon(0.95, MANY),
        lambda t: 0.95 * max(1 - t / MANY, 0) / (0.05 + 0.95 * max(1 - t / MANY, 0)),
    ),
}


def steps_of(name):
    """All steps and some after them; of many steps the first, the last and some between."""
    if "many" in name:
        between = np.linspace(0, MANY, 1000).astype(int)
        return np.unique(np.concatenate([np.arange(500), between, np.arange(MANY - 500, MANY + 20)]))
    return np.arange(N + 100)


def bits(x):
    """The bit patterns of float32 numbers, whose differences count the float32 numbers between those above 0."""
    x = np.asarray(x)
    assert x.dtype == np.float32
    return x.view(np.int32).astype(int)


def assert_same_bits(actual, expected, what=""):
    differ = np.flatnonzero(bits(actual) != bits(expected))
    assert not differ.size, f"{what}: {differ.size} differ, first at index {differ[0]}"
