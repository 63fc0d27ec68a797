"""What looks at all gradients: the bound of their norm, and the guard against those that are not finite."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

from keras_support import BACKEND, MODES, RULES, numpy, on_tensorflow, run, small_data, small_model, state_of, stepper, variable
from polyak.keras import AggMo, FiniteCheck, Momentum

RNG = np.random.default_rng(0)
START = [RNG.standard_normal((3, 2)).astype("float32"), RNG.standard_normal(4).astype("float32")]
GRADIENTS = [[RNG.standard_normal(w.shape).astype("float32") for w in START] for _ in range(6)]
OPTIONS = {"weight_decay": 0.01, "decay": "coupled"}


def variables():
    return [variable(w, name) for w, name in zip(START, ("kernel", "bias"), strict=True)]


def with_one(number, which=1):
    """Gradients of which one has a number that is not finite."""
    grads = [g.copy() for g in GRADIENTS[0]]
    grads[which].flat[1] = number
    return grads


def trained(optimizer, gradients, mode):
    ws = variables()
    step = stepper(optimizer, ws, mode)
    for grads in gradients:
        step(grads)
    return state_of(optimizer, ws)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 1.0}], ids=["", "clip"])
def test_a_step_that_is_not_finite_changes_nothing(clip, mode):
    optimizer = AggMo(0.1, (0.0, 0.9), finite="skip", **clip, **OPTIONS)
    ws = variables()
    step = stepper(optimizer, ws, mode)
    for grads in GRADIENTS[:3]:
        step(grads)
    before = state_of(optimizer, ws)
    for number, which in product((np.nan, -np.inf), (1, 0)):
        step(with_one(number, which))
        for ours, theirs in zip(state_of(optimizer, ws), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert optimizer.skipped == 4
    assert int(optimizer.iterations) == 7
    for grads in GRADIENTS[3:]:
        step(grads)
    # As if these had not been, to the last bit; nor does the guard change one.
    for ours, theirs in zip(
        state_of(optimizer, ws), trained(AggMo(0.1, (0.0, 0.9), **clip, **OPTIONS), GRADIENTS, mode), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert optimizer.skipped == 4


@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 1.0}], ids=["", "clip"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Momentum(0.1, 0.9, **options),
        lambda **options: Momentum(0.1, 0.9, velocity="step", **options),
        lambda **options: Momentum(0.1, 0.9, velocity="average", nesterov=True, **options),
        *(make for make, _ in RULES.values()),
    ],
)
def test_the_guard_changes_no_bit(make, clip):
    """Though a compiler that sees it could fuse another product of a sum."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal(999).astype("float32")
    gradients = rng.standard_normal((3, 999)).astype("float32")
    options = {"weight_decay": 0.01, "decay": "decoupled", **clip}
    runs = [run(make(finite=finite, **options), w, gradients, MODES[-1]) for finite in ("off", "skip")]
    np.testing.assert_array_equal(*runs)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless_apply there")
def test_stateless_apply():
    """On PyTorch it is also the way of tensors on a device, without a branch."""
    optimizer = AggMo(0.1, (0.0, 0.9), finite="skip", global_clipnorm=1.0)
    ws = variables()
    optimizer.build(ws)
    values, state = [w.value for w in ws], [v.value for v in optimizer.variables]
    for grads in (GRADIENTS[0], with_one(np.nan), GRADIENTS[1]):
        values, state = optimizer.stateless_apply(state, list(map(ops.convert_to_tensor, grads)), values)
    assert optimizer.skipped == 0
    for v, value in zip([*ws, *optimizer.variables], [*values, *state], strict=True):
        v.assign(value)
    assert optimizer.skipped == 1
    clean = trained(AggMo(0.1, (0.0, 0.9), global_clipnorm=1.0), GRADIENTS[:2], "loop")
    for ours, theirs in zip(state_of(optimizer, ws), clean, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)  # on PyTorch, operations that are not compiled


def test_schedules_go_on():
    optimizer = Momentum(lambda step: 2.0**-step, 0.0, finite="skip")
    w = variable([0.0])
    for g in (1.0, np.nan, 1.0):
        optimizer.apply([ops.convert_to_tensor(np.array([g], "float32"))], [w])
    np.testing.assert_array_equal(numpy(w), [-1.25])


def test_off_lets_everything_pass():
    optimizer = Momentum(0.1)
    ws = variables()
    stepper(optimizer, ws, MODES[-1])(with_one(np.nan))
    assert np.isnan(numpy(ws[1])).any()
    assert optimizer.skipped == 0
    optimizer.check_finite()


@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 1.0}], ids=["", "clip"])
def test_a_loop_reports_at_once(clip):
    optimizer = Momentum(0.1, finite="error", **clip)
    ws = variables()
    step = stepper(optimizer, ws, "loop")
    step(GRADIENTS[0])
    with pytest.raises(FloatingPointError, match=r"At step 1 .*: \['bias'\]"):
        step(with_one(np.inf))
    step(GRADIENTS[1])
    assert optimizer.skipped == 1
    expected = trained(Momentum(0.1, **clip), GRADIENTS[:2], "loop")
    for ours, theirs in zip(state_of(optimizer, ws), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled")
@pytest.mark.parametrize("mode", MODES[1:])
def test_compiled_steps_report_when_asked(mode):
    optimizer = Momentum(0.1, finite="error")
    step = stepper(optimizer, variables(), mode)
    for grads in (with_one(np.nan, 0), GRADIENTS[0], with_one(np.nan, 1)):
        step(grads)
    with pytest.raises(FloatingPointError, match=r"At step 2 .*: \['bias'\].* In steps before that, those of \['kernel'\]"):
        optimizer.check_finite()
    optimizer.check_finite()  # reported once
    assert optimizer.skipped == 2
    step(with_one(np.nan))
    with pytest.raises(FloatingPointError, match=r"At step 3 .*: \['bias'\]"):
        optimizer.skipped  # noqa: B018  (a look)
    assert optimizer.skipped == 3


@pytest.mark.parametrize("mode", MODES)
def test_huge_gradients_are_finite(mode):
    """Though their squares are not."""
    optimizer = Momentum(0.1, finite="error", global_clipnorm=1.0)
    ws = variables()
    stepper(optimizer, ws, mode)([np.full(w.shape, 1e30, "float32") for w in START])
    assert optimizer.skipped == 0


def test_a_gradient_that_is_missing_does_not_shift_the_names():
    optimizer = Momentum(0.1, finite="error")
    ws = variables()
    optimizer.build(ws)
    bad = ops.convert_to_tensor(with_one(np.nan)[1])
    with (
        pytest.warns(UserWarning, match="Gradients do not exist"),
        pytest.raises(FloatingPointError, match=r"\['bias'\]"),
    ):
        optimizer.apply([None, bad], ws)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_accumulation(mode):
    optimizer = Momentum(0.1, finite="skip", global_clipnorm=1.0, gradient_accumulation_steps=2)
    ws = variables()
    step = stepper(optimizer, ws, mode)
    for grads in (GRADIENTS[0], GRADIENTS[1], with_one(np.nan), GRADIENTS[2], GRADIENTS[3], GRADIENTS[4]):
        step(grads)
    assert optimizer.skipped == 1
    halves = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in (GRADIENTS[:2], GRADIENTS[3:5])]
    for ours, theirs in zip(state_of(optimizer, ws), trained(Momentum(0.1, global_clipnorm=1.0), halves, mode), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # the mean is rounded elsewhere


def poisoned():
    """A model that learns, and data of which the last batch has a NaN."""
    x, y = small_data()
    y = y.copy()
    y[-1] = np.nan
    return small_model(), x, y


@pytest.mark.parametrize("jit_compile", [True, False] if BACKEND != "torch" else [False])
def test_fit_leaves_out_what_is_not_finite(jit_compile):
    model, x, y = poisoned()
    model.compile(Momentum(0.05, finite="skip"), loss="mse", jit_compile=jit_compile)
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert model.optimizer.skipped == 3
    clean = small_model()
    clean.compile(Momentum(0.05), loss="mse", jit_compile=jit_compile)
    clean.fit(x[:48], y[:48], batch_size=16, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(model.weights, clean.weights, strict=True):
        np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-5)  # compiled differently


@pytest.mark.parametrize("wrap", [False, True], ids=["", "loss scale"])
@pytest.mark.parametrize(("callbacks", "epochs"), [([], 3), ([FiniteCheck()], 1)], ids=["end of fit", "end of epoch"])
def test_fit_reports(callbacks, epochs, wrap, tmp_path):
    model, x, y = poisoned()
    optimizer = Momentum(0.05, finite="error")
    if wrap:  # it looks at the gradients itself, and keeps such steps from the optimizer inside
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer), loss="mse")
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        assert optimizer.skipped == 0
        return
    model.compile(optimizer, loss="mse")
    # PyTorch's fit is a loop, which reports at once.
    expected = 1 if BACKEND == "torch" else epochs
    with pytest.raises(FloatingPointError, match=r"the gradients of these parameters are not finite: \[.*kernel"):
        model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    assert optimizer.skipped == expected
    assert all(np.isfinite(numpy(w)).all() for w in model.weights)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").optimizer.skipped == expected


# The bound of the norm.


@pytest.mark.parametrize("mode", MODES)
def test_clipping_is_that_of_keras(mode):
    peer = keras.optimizers.SGD(0.1, 0.9, global_clipnorm=1.5)
    ws, theirs = variables(), variables()
    step, their_step = stepper(Momentum(0.1, 0.9, velocity="step", global_clipnorm=1.5), ws, mode), stepper(peer, theirs, mode)
    norms = []
    for i, grads in enumerate(GRADIENTS):
        grads = [g / (i + 1) for g in grads]
        norms.append(np.sqrt(sum((g**2).sum() for g in grads)))
        step(grads)
        their_step(grads)
    assert min(norms) < 1.5 < max(norms)
    for ours, other in zip(ws, theirs, strict=True):
        np.testing.assert_allclose(numpy(ours), numpy(other), atol=2e-6)  # 6 float32 steps on weights of up to 3


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_a_small_norm_are_not_changed(mode):
    for ours, theirs in zip(
        trained(Momentum(0.1, global_clipnorm=100.0), GRADIENTS, mode), trained(Momentum(0.1), GRADIENTS, mode), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_that_are_not_finite_are_not_hidden_by_clipping(mode):
    ws = variables()
    stepper(Momentum(0.1, global_clipnorm=1.0), ws, mode)(with_one(np.inf))
    assert np.isnan(numpy(ws[1])).sum() == 1
    np.testing.assert_array_equal(numpy(ws[0]), START[0])
    ws = variables()
    stepper(Momentum(0.1, global_clipnorm=1.0), ws, mode)(with_one(np.nan))
    assert all(np.isnan(numpy(w)).all() for w in ws)


@on_tensorflow
def test_replicas_look_at_the_sum_of_their_gradients():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    options = {"global_clipnorm": 1.5, "finite": "error", "groups": {"bias": {"learning_rate": 0.01}}}
    with strategy.scope():
        ws = [tf.Variable(w, name=name) for w, name in zip(START, ("kernel", "bias"), strict=True)]
        optimizer = Momentum(0.1, **options)

        def replica_step(*grads):  # computed here, as gradients are: they have a device then
            optimizer.apply(list(map(tf.identity, grads)), ws)

        step = tf.function(lambda *grads: strategy.run(replica_step, args=grads), autograph=False)
        for grads in (*GRADIENTS[:2], with_one(np.nan), *GRADIENTS[2:]):
            step(*map(tf.constant, grads))
    with pytest.raises(FloatingPointError, match=r"At step 2 .*: \['bias:0'\]"):
        optimizer.check_finite()
    assert optimizer.skipped == 1
    for ours, theirs in zip(state_of(optimizer, ws), trained(Momentum(0.1, **options), GRADIENTS, "loop"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # the norm may be summed in another order
