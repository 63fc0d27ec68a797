"""`polyak.keras.ScheduleFree`, the switch to the average, and the callback for fit()."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import polyak.keras
import polyak.numpy
import textbook
from keras_support import BACKEND, MODES, numpy, run, small_data, small_model, variable
from polyak import state
from polyak.averaging import Averaging

RNG = np.random.default_rng(0)
START = RNG.standard_normal(5).astype("float32")
GRADIENTS = RNG.standard_normal((20, 5)).astype("float32")
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("warmup", [0, 6])
def test_the_recursion_with_a_warm_up(warmup, mode):
    found = run(polyak.keras.ScheduleFree(0.5, 0.8, warmup_steps=warmup), START, GRADIENTS, mode)
    rates = [0.5 * min(1, (t + 1) / warmup) if warmup else 0.5 for t in range(20)]
    weights = [float(c) for c in textbook.average_weights(warmup, 20)]
    expected, _ = textbook.train("schedule_free", START.astype(float), GRADIENTS.astype(float), lr=rates, m=0.8, c=weights)
    # 20 float32 steps on weights of up to 10: each rounds by 5e-7 at most.
    np.testing.assert_allclose(found, np.array(expected), atol=1e-5)


@pytest.mark.parametrize("warmup", [0, 1, 7, 100])
def test_what_depends_on_the_step_has_the_same_bits_everywhere(warmup):
    steps = np.arange(300)
    found = numpy(Averaging(warmup)(ops.convert_to_tensor(steps.astype("int32"))))
    np.testing.assert_array_equal(found, [Averaging(warmup)(int(t)) for t in steps])
    assert found.dtype == np.float32


def test_averages_and_groups():
    # A momentum of 1 trains the average.
    optimizer = polyak.keras.ScheduleFree(0.5, 0.5, groups={"b": {"momentum": 1.0, "learning_rate": 0.25}})
    w, b = variable(np.array([4.0]), "w"), variable(np.array([4.0]), "b")
    with pytest.raises(ValueError, match="There is no average before the optimizer was built"):
        optimizer.averages()
    optimizer.build([w, b])
    for _ in range(2):
        optimizer.apply([ops.copy(w.value), ops.copy(b.value)], [w, b])
    # w: z = 4, 2, 1 and x = 4, 2, 1.5; b: z = 4, 3, 2.25 and x = 4, 3, 2.625.
    assert [float(numpy(v)[0]) for v in (w, b)] == [1.25, 2.625]
    assert {name: float(numpy(x)[0]) for name, x in optimizer.averages().items()} == {w.path: 1.5, b.path: 2.625}
    with optimizer.averaged():
        assert [float(numpy(v)[0]) for v in (w, b)] == [1.5, 2.625]
        with pytest.raises(RuntimeError, match=r"A step within `with optimizer.averaged\(\)`"):
            optimizer.apply([w.value, b.value], [w, b])
        with pytest.raises(RuntimeError, match="cannot be nested"), optimizer.averaged():
            pass
    assert [float(numpy(v)[0]) for v in (w, b)] == [1.25, 2.625]


def test_accumulated_gradients_are_one_step():
    """What is computed from the step counts updates, not calls."""
    one = polyak.keras.ScheduleFree(0.5, 0.8, warmup_steps=4)
    several = polyak.keras.ScheduleFree(0.5, 0.8, warmup_steps=4, gradient_accumulation_steps=2)
    v, w = variable(START), variable(START)
    for g in GRADIENTS[:6]:
        one.apply([ops.convert_to_tensor(g)], [v])
        for _ in range(2):
            several.apply([ops.convert_to_tensor(g)], [w])
    np.testing.assert_allclose(numpy(w), numpy(v), rtol=0, atol=1e-6)  # the mean of two like gradients is rounded


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_other_dtypes(dtype):
    w = variable(np.array([1.0, -2.0]), dtype=dtype)
    optimizer = polyak.keras.ScheduleFree(0.25, 0.5)
    optimizer.build([w])
    g = ops.copy(w.value)
    for _ in range(2):
        optimizer.apply([g], [w])
    with optimizer.averaged():  # z is 3/4, then 1/2 of w, exact in each dtype
        found = numpy(ops.cast(w.value, "float32") if dtype == "bfloat16" else w.value)
        np.testing.assert_array_equal(found, [0.625, -1.25])


class Watch(keras.callbacks.Callback):
    """The weights when a callback looks at the model."""

    def __init__(self):
        super().__init__()
        self.at = {}

    def _look(self, when):
        self.at[when] = [numpy(v).copy() for v in self.model.trainable_variables]

    def on_test_batch_end(self, batch, logs=None):  # noqa: ARG002  (as Keras calls these)
        self._look("validation")

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self._look("epoch end")

    def on_train_batch_begin(self, batch, logs=None):  # noqa: ARG002
        self._look("training")


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def fitted(epochs=2, callbacks=(), model=None, optimizer=None, **options):
    x, y = small_data()
    if model is None:
        model = small_model()
        model.compile(optimizer or polyak.keras.ScheduleFree(0.05, warmup_steps=5, finite="skip"), loss="mse")
    model.fit(x, y, epochs=epochs, callbacks=[polyak.keras.Averaged(), *callbacks], **FIT, **options)
    return model


def test_the_callback_switches_for_validation_and_saving_and_at_the_end(tmp_path):
    x, y = small_data()
    watch = Watch()
    path = tmp_path / "model.keras"
    model = fitted(callbacks=[keras.callbacks.ModelCheckpoint(path), watch], validation_data=(x, y))
    averages = [numpy(x) for x in model.optimizer.averages().values()]
    weights = [numpy(v).copy() for v in model.trainable_variables]
    assert same(weights, averages)
    assert same(watch.at["epoch end"], averages)
    assert same(watch.at["validation"], averages)
    assert not same(watch.at["training"], averages)
    assert same([numpy(v) for v in keras.models.load_model(path).trainable_variables], averages)


def test_fits_one_after_the_other_are_one_fit_and_so_is_one_from_a_checkpoint(tmp_path):
    whole = fitted(epochs=3)
    parts = fitted(epochs=2)
    parts.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == parts.optimizer.get_config()
    for model in (parts, loaded):
        fitted(epochs=1, model=model)
        for ours, theirs in zip(
            [*model.weights, *model.optimizer.variables], [*whole.weights, *whole.optimizer.variables], strict=True
        ):
            np.testing.assert_array_equal(numpy(ours), numpy(theirs))


def test_a_checkpoint_of_what_is_trained_goes_on_too(tmp_path):
    whole = fitted(epochs=2)
    model = fitted(epochs=1)
    model.optimizer._bring_back()  # as within an epoch
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fitted(epochs=1, model=loaded)
    for ours, theirs in zip(loaded.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))


def test_a_state_file_is_not_for_averages(tmp_path):
    model = fitted(epochs=1)
    model.save(tmp_path / "model.keras")
    other = polyak.keras.ScheduleFree()
    other.build(model.trainable_variables)
    for save in (
        lambda: state.save(tmp_path / "state.safetensors", model.optimizer, model),
        lambda: state.load(tmp_path / "model.keras", other, model),
    ):
        with pytest.raises(RuntimeError, match="those that are trained would be in no file"):
            save()
    with model.optimizer.averaged():
        pass
    state.save(tmp_path / "state.safetensors", model.optimizer, model)


def test_evaluate_takes_the_callback():
    x, y = small_data()
    model = fitted()
    wanted = model.evaluate(x, y, verbose=0)
    model.optimizer._bring_back()
    trained = [numpy(v).copy() for v in model.trainable_variables]
    assert model.evaluate(x, y, verbose=0, callbacks=[polyak.keras.Averaged()]) == wanted
    assert same([numpy(v) for v in model.trainable_variables], trained)
    assert model.evaluate(x, y, verbose=0) != wanted


def test_a_fit_without_the_callback_warns_once():
    x, y = small_data()
    model = small_model()
    model.compile(polyak.keras.ScheduleFree(0.05), loss="mse")
    with pytest.warns(RuntimeWarning, match=r"fit\(\) ran without the callback polyak.keras.Averaged"):
        model.fit(x, y, **FIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, y, **FIT)


def test_a_fit_without_the_callback_that_would_train_averages_is_an_error():
    x, y = small_data()
    model = fitted()
    # At once where steps are not compiled, otherwise when it ends.
    said = "The weights are the average" if BACKEND == "torch" else "fit.. has trained from the average"
    with pytest.raises(RuntimeError, match=said):
        model.fit(x, y, **FIT)


def test_a_loop_of_ones_own_after_fit_is_told_to_switch():
    model = fitted()
    variables = model.trainable_variables
    grads = [ops.zeros_like(v.value) for v in variables]
    with pytest.raises(RuntimeError, match=r"`with optimizer.averaged\(\): pass` brings back"):
        model.optimizer.apply(grads, variables)
    with model.optimizer.averaged():
        pass
    model.optimizer.apply(grads, variables)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"momentum must be in \(0, 1\]; got 0"):
        polyak.keras.ScheduleFree(momentum=0)
    with pytest.raises(ValueError, match="warmup_steps=5 makes a schedule of the learning rate"):
        polyak.keras.ScheduleFree(lambda step: 0.1 / (1 + step), warmup_steps=5)
    for option in ({"use_ema": True}, {"ema_momentum": 0.9}, {"ema_overwrite_frequency": 10}):
        with pytest.raises(ValueError, match="is about an average of weights that are averaged already: leave it out"):
            polyak.keras.ScheduleFree(**option)
    with pytest.raises(AttributeError, match="warmup_steps is fixed when the optimizer is made"):
        polyak.keras.ScheduleFree().warmup_steps = 5
    model = small_model()
    model.compile(polyak.keras.Momentum(0.1), loss="mse")
    with pytest.raises(TypeError, match=r"is for polyak.keras.ScheduleFree; this model's optimizer is"):
        model.fit(*small_data(), callbacks=[polyak.keras.Averaged()], **FIT)


def test_the_configuration_is_that_before_the_warm_up():
    groups = {"bias": {"learning_rate": 0.5}}
    optimizer = polyak.keras.ScheduleFree(0.25, warmup_steps=5, groups=groups)
    config = optimizer.get_config()
    assert (config["learning_rate"], config["warmup_steps"], config["groups"]) == (0.25, 5, groups)
    again = polyak.keras.ScheduleFree.from_config(config)
    assert again.get_config() == config
    assert [float(numpy(again._learning_rate(t))) for t in (0, 4, 9)] == [np.float32(0.05), 0.25, 0.25]
