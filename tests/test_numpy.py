"""`polyak.numpy.Momentum`: the rules on arrays, and its errors."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyak.compile import CHUNK
from polyak.numpy import Momentum
from polyak.rules.heavy_ball import HEAVY_BALL
from textbook import train

SHAPES = {"scalar": (), "empty": (0, 3), "one": (1,), "matrix": (5, 4)}


def arrays(shapes: dict[str, tuple[int, ...]] = SHAPES, dtype: Any = np.float64, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: np.array(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}


def copies(params: dict[str, Any]) -> dict[str, Any]:
    return {name: w.copy() for name, w in params.items()}


@pytest.mark.parametrize("decay", [None, "coupled", "decoupled"])
@pytest.mark.parametrize(("velocity", "nesterov", "dampened"), HEAVY_BALL)
def test_follows_the_literature(velocity: Any, nesterov: bool, dampened: bool, decay: Any) -> None:
    params, grads = arrays(), [arrays(seed=1 + t) for t in range(20)]
    start = copies(params)
    dampening = 0.25 if dampened else 0.0
    wd = 0.1 if decay else 0.0
    lr, m = [0.1 / (1 + t) for t in range(20)], [0.5 + 0.02 * t for t in range(20)]
    optimizer = Momentum(
        params, lr[0], m[0], nesterov=nesterov, velocity=velocity, dampening=dampening, weight_decay=wd, decay=decay
    )
    for t, g in enumerate(grads):
        optimizer.lr, optimizer.momentum = lr[t], m[t]
        optimizer.step(g)
    name = velocity + ("_nesterov" if nesterov else "")
    for key, w in params.items():
        weights, v = train(name, start[key], [g[key] for g in grads], lr=lr, m=m, d=dampening, wd=wd, decay=decay)
        # Rounding of 20 steps with terms of size 10 at most.
        np.testing.assert_allclose(w, weights[-1], rtol=0, atol=1e-13)
        np.testing.assert_allclose(optimizer.slots["velocity"][key], v, rtol=0, atol=1e-13)


@given(
    shape=st.sampled_from([(), (0,), (1,), (1, 1, 1), (3, 0, 2), (CHUNK - 1,), (CHUNK,), (CHUNK + 1,), (7, 3, 2)]),
    dtype=st.sampled_from([np.float32, np.float64]),
    view=st.sampled_from(["plain", "transposed", "expanded", "strided", "reversed"]),
)
def test_shapes_and_views_of_gradients(shape: tuple[int, ...], dtype: Any, view: str) -> None:
    """A gradient that is a view of whatever kind is the array that it shows, and is left as it was."""
    w = arrays({"w": shape}, dtype)["w"]
    g = arrays({"g": shape}, dtype, seed=1)["g"]
    if view == "transposed":
        g = g.T.copy().T
    elif view == "expanded":
        g = np.broadcast_to(dtype(0.5), shape)
    elif view == "strided":
        g = np.repeat(g.reshape(*shape, 1), 2, axis=-1)[..., 0]
    elif view == "reversed":
        g = g[::-1] if shape else g
    plain, before = np.array(g), g.tobytes()
    a, b = {"w": w.copy()}, {"w": w.copy()}
    one, other = Momentum(a, 0.1), Momentum(b, 0.1)
    for _ in range(2):
        one.step({"w": g})
        other.step({"w": plain})
    assert a["w"].tobytes() == b["w"].tobytes()
    assert g.tobytes() == before
    expected = w - dtype(0.1) * plain - dtype(0.1) * (dtype(0.9) * plain + plain)
    # Four roundings in the dtype of numbers that are below 8.
    np.testing.assert_allclose(a["w"], expected, rtol=0, atol=8 * 4 * np.finfo(dtype).eps)


def test_float32_and_float64_beside_each_other() -> None:
    params = {"a": np.ones(3, np.float32), "b": np.ones(2)}
    optimizer = Momentum(params, 0.5, max_norm=2.0)
    optimizer.step({"a": np.full(3, 2.0, np.float32), "b": np.full(2, 2.0)})
    assert optimizer.grad_norm == math.sqrt(20)
    for w in params.values():
        np.testing.assert_allclose(w, 1 - 0.5 * 2 * 2 / math.sqrt(20), rtol=2e-7)  # float32
    assert params["a"].dtype == np.float32
    assert optimizer.slots["velocity"]["a"].dtype == np.float32
    assert optimizer.slots["velocity"]["b"].dtype == np.float64


@pytest.mark.parametrize("share", [1.25, 4.0])
def test_max_norm(share: float) -> None:
    clipped, by_hand, free, unbounded = (arrays() for _ in range(4))
    grads = arrays(seed=1)
    norm = math.sqrt(sum(float(np.sum(g * g)) for g in grads.values()))
    optimizer = Momentum(clipped, 0.1, max_norm=norm / share)
    optimizer.step(grads)
    Momentum(by_hand, 0.1).step({name: g / share for name, g in grads.items()})
    Momentum(free, 0.1).step(grads)
    Momentum(unbounded, 0.1, max_norm=norm * 1.01).step(grads)
    assert optimizer.grad_norm == pytest.approx(norm, rel=1e-15)
    for name in SHAPES:
        np.testing.assert_allclose(clipped[name], by_hand[name], rtol=1e-14)
        assert unbounded[name].tobytes() == free[name].tobytes()  # below the bound no bit changes


@pytest.mark.parametrize(("value", "others"), [(math.inf, 1.0), (math.nan, math.nan)])
def test_a_norm_that_is_not_finite_shows(value: float, others: float) -> None:
    params = {"w": np.ones(3)}
    optimizer = Momentum(params, 0.1, max_norm=1.0)
    optimizer.step({"w": np.array([value, 1.0, 1.0])})
    np.testing.assert_equal(optimizer.grad_norm, value)
    np.testing.assert_equal(params["w"], [math.nan, others, others])


def test_maximize() -> None:
    up, down, grads = arrays(), arrays(), arrays(seed=1)
    Momentum(up, 0.1, maximize=True, nesterov=True, weight_decay=0.1, decay="coupled").step(grads)
    Momentum(down, 0.1, nesterov=True, weight_decay=0.1, decay="coupled").step({name: -g for name, g in grads.items()})
    assert all(up[name].tobytes() == down[name].tobytes() for name in SHAPES)


def test_momentum_from_zero_and_to_zero() -> None:
    params = {"w": np.array([8.0])}
    optimizer = Momentum(params, 0.5, momentum=0)
    optimizer.step({"w": np.array([2.0])})
    assert dict(optimizer.slots) == {}
    optimizer.momentum = 0.5
    optimizer.step({"w": np.array([2.0])})  # v = 2
    optimizer.step({"w": np.array([2.0])})  # v = 3
    optimizer.momentum = 0
    optimizer.step({"w": np.array([1.0])})  # v = 1
    assert params["w"] == [8 - 1 - 1 - 1.5 - 0.5]
    assert optimizer.slots["velocity"]["w"] == [1.0]


def test_a_number_is_a_gradient_of_no_dimensions() -> None:
    params = {"w": np.array(1.0)}
    Momentum(params, 0.5).step({"w": np.sum(np.ones(2))})
    assert params["w"] == 0.0


def with_shared_memory() -> dict[str, Any]:
    whole = np.zeros(4)
    return {"first": whole[:3], "last": whole[2:]}


def read_only() -> dict[str, Any]:
    w = np.zeros(3)
    w.flags.writeable = False
    return {"w": w}


@pytest.mark.parametrize(
    ("params", "error", "says"),
    [
        ([np.zeros(3)], TypeError, "got list"),
        ({"w": [1.0]}, TypeError, "params['w'] must be a NumPy array; got list"),
        ({"w": np.zeros(3, np.float16)}, TypeError, "got float16"),
        ({"w": np.zeros(3, int)}, TypeError, "got int64"),
        (read_only(), ValueError, "params['w'] is read-only"),
        ({"w": np.zeros((3, 2)).T}, ValueError, "strides (8, 16)"),
        (with_shared_memory(), ValueError, "params['first'] and params['last'] share memory"),
    ],
)
def test_params_that_cannot_be_updated(params: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Momentum(params)


@pytest.mark.parametrize(
    ("grads", "error", "says"),
    [
        ({"w": np.zeros(3), "x": np.zeros(1)}, ValueError, "missing ['b'], unknown ['x']"),
        ({"w": np.zeros(2), "b": np.zeros(1)}, ValueError, "'w' has shape (2,); the parameter has shape (3,)"),
        ({"w": np.zeros((3, 1)), "b": np.zeros(1)}, ValueError, "shape (3, 1)"),
        ({"w": np.zeros(3, np.float32), "b": np.zeros(1)}, TypeError, "'w' must be an array of float64"),
        ({"w": [0.0, 0.0, 0.0], "b": np.zeros(1)}, TypeError, "got list"),
    ],
)
def test_gradients_that_do_not_fit(grads: Any, error: type[Exception], says: str) -> None:
    params = {"w": np.ones(3), "b": np.ones(1)}
    optimizer = Momentum(params)
    with pytest.raises(error, match=re.escape(says)):
        optimizer.step(grads)
    assert params["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"lr": -1.0}, ValueError, "got -1.0"),
        ({"momentum": 1.0}, ValueError, "got 1.0"),
        ({"momentum": "0.9"}, TypeError, "got '0.9'"),
        ({"dampening": 1.0}, ValueError, "got 1.0"),
        ({"velocity": "speed"}, ValueError, "got 'speed'"),
        ({"weight_decay": 0.1}, ValueError, "needs decay"),
        ({"decay": "coupled"}, ValueError, "no effect"),
        ({"max_norm": 0.0}, ValueError, "max_norm must be above 0"),
        ({"momentum": 0.0, "nesterov": True}, ValueError, "no effect"),
        ({"nesterov": True, "dampening": 0.1}, ValueError, "takes no dampening"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Momentum({"w": np.zeros(1)}, **arguments)


def test_a_refused_assignment_changes_nothing() -> None:
    optimizer = Momentum({"w": np.zeros(1)}, 0.1, 0.9)
    with pytest.raises(ValueError, match="got -2"):
        optimizer.lr = -2
    with pytest.raises(ValueError, match="got 1"):
        optimizer.momentum = 1
    assert (optimizer.lr, optimizer.momentum) == (0.1, 0.9)
    with pytest.raises(TypeError):
        optimizer.slots["velocity"]["w"] = np.zeros(1)  # type: ignore[index]
