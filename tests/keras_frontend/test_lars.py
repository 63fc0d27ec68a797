"""LARS: the recursion in every mode, norms of any size, and what the pipeline does to them."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

import lars_cases
import polyak.keras
from keras_support import BACKEND, MODES, numpy, on_tensorflow, small_data, small_model, stepper, variable

# Of float32: 20 steps with some 5 roundings of 6e-8 each, with signs at random 6e-7; that of a norm, which is a sum in float32
# too but on PyTorch, is one of them. All frameworks are to agree within 1e-5.
SINGLE = 1e-6


def train(optimizer, start, gradients, mode):
    """The last weights and velocities, by name."""
    variables = [variable(w, name) for name, w in start.items()]
    step = stepper(optimizer, variables, mode)
    for grads in gradients:
        step([grads[name] for name in start])
    slots = [s for (s,) in optimizer._state.slots]
    return ({name: numpy(v) for name, v in zip(start, of, strict=True)} for of in (variables, slots))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("decay", [None, "coupled"])
def test_follows_the_literature(decay, mode):
    optimizer = polyak.keras.LARS(
        lambda step: lars_cases.RATES[0] / (1 + ops.cast(step, "float32")),
        **lars_cases.NUMBERS,
        weight_decay=lars_cases.WEIGHT_DECAY if decay else 0.0,
        decay=decay,
    )
    found = train(optimizer, lars_cases.start(np.float32), lars_cases.gradients(np.float32), mode)
    for actual, wanted in zip(found, lars_cases.expected(dtype=np.float32, decay=decay), strict=True):
        lars_cases.assert_close(actual, wanted, SINGLE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_of_any_size(size, mode):
    """In float32 the squares of the one are 0 and of the other infinite."""
    w, g = (np.random.default_rng(seed).standard_normal((8, 8)).astype("float32") for seed in (0, 1))
    for w_size, g_size in ((1.0, size), (size, 1.0)):
        start = {"w": (w * w_size).astype("float32")}
        optimizer = polyak.keras.LARS(0.5, trust_coefficient=0.01)
        after, _ = train(optimizer, start, [{"w": (g * g_size).astype("float32")}], mode)
        moved = np.linalg.norm(after["w"].astype(float) - start["w"])
        # A step is 0.005 of a weight, whose rounding of 6e-8 is 1.2e-5 of it; the root of 64 elements' chance is less.
        assert moved == pytest.approx(0.005 * np.linalg.norm(start["w"].astype(float)), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_clipping_exclusions_and_groups_reach_the_norms(mode):
    start = {name: np.full((2, 2), 2.0, "float32") for name in ("a", "b", "head")}
    grads = {"a": 6.0, "b": 8.0, "head": 0.0}  # norms 12, 16 and 0
    optimizer = polyak.keras.LARS(
        1.0,
        trust_coefficient=0.5,
        weight_decay=0.25,
        decay="coupled",
        global_clipnorm=2.0,
        groups={"^b$": {"weight_decay": 0}, "head": {"learning_rate": 0.5}},
    )
    params, _ = train(optimizer, start, [{name: np.full((2, 2), g, "float32") for name, g in grads.items()}], mode)
    # Scaled by 0.1; |w| is 4. Some roundings of float32.
    np.testing.assert_allclose(params["a"], 2 - 0.5 * 4 / (1.2 + 0.25 * 4) * (0.6 + 0.25 * 2), rtol=1e-6)
    np.testing.assert_allclose(params["b"], 2 - 0.5 * 4 / 1.6 * 0.8, rtol=1e-6)
    np.testing.assert_allclose(params["head"], 2 - 0.5 * 0.25 * 2, rtol=1e-6)  # a gradient of 0: trust 1


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", *([] if BACKEND == "jax" else ["float64"])])
def test_other_dtypes(dtype):
    w, g = (np.random.default_rng(seed).standard_normal((4, 6)) for seed in (0, 1))
    (wanted, _) = train(polyak.keras.LARS(0.5, trust_coefficient=0.5), {"w": w}, [{"w": g.astype("float32")}], "loop")
    if dtype == "complex64":
        w, g = (x[:, :3] + 1j * x[:, 3:] for x in (w, g))
    v = variable(w, dtype=dtype)
    optimizer = polyak.keras.LARS(0.5, trust_coefficient=0.5)
    optimizer.apply([ops.cast(ops.convert_to_tensor(g.astype("complex64" if dtype == "complex64" else "float32")), dtype)], [v])
    found = numpy(v if dtype in ("complex64", "float64") else ops.cast(v, "float32"))
    found = np.concatenate([found.real, found.imag], 1) if dtype == "complex64" else found
    # Of bfloat16 start, gradient and result are rounded, of weights up to 3.
    np.testing.assert_allclose(found, wanted["w"], rtol=0, atol=3 * 2**-7 if dtype == "bfloat16" else 1e-6)


def test_decoupled_decay_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match='decay="decoupled" has no meaning with lars'):
        polyak.keras.LARS(weight_decay=0.1, decay="decoupled")
    with pytest.raises(ValueError, match="trust_coefficient must be finite and above 0; got 0"):
        polyak.keras.LARS(trust_coefficient=0)


def test_fit_goes_on_bit_for_bit_after_loading(tmp_path):
    x, y = small_data()
    model = small_model()
    options = {"weight_decay": 0.01, "decay": "coupled", "cautious": True, "finite": "skip", "global_clipnorm": 1.0}
    model.compile(polyak.keras.LARS(1.0, trust_coefficient=0.01, **options), loss="mse")
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(x, y, epochs=2, **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is polyak.keras.LARS
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for m in (model, loaded):
        m.fit(x, y, epochs=1, **fit)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch alone")
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_torch_operations_find_what_the_kernel_finds(size):
    """In a stateless scope, as for tensors on devices, nothing is read by the host."""
    start = lars_cases.start(np.float32)
    grads = {name: (g * size).astype("float32") for name, g in lars_cases.gradients()[0].items()}
    make = partial(polyak.keras.LARS, 0.5, weight_decay=0.1, decay="coupled", **lars_cases.NUMBERS)
    kernel, _ = train(make(), start, [grads], "loop")
    variables, optimizer = [variable(w, name) for name, w in start.items()], make()
    optimizer.build(variables)
    state, weights = ([v.value for v in of] for of in (optimizer.variables, variables))
    new, _ = optimizer.stateless_apply(state, [ops.convert_to_tensor(grads[name]) for name in start], weights)
    found = {name: numpy(w) for name, w in zip(start, new, strict=True)}
    lars_cases.assert_close(found, kernel, 1e-6)  # norms in float32 and in float64, and one rounding in place of two


@on_tensorflow
def test_copies_under_a_strategy_have_the_norms_of_the_whole():
    import tensorflow as tf

    start, gradients = lars_cases.start(np.float32), lars_cases.gradients(np.float32)[:3]
    options = {**lars_cases.NUMBERS, "weight_decay": 0.1, "decay": "coupled", "global_clipnorm": 1.0, "finite": "skip"}
    wanted, _ = train(polyak.keras.LARS(0.5, **options), start, gradients, "loop")
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        variables = [tf.Variable(w, name=name) for name, w in start.items()]
        optimizer = polyak.keras.LARS(0.5, **options)

        def replica_step(*grads):  # computed here, as gradients are: they have a device then
            optimizer.apply(list(map(tf.identity, grads)), variables)

        step = tf.function(lambda *grads: strategy.run(replica_step, args=grads), autograph=False)
        for grads in gradients:
            step(*(tf.constant(grads[name]) for name in start))
    found = {name: numpy(v) for name, v in zip(start, variables, strict=True)}
    lars_cases.assert_close(found, wanted, 1e-6)  # 3 steps, with the squares perhaps added up in another order
