"""`polyak.keras.Momentum` computes the recursion that its options name, in every way of running it."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from keras import ops

import textbook
from keras_support import BACKEND, MODES, numpy, run, stepper, variable
from polyak.keras import Momentum

RNG = np.random.default_rng(0)
START = RNG.standard_normal(5).astype("float32")
GRADIENTS = RNG.standard_normal((20, 5)).astype("float32")

OPTIONS = [
    pytest.param(rule, options, decay, id=f"{rule}-{decay}")
    for (rule, options), decay in product(
        {
            "descent": {"momentum": 0.0},
            "gradient": {},
            "gradient_dampened": {"dampening": 0.25},
            "gradient_nesterov": {"nesterov": True},
            "step": {"velocity": "step"},
            "step_dampened": {"velocity": "step", "dampening": 0.25},
            "step_nesterov": {"velocity": "step", "nesterov": True},
            "average": {"velocity": "average"},
            "average_nesterov": {"velocity": "average", "nesterov": True},
        }.items(),
        (None, "coupled", "decoupled"),
    )
]


def given(options, decay):
    return {"momentum": 0.9} | options | ({"weight_decay": 0.01, "decay": decay} if decay else {})


@cache
def trained(number, mode):
    """The weights after each step with the options of this number: a mode is compiled once for all tests of them."""
    _, options, decay = OPTIONS[number].values
    return run(Momentum(0.1, **given(options, decay)), START, GRADIENTS, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=[str(each.id) for each in OPTIONS])
def test_recursion(number, mode):
    rule, options, decay = OPTIONS[number].values
    expected, _ = textbook.train(
        rule, START.astype(float), GRADIENTS.astype(float), lr=0.1, m=0.9, d=options.get("dampening", 0), wd=0.01, decay=decay
    )
    # 20 float32 steps on weights of up to 10: each rounds by 5e-7 at most, and 0.9 and 0.1 are off by 3e-8 of themselves.
    np.testing.assert_allclose(trained(number, mode), expected, atol=1e-5)
    if BACKEND != "torch":  # not compiled: its operations round one by one
        np.testing.assert_array_equal(trained(number, mode), trained(number, MODES[0]))


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=[str(each.id) for each in OPTIONS])
def test_one_variable_alone_is_updated_as_among_all(number):
    """`update_step`, by which Keras and tf.distribute go variable by variable."""
    _, options, decay = OPTIONS[number].values
    w = variable(START)
    optimizer = Momentum(0.1, **given(options, decay))
    optimizer.build([w])
    for g in GRADIENTS:
        optimizer.update_step(ops.convert_to_tensor(g), w, optimizer.learning_rate)
    np.testing.assert_array_equal(numpy(w), trained(number, MODES[0])[-1])


def test_momentum_0_keeps_nothing_in_memory():
    optimizer = Momentum(0.1, momentum=0.0)
    optimizer.build([variable(START)])
    assert [v.path for v in optimizer.variables] == ["momentum/iteration", "momentum/learning_rate"]


def test_one_velocity_a_variable():
    optimizer = Momentum(0.1)
    optimizer.build([variable(START, "kernel"), variable(START[:2], "bias")])
    assert [v.path for v in optimizer.variables[3:]] == ["momentum/kernel_velocity", "momentum/bias_velocity"]
    assert [v.shape for v in optimizer.variables[3:]] == [(5,), (2,)]


@pytest.mark.parametrize("mode", MODES)
def test_excluded_variables_do_not_decay(mode):
    optimizer = Momentum(0.1, weight_decay=0.5, decay="decoupled")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = variable([1.0, 2.0], "kernel"), variable([1.0, 2.0], "bias")
    step = stepper(optimizer, [kernel, bias], mode)
    step([np.zeros(2, "float32")] * 2)
    np.testing.assert_array_equal(numpy(bias), [1.0, 2.0])
    np.testing.assert_allclose(numpy(kernel), [0.95, 1.9], rtol=1e-6)  # a few roundings of 6e-8


@pytest.mark.parametrize("mode", MODES)
def test_shapes(mode):
    """A scalar, no element, one element and a matrix, side by side."""
    shapes = [(), (0,), (1,), (3, 2)]
    variables = [variable(np.ones(s), f"v{i}") for i, s in enumerate(shapes)]
    step = stepper(Momentum(0.5, momentum=0.5), variables, mode)
    for _ in range(2):
        step([np.full(s, 0.5, "float32") for s in shapes])
    for v, s in zip(variables, shapes, strict=True):
        np.testing.assert_array_equal(numpy(v), np.full(s, 1 - 0.25 - 0.375))  # v = 0.5, then 0.75: exact in binary


def test_variables_without_a_gradient_are_left_alone():
    a, b = variable([1.0], "a"), variable([1.0], "b")
    optimizer = Momentum(0.5, momentum=0.5)
    optimizer.build([a, b])
    one = variable([1.0]).value
    optimizer.apply([one, one], [a, b])
    with pytest.warns(UserWarning, match=r"Gradients do not exist for variables \['b'\]"):
        optimizer.apply([one, None], [a, b])
    optimizer.apply([one, one], [a, b])
    # Velocities of a: 1, 1.5, 1.75; of b: 1, 1.5.
    np.testing.assert_array_equal(numpy(a), [1 - 0.5 * (1 + 1.5 + 1.75)])
    np.testing.assert_array_equal(numpy(b), [1 - 0.5 * (1 + 1.5)])


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_not_written_to(mode):
    gradient = np.array([1.0, 2.0], "float32")
    step = stepper(Momentum(0.1, nesterov=True, weight_decay=0.1, decay="coupled"), [variable([1.0, 2.0])], mode)
    for _ in range(3):
        step([gradient])
    np.testing.assert_array_equal(gradient, [1.0, 2.0])
