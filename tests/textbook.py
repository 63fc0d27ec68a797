"""The recursions as the literature writes them, one line after the other: what the rules are compared with.

Written from the sources, not from `polyak.rules`, and in their own form (sums of two products, separate look-ahead), so that an
error would have to be made twice in two ways.
"""


def train(rule, w, gradients, *, lr, m=0, d=0, wd=0, decay=None):
    """The weights after each step and the last velocity; `lr` and `m` are numbers or lists with one number a step."""
    v = 0 * w
    weights = []
    for t, g in enumerate(gradients):
        a = lr[t] if isinstance(lr, list) else lr
        b = m[t] if isinstance(m, list) else m
        g = g + wd * w if decay == "coupled" else g
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
            case _:
                raise LookupError(rule)
        if decay == "decoupled":
            w = w - a * wd * before
        weights.append(w)
    return weights, v
