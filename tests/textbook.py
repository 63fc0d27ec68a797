"""The recursions as the literature writes them, one line after the other: what the rules are compared with.

Written from the sources, not from `polyak.rules`, and in their own form (sums of two products, separate look-ahead), so that an
error would have to be made twice in two ways.
"""

from fractions import Fraction

import numpy as np


def train(rule, w, gradients, *, lr, m=0, d=0, nu=0, b1=0, b2=0, c=0, momenta=(), eta=0, wd=0, decay=None):
    """The weights after each step and the last velocity, or velocities if there are several.

    `lr`, `m`, `nu`, `b1`, `b2` and `c` are numbers or lists with one number a step.
    """
    v = [0 * w for _ in momenta] if momenta else 0 * w
    weights = []
    for t, g in enumerate(gradients):
        a, b, part, first, second, new = (x[t] if isinstance(x, list) else x for x in (lr, m, nu, b1, b2, c))
        undecayed, g = g, g + wd * w if decay == "coupled" else g
        before = w
        match rule:
            case "descent":
                w = w - a * g
            case "gradient" | "gradient_dampened":
                v = b * v + (1 - d) * g
                w = w - a * v
            case "gradient_nesterov":
                v = b * v + g
                w = w - a * (g + b * v)
            case "step" | "step_dampened":  # Sutskever et al. 2013, equations (1) and (2), with the sign of v reversed
                v = b * v + a * (1 - d) * g
                w = w - v
            case "step_nesterov":  # Keras: w + m v - lr g, with the sign of v reversed
                v = b * v + a * g
                w = w - b * v - a * g
            case "average":
                v = b * v + (1 - b) * g
                w = w - a * v
            case "average_nesterov":
                v = b * v + (1 - b) * g
                w = w - a * (b * v + (1 - b) * g)
            case "qhm":  # Ma and Yarats 2019, equations (3) and (4)
                v = b * v + (1 - b) * g
                w = w - a * ((1 - part) * g + part * v)
            case "aggmo_1" | "aggmo_3":  # Lucas et al. 2019, equation (3), with the sign of the velocities reversed
                v = [b_i * v_i + g for b_i, v_i in zip(momenta, v, strict=True)]
                w = w - a / len(momenta) * sum(v)
            case "signum":  # Bernstein et al. 2018, algorithm 2
                v = b * v + (1 - b) * g
                w = w - a * sign(v)
            case "sign_descent":
                w = w - a * sign(g)
            case "lion":  # Chen et al. 2023, algorithm 2
                w = w - a * sign(first * v + (1 - first) * g)
                v = second * v + (1 - second) * g
            case "lars":  # You et al. 2017, algorithm 1; w is a whole tensor
                if w.ndim < 2:
                    local, g = 1, undecayed
                else:
                    size, slope = np.linalg.norm(w), np.linalg.norm(undecayed)
                    local = eta * size / (slope + wd * size) if size and slope else 1
                v = b * v + a * local * g
                w = w - v
            case "schedule_free":  # Defazio et al. 2024, equations (3) to (5); w is y, and v is z - y
                z = w + v
                x = (w - (1 - b) * z) / b
                z = z - a * g
                x = (1 - new) * x + new * z
                w = (1 - b) * z + b * x
                v = z - w
            case _:
                raise LookupError(rule)
        if decay == "decoupled":
            w = w - a * wd * before
        weights.append(w)
    return weights, v


def average_weights(warmup, steps):
    """The c of each step of ScheduleFree, as the code of its authors sums them up, for a constant learning rate of 1."""
    total, parts = 0, []
    for t in range(steps):
        rate = Fraction(t + 1, warmup) if t < warmup else Fraction(1)
        total += rate**2
        parts.append(rate**2 / total)
    return parts


def sign(x):
    """-1, 0 or 1; of an array, of its elements."""
    return (x > 0) * 1 - (x < 0) * 1
