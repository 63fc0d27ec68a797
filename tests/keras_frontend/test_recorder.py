"""The recorder: what it measures against float64 from copies of weights and slots, and that it changes no bit."""

import keras
import numpy as np
import pytest
from keras import ops

import polyak.keras
from family import CASES
from keras_support import BACKEND, MODES, numpy, on_jax, on_tensorflow, small_model, state_of, stepper, variable
from polyak.keras import AggMo, Momentum, ScheduleFree
from polyak.keras.recorder import Recorder

RNG = np.random.default_rng(0)
START = [RNG.standard_normal((5, 3)).astype("float32"), RNG.standard_normal(7).astype("float32")]
GRADIENTS = [[RNG.standard_normal(w.shape).astype("float32") for w in START] for _ in range(6)]
GRADIENT, VELOCITY, STEP, WEIGHT, GRADIENT_VELOCITY, GRADIENT_STEP = range(6)


def variables():
    return [variable(w, name) for w, name in zip(START, ("kernel", "bias"), strict=True)]


def velocities(optimizer):
    """The mean velocity of each variable; None for a method that has none."""
    slots = [[numpy(s).astype("float64") for s in ss] for ss in optimizer._state.slots]
    return [np.mean(ss, 0) if ss and "velocity" in optimizer._rule.slots[0] else None for ss in slots]


def expected(g, v, before, after):
    """The six numbers, in float64."""
    g, step = g.astype("float64"), before - after
    with_v = [-1, -1] if v is None else [np.linalg.norm(v), np.sum(g * v)]
    return [np.linalg.norm(g), with_v[0], np.linalg.norm(step), np.linalg.norm(before), with_v[1], np.sum(g * step)]


def followed(optimizer, gradients, mode, every=1):
    """The records of some steps, and what they should be."""
    ws = variables()
    recorder = Recorder(optimizer, every)
    step = stepper(optimizer, ws, mode)
    truth = []
    for grads in gradients:
        vs, before = velocities(optimizer), [numpy(w).astype("float64") for w in ws]
        step(grads)
        after = [numpy(w).astype("float64") for w in ws]
        truth.append([expected(*each) for each in zip(grads, vs, before, after, strict=True)])
    return recorder.read(), np.array(truth)


def assert_measured(measures, truth):
    """Sums of 15 float32 products: an error of 15 * 2^-24."""
    norms, products = [GRADIENT, VELOCITY, STEP, WEIGHT], [GRADIENT_VELOCITY, GRADIENT_STEP]
    np.testing.assert_allclose(measures[..., norms], truth[..., norms], rtol=1e-6)
    # Products cancel in their sum, so that its error goes by the norms.
    for product, of in zip(products, (VELOCITY, STEP), strict=True):
        scale = np.abs(truth[..., GRADIENT] * truth[..., of])
        assert np.all(np.abs(measures[..., product] - truth[..., product]) <= 1e-6 * scale)


# Every method, every decay with one of them and with the one that has its own way, every mode with another.
MEASURED = [(method, None, MODES[-1]) for method in CASES]
MEASURED += [("LARS", "coupled", MODES[-1]), ("Momentum", "decoupled", MODES[-1]), *(("QHM", "coupled", m) for m in MODES)]


@pytest.mark.parametrize(("method", "decay", "mode"), MEASURED)
def test_what_is_measured_of_every_method(method, decay, mode):
    arguments, _, _ = CASES[method]
    options = {"weight_decay": 0.1, "decay": decay} if decay else {}
    optimizer = getattr(polyak.keras, method)(0.1, **arguments, **options)
    (steps, rates, measures), truth = followed(optimizer, GRADIENTS[:4], mode, every=2)
    assert steps.tolist() == [2, 4]
    np.testing.assert_array_equal(rates, [[np.float32(0.1), np.float32(arguments.get("momentum", -1))]] * 2)
    assert_measured(measures, truth[1::2])


@pytest.mark.parametrize("velocity", ["gradient", "step", "average"])
def test_the_velocity_is_in_its_own_unit(velocity):
    (_, _, measures), truth = followed(Momentum(0.1, 0.9, velocity=velocity, nesterov=True), GRADIENTS, MODES[-1])
    assert_measured(measures, truth)
    assert np.all(measures[1:, :, VELOCITY] > 0)


def test_descent_has_no_velocity_and_a_momentum_of_0():
    records, truth = followed(Momentum(0.1, 0.0), GRADIENTS[:2], MODES[-1])
    assert_measured(records.measures, truth)
    assert np.all(records.measures[..., [VELOCITY, GRADIENT_VELOCITY]] == -1)
    assert records.rates[:, 1].tolist() == [0, 0]


@pytest.mark.parametrize("clip", [{"global_clipnorm": 0.5}, {"clipnorm": 0.5}, {"clipvalue": 0.1}], ids=str)
def test_the_gradient_is_the_one_before_clipping(clip):
    (_, _, measures), truth = followed(Momentum(0.1, 0.9, **clip), GRADIENTS, MODES[-1])
    assert_measured(measures, truth)
    assert np.all(measures[..., GRADIENT] > 0.5)


def test_schedules_are_recorded_as_the_step_had_them():
    optimizer = Momentum(lambda step: 0.1 / (1 + step), momentum=lambda step: 0.5 + 0.1 * step)
    records, _ = followed(optimizer, GRADIENTS[:3], MODES[-1])
    # One float32 division, which XLA may do as a product.
    np.testing.assert_allclose(records.rates, [[0.1, 0.5], [0.05, 0.6], [0.1 / 3, 0.7]], rtol=2e-7)


def test_an_assigned_number_is_recorded_from_the_next_step_on():
    optimizer, ws = Momentum(0.1, 0.9), variables()
    recorder = Recorder(optimizer, 1)
    step = stepper(optimizer, ws, MODES[-1])
    step(GRADIENTS[0])
    optimizer.learning_rate, optimizer.momentum = 0.5, 0.25
    step(GRADIENTS[1])
    np.testing.assert_array_equal(recorder.read().rates, np.float32([[0.1, 0.9], [0.5, 0.25]]))


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_is_left_out_is_0_beside_the_norm_that_is_not_finite(mode):
    bad = [g.copy() for g in GRADIENTS[1]]
    bad[1][2] = np.nan
    optimizer = Momentum(0.1, 0.9, finite="skip", global_clipnorm=1.0)
    (_, _, measures), truth = followed(optimizer, [GRADIENTS[0], bad, GRADIENTS[2]], mode)
    np.testing.assert_array_equal(np.isnan(measures[..., GRADIENT]), [[False, False], [False, True], [False, False]])
    assert np.all(measures[1, :, STEP] == 0)
    assert np.all(np.isfinite(measures[..., [VELOCITY, STEP, WEIGHT]]))
    assert_measured(measures[[0, 2]], truth[[0, 2]])


def test_accumulated_gradients_are_recorded_by_updates():
    optimizer, ws = Momentum(0.1, 0.9, gradient_accumulation_steps=2), variables()
    recorder = Recorder(optimizer, every=2)
    step = stepper(optimizer, ws, MODES[-1])
    for grads in (GRADIENTS * 2)[:9]:
        step(grads)
    steps, _, measures = recorder.read()
    assert recorder.period == 4
    assert steps.tolist() == [4, 8]
    mean = [(a + b).astype("float64") / 2 for a, b in zip(GRADIENTS[2], GRADIENTS[3], strict=True)]
    np.testing.assert_allclose(measures[0, :, GRADIENT], [np.linalg.norm(g) for g in mean], rtol=1e-6)  # sums of 15 squares


def test_a_variable_without_a_gradient_is_told_from_one_whose_gradient_is_0():
    optimizer, ws = Momentum(0.1, 0.9), variables()
    recorder = Recorder(optimizer, 1)
    optimizer.build(ws)
    optimizer.apply([ops.convert_to_tensor(GRADIENTS[0][1])], [ws[1]])
    optimizer.apply([ops.zeros((5, 3)), ops.zeros(7)], ws)
    measures = recorder.read().measures
    assert np.all(measures[0, 0] == -1)
    assert measures[0, 1, STEP] > 0
    assert measures[1, :, GRADIENT].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *(["float64"] if BACKEND != "jax" else [])])
def test_other_dtypes(dtype):
    exact = "float64" if dtype == "float64" else "float32"
    optimizer, w = Momentum(0.1, 0.9), variable(START[0], dtype=dtype)
    recorder = Recorder(optimizer, 1)
    optimizer.build([w])
    before = numpy(ops.cast(w.value, exact)).astype("float64")
    optimizer.apply([ops.cast(ops.convert_to_tensor(GRADIENTS[0][0]), dtype)], [w])
    after = numpy(ops.cast(w.value, exact)).astype("float64")
    measures = recorder.read().measures[0, 0]
    np.testing.assert_allclose(measures[[STEP, WEIGHT]], [np.linalg.norm(before - after), np.linalg.norm(before)], rtol=1e-6)


# The buffers


def test_reading_frees_the_rows_and_what_is_not_read_in_time_is_lost():
    optimizer, ws = Momentum(0.1, 0.9), variables()
    recorder = Recorder(optimizer, every=1, capacity=3)
    step = stepper(optimizer, ws, MODES[-1])
    for grads in GRADIENTS[:2]:
        step(grads)
    assert recorder.read().steps.tolist() == [1, 2]
    assert recorder.read().measures.shape == (0, 2, 6)
    for grads in GRADIENTS[:5]:
        step(grads)
    assert recorder.read().steps.tolist() == [5, 6, 7]


@pytest.mark.parametrize("make", [lambda: Momentum(0.1, 0.9, finite="skip"), lambda: ScheduleFree(0.1)], ids=["", "averages"])
def test_buffers_are_not_saved(make):
    optimizer, ws = make(), variables()
    recorder = Recorder(optimizer, 1)
    stepper(optimizer, ws, "loop")(GRADIENTS[0])
    saved, plain = {}, make()
    optimizer.save_own_variables(saved)
    plain.build(variables())
    assert saved.keys() == {"names", *(str(i) for i in range(len(plain.variables)))}
    plain.load_own_variables(saved)
    assert [numpy(v).tolist() for v in plain.variables] == [numpy(v).tolist() for v in optimizer.variables[:-3]]
    assert [id(v) for v in recorder.variables] == [id(v) for v in optimizer.variables[-3:]]

    other, ws = make(), variables()
    recorder = Recorder(other, 1)
    step = stepper(other, ws, "loop")
    other.load_own_variables(saved)
    step(GRADIENTS[1])
    assert recorder.read().steps.tolist() == [2]


def test_a_saved_model_needs_no_recorder(tmp_path):
    model, optimizer = small_model(), Momentum(0.1, 0.9)
    Recorder(optimizer, 1)
    model.compile(optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    for v in (v for slots in optimizer._state.slots for v in slots):
        v.assign(ops.ones(v.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.variables) == len(optimizer.variables) - 3
    for ours, theirs in zip(state_of(loaded.optimizer, loaded.variables), state_of(optimizer, model.variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_wrong_use_is_an_error():
    with pytest.raises(TypeError, match=r"for an optimizer of polyak.keras; got SGD"):
        Recorder(keras.optimizers.SGD(), 1)
    with pytest.raises(ValueError, match="at least 1; got 0 and 64"):
        Recorder(Momentum(), 0)
    optimizer = Momentum()
    recorder = Recorder(optimizer, 1)
    with pytest.raises(ValueError, match="has a recorder already"):
        Recorder(optimizer, 1)
    with pytest.raises(ValueError, match="Nothing is recorded before the optimizer was built"):
        recorder.read()


@on_tensorflow
def test_copies_of_variables_cannot_be_followed():
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        optimizer = Momentum()
        Recorder(optimizer, 1)
        with pytest.raises(ValueError, match=r"under tf\.distribute"):
            optimizer.build(variables())


# In fit


def layers():
    """Layers whose gradients come out of all kinds of operations: convolutions, sums, products with a constant."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


X = RNG.standard_normal((80, 6, 6, 1)).astype("float32")
Y = RNG.integers(0, 3, 80)


def fitted(optimizer, every, **options):
    """Everything that fit() has changed, and the recorder."""
    recorder = Recorder(optimizer, every) if every else None
    model = layers()
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    history = model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    slots = [s for ss in optimizer._state.slots for s in ss]
    return [numpy(v.value) for v in [*model.variables, *slots]], history.history["loss"], recorder


def clipped():
    return Momentum(0.1, 0.9, global_clipnorm=0.5)


def guarded():
    return AggMo(0.1, (0.0, 0.9), finite="error", global_clipnorm=0.5, weight_decay=0.01, decay="coupled")


FITS = {
    "tensorflow": [(clipped, {"jit_compile": True}), (guarded, {"jit_compile": False})],
    "jax": [(clipped, {}), (guarded, {})],
    "torch": [(clipped, {}), (guarded, {})],
}[BACKEND]


@pytest.mark.parametrize(("make", "options"), FITS)
def test_fit_has_the_same_bits_with_and_without_a_recorder(make, options):
    without, losses, _ = fitted(make(), 0, **options)
    with_one, same, recorder = fitted(make(), 3, **options)
    assert losses == same
    for a, b in zip(without, with_one, strict=True):
        np.testing.assert_array_equal(a, b)
    records = recorder.read()
    assert records.steps.tolist() == [3, 6, 9]
    assert np.all(records.measures[..., STEP] > 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_loop_has_the_same_bits_with_and_without_a_recorder(mode):
    states = []
    for every in (0, 2):
        optimizer, ws = polyak.keras.LARS(0.1, 0.9, weight_decay=0.01, decay="coupled", global_clipnorm=1.0), variables()
        if every:
            Recorder(optimizer, every)
        step = stepper(optimizer, ws, mode)
        for grads in GRADIENTS:
            step(grads)
        states.append(state_of(optimizer, ws))
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_scaled_loss_does_not_show():
    """The norms under a LossScaleOptimizer are those of the loss, not of what it was multiplied by."""
    optimizer, ws = Momentum(0.1, 0.9), variables()
    scaled = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    recorder = Recorder(scaled, 1)
    stepper(scaled, ws, MODES[-1])([1024 * g for g in GRADIENTS[0]])
    norms = [np.linalg.norm(g.astype("float64")) for g in GRADIENTS[0]]
    np.testing.assert_allclose(recorder.read().measures[0, :, GRADIENT], norms, rtol=1e-6)  # sums of 15 float32 squares


@on_jax
def test_no_host_takes_part_in_a_compiled_step_of_jax():
    import jax

    optimizer, ws = Momentum(0.1, 0.9, finite="error"), variables()
    Recorder(optimizer, 2)
    optimizer.build(ws)
    arguments = [v.value for v in optimizer.variables], GRADIENTS[0], [w.value for w in ws]
    text = str(jax.make_jaxpr(optimizer.stateless_apply)(*arguments))
    assert "cond" in text
    assert "callback" not in text


@on_tensorflow
def test_no_host_takes_part_in_a_graph_of_tensorflow():
    import tensorflow as tf

    optimizer, ws = Momentum(0.1, 0.9, finite="error"), variables()
    Recorder(optimizer, 2)
    optimizer.build(ws)
    graph = (
        tf.function(lambda grads: optimizer.apply(grads, ws), autograph=False)
        .get_concrete_function([tf.convert_to_tensor(g) for g in GRADIENTS[0]])
        .graph
    )
    kinds = {node.op for node in graph.as_graph_def().node}
    kinds |= {node.op for function in graph.as_graph_def().library.function for node in function.node_def}
    assert kinds & {"If", "StatelessIf"}
    assert not [kind for kind in kinds if "PyFunc" in kind]
