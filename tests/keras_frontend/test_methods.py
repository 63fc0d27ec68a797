"""Every method beside `Momentum`: its recursion, its arguments, and what is kept of it."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import family
import polyak.keras
import textbook
from keras_support import BACKEND, MODES, RULES, numpy, run, small_data, small_model, stepper, variable
from polyak.methods import METHODS

RNG = np.random.default_rng(0)
START = RNG.standard_normal(5).astype("float32")
GRADIENTS = RNG.standard_normal((20, 5)).astype("float32")
CLASSES = [getattr(polyak.keras, name) for name in METHODS]
DECAY = {"weight_decay": 0.01, "decay": "decoupled"}


def expected(rule, gradients=GRADIENTS, **arguments):
    weights, _ = textbook.train(rule, START.astype(float), gradients.astype(float), **{"lr": 0.1} | arguments)
    return np.array(weights)


@pytest.mark.parametrize("rule", RULES)
def test_recursion(rule):
    """In one mode: that the others have the same bits is tested below, of every rule."""
    make, arguments = RULES[rule]
    # 20 float32 steps on weights of up to 10: each rounds by 5e-7 at most, and 0.9 and 0.1 are off by 3e-8 of themselves.
    np.testing.assert_allclose(run(make(), START, GRADIENTS, MODES[-1]), expected(rule, **arguments), atol=1e-5)


@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
@pytest.mark.parametrize("rule", RULES)
def test_decay(rule, decay):
    make, arguments = RULES[rule]
    weights = run(make(weight_decay=0.01, decay=decay), START, GRADIENTS, MODES[-1])
    np.testing.assert_allclose(weights, expected(rule, wd=0.01, decay=decay, **arguments), atol=1e-5)  # as above


@pytest.mark.skipif(BACKEND == "torch", reason="not compiled: its operations round one by one")
@pytest.mark.parametrize("rule", RULES)
def test_compiled_or_not_the_bits_are_the_same(rule):
    options = {**DECAY, "cautious": True, "cautious_decay": True}
    runs = [run(RULES[rule][0](**options), START, GRADIENTS, mode) for mode in MODES]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0], other)


def test_slots():
    """Of every variable its own; names say which."""
    optimizer = polyak.keras.AggMo(0.1, (0.0, 0.9))
    optimizer.build([variable(START, "kernel"), variable(START[:2], "bias")])
    paths = [f"aggmo/{w}_velocity_{i}" for w in ("kernel", "bias") for i in (0, 1)]
    assert [v.path for v in optimizer.variables[2:]] == paths
    optimizer = polyak.keras.Signum(0.1, momentum=0)
    optimizer.build([variable(START)])
    assert [v.path for v in optimizer.variables] == ["signum/iteration", "signum/learning_rate"]


# In every mode those of one method; those of the others take the same way, so that one mode is enough.
NUMBERS = [
    *(("qhm", lambda m, nu: polyak.keras.QHM(0.1, m, nu), {"momentum": "m", "nu": "nu"}, mode) for mode in MODES),
    ("lion", lambda b1, b2: polyak.keras.Lion(0.1, b1, b2), {"b1": "b1", "b2": "b2"}, MODES[-1]),
    ("signum", lambda m: polyak.keras.Signum(0.1, m), {"momentum": "m"}, MODES[-1]),
]


@pytest.mark.parametrize(("rule", "make", "names", "mode"), NUMBERS)
def test_numbers_that_change(rule, make, names, mode):
    """Assigned between steps, and by a schedule, in compiled code too."""
    values = {name: [0.9 - 0.1 * i] * 10 + [0.25 + 0.5 * i] * 10 for i, name in enumerate(names)}
    optimizer = make(*(v[0] for v in values.values()))
    w = variable(START)
    step = stepper(optimizer, [w], mode)
    assigned = []
    for t, g in enumerate(GRADIENTS):
        if t == 10:
            for name, v in values.items():
                setattr(optimizer, name, v[t])
        step([g])
        assigned.append(numpy(w).copy())
    schedules = [lambda step, v=v: ops.where(step < 10, v[0], v[10]) for v in values.values()]
    reference = expected(rule, **{names[name]: v for name, v in values.items()})
    np.testing.assert_allclose(assigned, reference, atol=1e-5)  # as above
    np.testing.assert_allclose(run(make(*schedules), START, GRADIENTS, mode), reference, atol=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments(cls):
    method = cls._method
    own = set(inspect.signature(cls).parameters) - {"common"}
    assert own >= {"learning_rate", *method.arguments}
    config = cls().get_config()
    assert set(config) == set(inspect.signature(polyak.keras.Momentum).parameters) - set(METHODS["Momentum"].arguments) | own
    assert config["name"] == cls().name == method.name.lower()
    optimizer = cls()
    for name in method.varying:
        with pytest.raises(ValueError, match=rf"{name} must be in [\[(]0, 1"):
            cls(**{name: 1.5})
        with pytest.raises(ValueError, match=rf"{name} must be in [\[(]0, 1"):
            setattr(optimizer, name, -0.5)
        with pytest.raises(TypeError, match=f"{name} was given a callable that does not take the step"):
            cls(**{name: lambda: 0.5})
        with pytest.raises(TypeError, match=f"{name} follows a schedule"):
            setattr(cls(**{name: lambda step: 0.5 + 0 * step}), name, 0.5)
    for name in (*method.constants, *method.options, "cautious", "finite", "groups", "global_clipnorm"):
        with pytest.raises(AttributeError, match=f"{name} is fixed when the optimizer is made"):
            setattr(optimizer, name, 0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'beta_1'"):
        cls(beta_1=0.5)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"momenta\[1\] must be in \[0, 1\); got 1.0"):
        polyak.keras.AggMo(momenta=(0.5, 1.0))
    with pytest.raises(TypeError, match="made with momentum=0 and keeps no velocity"):
        polyak.keras.Signum(momentum=0).momentum = 0.5
    with pytest.raises(ValueError, match="cautious_decay=True has no effect with decay=None"):
        polyak.keras.Lion(cautious_decay=True)
    with pytest.raises(ValueError, match='finite must be "error"'):
        polyak.keras.Lion(finite="warn")
    with pytest.raises(ValueError, match="global_clipnorm must be above 0, or None; got 0"):
        polyak.keras.Lion(global_clipnorm=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: polyak.keras.Lion(),
        lambda: polyak.keras.Signum(),
        lambda: polyak.keras.QHM(cautious=True),
        lambda: polyak.keras.Momentum(**DECAY, cautious_decay=True),
    ],
)
def test_complex_variables_have_no_signs(make):
    with pytest.raises(TypeError, match="signs, which complex numbers do not have; w is of complex64"):
        make().build([variable(np.ones(2), dtype="complex64")])


def test_complex_variables():
    """Each part by itself; the norm and the guard see both."""
    w, start = variable(np.array([1 + 1j]), dtype="complex64"), np.array([1 + 1j])
    optimizer = polyak.keras.Momentum(0.5, 0.5, global_clipnorm=2.5, finite="skip")
    for g in ([3 + 4j], [complex(0, np.inf)]):
        optimizer.apply([ops.convert_to_tensor(np.array(g, "complex64"))], [w])
    np.testing.assert_allclose(numpy(w), start - 0.5 * np.array([1.5 + 2j]), rtol=1e-6)  # a few roundings
    assert optimizer.skipped == 1


@pytest.mark.parametrize("mode", MODES)
def test_cautious_steps_and_decay(mode):
    """The velocity is 2, then 0.5: it goes up the second gradient, so that weights wait. So does the decay of what grows."""
    options = {"weight_decay": 0.5, "decay": "decoupled", "cautious": True, "cautious_decay": True}
    weights = run(polyak.keras.Momentum(0.5, 0.5, **options), [4.0, -4.0], [[2.0, 2.0], [-0.5, -0.5]], mode)
    # 4 - 0.5 * 2 - 0.5 * 0.5 * 4, and -4 - 0.5 * 2.
    np.testing.assert_array_equal(weights, [[2.0, -5.0]] * 2)


@pytest.mark.parametrize("cls", CLASSES)
def test_half_precision_variables_have_float32_slots(cls):
    w = variable(np.ones(3), dtype="bfloat16")
    optimizer = cls(0.125)
    g = ops.cast(ops.convert_to_tensor(np.array([1.0, -2.0, 0.5], "float32")), "bfloat16")
    for _ in range(2):
        optimizer.apply([g], [w])
    double = variable(np.ones(3))
    reference = cls(0.125)
    for _ in range(2):
        reference.apply([ops.cast(g, "float32")], [double])
        double.assign(ops.cast(ops.cast(double, "bfloat16"), "float32"))  # what is stored is rounded
    np.testing.assert_array_equal(numpy(ops.cast(w, "float32")), numpy(double))
    for slot, other in zip(optimizer._state.slots[0], reference._state.slots[0], strict=True):
        np.testing.assert_allclose(numpy(slot), numpy(other), rtol=2e-6)  # on PyTorch compiled for float32, not for bfloat16


@pytest.mark.parametrize("cls", CLASSES)
def test_fit_goes_on_bit_for_bit_after_loading(cls, tmp_path):
    x, y = small_data()
    model = small_model()
    own = dict.fromkeys(cls._method.varying, 0.5)
    decay = {"weight_decay": 0.01, "decay": family.decays(cls._method.name)[-1]}
    model.compile(cls(0.01, **decay, cautious=True, finite="skip", groups={"bias": {"weight_decay": 0}}), loss="mse")
    for name, value in own.items():
        setattr(model.optimizer, name, value)  # an assigned value is state
    # ScheduleFree has a callback, and what is saved after it is the average, with what goes on.
    callbacks = [polyak.keras.Averaged()] if cls is polyak.keras.ScheduleFree else []
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(x, y, epochs=2, **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is cls
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for name, value in own.items():
        assert float(getattr(loaded.optimizer, name)) == value
    for m in (model, loaded):
        m.fit(x, y, epochs=1, **fit)
    for ours, theirs in zip(
        [*model.weights, *model.optimizer.variables], [*loaded.weights, *loaded.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
