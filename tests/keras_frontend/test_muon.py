"""Muon: matrices by the float64 rule, all other variables by another optimizer, and both as one optimizer of Keras."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import polyak.keras
import textbook
from keras_support import BACKEND, MODES, numpy, on_jax, on_tensorflow, small_data, state_of, stepper, variable
from polyak.keras import LARS, QHM, AggMo, Lion, Momentum, Muon, Signum, values
from polyak.keras.layers import names_of
from polyak.matrices import Matrices
from polyak.rules.muon import muon
from polyak.rules.orthogonal import band
from polyak.update import pipeline

RNG = np.random.default_rng(0)
# What is orthogonalised, and the dimensions of its outputs.
MATRICES = {
    "first/kernel": ((6, 4), -1),
    "second/kernel": ((6, 4), -1),
    "third/kernel": ((3, 20), -1),
    "conv/kernel": ((3, 2, 4, 5), -1),
    "up_transpose/kernel": ((2, 2, 5, 4), -2),
    "mha/query/kernel": ((6, 2, 4), (-2, -1)),
}
OTHERS = {"first/bias": (4,), "mha/query/bias": (2, 4), "table/embeddings": (7, 4), "logits/kernel": (4, 3)}
SHAPES = {name: shape for name, (shape, _) in MATRICES.items()} | OTHERS
ALL = {name: RNG.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
GRADIENTS = [{name: RNG.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()} for _ in range(6)]
# XLA takes a second for the products of all of them and 5 polynomials, and most tests are about something else.
START = {name: ALL[name] for name in ("first/bias", "first/kernel", "second/kernel", "mha/query/kernel", "logits/kernel")}
FEW = {"steps": 2}
DECAY = {"weight_decay": 0.5}


def variables(start=START, dtype="float32"):
    made = []
    for name, w in start.items():
        v = variable(w, name.replace("/", "_"), dtype)
        v._path = name
        made.append(v)
    return made


def trained(optimizer, gradients=GRADIENTS, mode=MODES[-1], start=START):
    """The weights by name."""
    ws = variables(start)
    step = stepper(optimizer, ws, mode)
    for grads in gradients:
        step([grads[name] for name in start])
    return {name: numpy(w) for name, w in zip(start, ws, strict=True)}


def by_rule(name, gradients=GRADIENTS, *, lr=0.02, m=0.95, wd=0.0, start=ALL, axis=None, split=1, steps=2, **options):
    """A matrix after the steps of the float64 rule; numbers may be lists, with one for each step."""
    pipe = {key: options.pop(key) for key in ("cautious", "cautious_decay") if key in options}
    matrices = Matrices(start[name].shape, MATRICES[name][1] if axis is None else axis, split)
    update = pipeline(muon(matrices, steps=steps, **options), "decoupled" if wd else None, **pipe)
    w, slots = start[name].astype(float), (np.zeros(start[name].shape),)
    for t, grads in enumerate(gradients):
        now = {"learning_rate": lr, "momentum": m, "weight_decay": wd}
        h = {key: x[t] if isinstance(x, list) else x for key, x in now.items()}
        numbers = update.Hyperparameters(*(h[key] for key in update.Hyperparameters._fields))
        w, slots = update.apply(grads[name].astype(float), w, slots, numbers)
    return w


def by_textbook(name, gradients=GRADIENTS, rule="gradient", **arguments):
    arguments = {"lr": 0.01, "m": 0.9} | arguments if rule == "gradient" else arguments
    return textbook.train(rule, ALL[name].astype(float), [g[name].astype(float) for g in gradients], **arguments)[0][-1]


def assert_close(found, expected):
    """Within 1e-5 of the array's size. float32 leaves about 1e-4 in an orthogonal matrix, of which 0.02 is a step."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


# The steps.


@pytest.mark.parametrize("mode", MODES)
def test_matrices_follow_the_rule_and_others_heavy_ball(mode):
    start = ALL if mode == MODES[-1] else START
    weights = trained(Muon(0.02, 0.95), mode=mode, start=start)
    for name in start:
        assert_close(weights[name], by_rule(name, steps=5) if name in MATRICES else by_textbook(name))


@pytest.mark.parametrize(
    ("options", "decay"),
    [
        ({"nesterov": False, "polynomial": "quintic", "scale": "match_rms_adamw"}, {}),
        ({"cautious": True}, {"decay": "decoupled"}),
        ({"cautious_decay": True}, {}),
    ],
    ids=str,
)
def test_options(options, decay):
    """The decay is decoupled and for matrices alone."""
    weights = trained(Muon(0.02, **FEW, **DECAY, **options, **decay))
    for name in START:
        assert_close(weights[name], by_rule(name, wd=0.5, **options) if name in MATRICES else by_textbook(name))


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends have the same reference")
def test_equal_to_that_of_torch():
    import torch

    import polyak.torch

    names = [name for name in START if name in MATRICES and START[name].ndim == 2]
    theirs = {name: torch.tensor(START[name].T.copy(), requires_grad=True) for name in names}
    optimizer = polyak.torch.Muon(theirs.items(), lr=0.02, weight_decay=0.5)
    for grads in GRADIENTS:
        for name, p in theirs.items():
            p.grad = torch.tensor(grads[name].T.copy())
        optimizer.step()
    ours = trained(Muon(0.02, **DECAY))
    for name in names:
        assert_close(ours[name].T, theirs[name].detach().numpy())


def test_singular_values_of_steps():
    """In the band of the polynomial, whatever the sides, the rank and the size of the gradient."""
    wide = RNG.standard_normal((5, 20))
    gradients = {
        "wide/kernel": wide,
        "tall/kernel": wide.T,
        "row/kernel": wide[:1],
        "column/kernel": wide[:1].T,
        "huge/kernel": 1e30 * wide,
        "tiny/kernel": 1e-30 * wide,
        "rank_1/kernel": np.outer(wide[0, :5], wide[1]),
        "zero/kernel": 0 * wide,
        "logits/kernel": wide,
    }
    start = {name: np.zeros(g.shape, "float32") for name, g in gradients.items()}
    steps = trained(Muon(1.0, scale="match_rms_adamw"), [gradients], start=start)
    low, high = band("polar_express", 5)
    for name in list(gradients)[:-1]:
        found = np.linalg.svd(-steps[name] / (0.2 * np.sqrt(max(steps[name].shape))), compute_uv=False)
        rank = np.linalg.matrix_rank(gradients[name])
        assert np.all((low - 1e-3 <= found[:rank]) & (found[:rank] <= high + 1e-3)), name  # some 1e-4 of float32
        assert np.all(found[rank:] < 1e-3), name


def test_matrices_of_one_shape_are_computed_together(monkeypatch):
    """In portions of a bounded size."""
    updates = [pipeline(muon(Matrices((2, 3))))] * 3
    arrays = [np.zeros((2, 3), "float32")] * 3
    assert list(values.together(updates, [0, 0, 0], arrays)) == [[0, 1, 2]]
    monkeypatch.setattr(values, "BATCH_BYTES", 2 * arrays[0].nbytes)
    assert list(values.together(updates, [0, 0, 0], arrays)) == [[0, 1], [2]]
    assert list(values.together(updates, [0, 1, 0], arrays)) == [[0, 2], [1]]
    assert list(values.together(updates, [0, 0, 0], [arrays[0], arrays[0].astype("float64"), arrays[0]])) == [[0, 2], [1]]
    monkeypatch.setattr(values, "BATCH_BYTES", 1)
    alone = trained(Muon(0.02, **FEW, weight_decay=0.25))
    for name in START:
        assert_close(alone[name], by_rule(name, wd=0.25) if name in MATRICES else by_textbook(name))


def test_split():
    """The gates of a recurrent layer are matrices of their own."""
    name = "lstm/lstm_cell/kernel"
    start = {name: ALL["third/kernel"], "logits/kernel": ALL["logits/kernel"]}
    gradients = [{name: g["third/kernel"], "logits/kernel": g["logits/kernel"]} for g in GRADIENTS]
    weights = trained(Muon(0.02, split={"*lstm_cell/*kernel": 4}, **FEW), gradients, start=start)
    assert_close(weights[name], by_rule(name, gradients, split=4, start=start, axis=-1))


@pytest.mark.parametrize(("dtype", "product_dtype"), [("float64", None), ("float64", "float32"), ("bfloat16", None)])
def test_dtypes(dtype, product_dtype):
    """Half-precision weights have velocities of float32, and the products may have a dtype of their own."""
    if BACKEND == "jax" and dtype == "float64":
        pytest.skip("JAX has it only where it was switched on")
    optimizer = Muon(0.5, product_dtype=product_dtype, **FEW)
    ws = variables(dtype=dtype)
    stepper(optimizer, ws, MODES[-1])([ops.cast(GRADIENTS[0][name], dtype) for name in START])
    computes = "float64" if dtype == "float64" else "float32"
    assert {keras.backend.standardize_dtype(s.dtype) for slots in optimizer._state.slots for s in slots} == {computes}
    w = ws[1]
    assert keras.backend.standardize_dtype(w.dtype) == dtype
    error = np.abs(numpy(ops.cast(w, computes)) - by_rule("first/kernel", GRADIENTS[:1], lr=0.5)).max()
    # A sum of float64; a product of float32; a weight below 4 and a gradient below 4, both of 8 bits.
    low, high = {("float64", None): (0, 1e-14), ("float64", "float32"): (1e-10, 1e-5)}.get((dtype, product_dtype), (0, 0.03))
    assert low <= error <= high


# Numbers that change.


def test_numbers_that_are_assigned():
    """Of both optimizers, with effect at the next step."""
    optimizer = Muon(0.02, 0.95, **FEW)
    ws = variables()
    step = stepper(optimizer, ws, MODES[-1])
    for t, grads in enumerate(GRADIENTS):
        if t == 3:
            optimizer.momentum, optimizer.learning_rate = 0.5, 0.04
            optimizer.others.momentum, optimizer.others.learning_rate = 0.25, 0.1
        step([grads[name] for name in START])
    changed = {
        "matrices": {"lr": [0.02] * 3 + [0.04] * 3, "m": [0.95] * 3 + [0.5] * 3},
        "others": {"lr": [0.01] * 3 + [0.1] * 3, "m": [0.9] * 3 + [0.25] * 3},
    }
    for w, name in zip(ws, START, strict=True):
        of_rule = name in MATRICES
        assert_close(numpy(w), by_rule(name, **changed["matrices"]) if of_rule else by_textbook(name, **changed["others"]))


def test_schedules():
    others = Momentum(lambda step: 0.01 * (1 + step), lambda step: 0.5 + 0.05 * step)
    weights = trained(Muon(lambda step: 0.02 / (1 + step), lambda step: 0.95 - 0.1 * step, others=others, **FEW))
    steps = range(len(GRADIENTS))
    for name in START:
        if name in MATRICES:
            expected = by_rule(name, lr=[0.02 / (1 + t) for t in steps], m=[0.95 - 0.1 * t for t in steps])
        else:
            expected = by_textbook(name, lr=[0.01 * (1 + t) for t in steps], m=[0.5 + 0.05 * t for t in steps])
        assert_close(weights[name], expected)


@pytest.mark.parametrize("cls", [LARS, AggMo, QHM, Signum] if BACKEND == "torch" else [LARS])  # XLA takes its time
def test_others_do_what_they_do_alone(cls):
    """Whatever their slots and numbers; LARS looks at whole variables."""
    rest = {name: START[name] for name in START if name in OTHERS}
    alone, beside = trained(cls(0.05), start=rest), trained(Muon(0.02, others=cls(0.05), **FEW))
    for name in rest:
        np.testing.assert_allclose(beside[name], alone[name], rtol=1e-6)  # compiled into another program
    assert_close(beside["first/kernel"], by_rule("first/kernel"))


def test_groups_of_both():
    others = Lion(0.001, weight_decay=0.5, decay="decoupled", groups={"bias": {"weight_decay": 0, "learning_rate": 0.002}})
    groups = {"query": {"learning_rate": 0.05}, "second": {"weight_decay": 0, "momentum": lambda step: 0.5 + 0 * step}}
    weights = trained(Muon(0.02, groups=groups, others=others, **FEW, **DECAY))
    assert_close(weights["first/kernel"], by_rule("first/kernel", wd=0.5))
    assert_close(weights["mha/query/kernel"], by_rule("mha/query/kernel", wd=0.5, lr=0.05))
    assert_close(weights["second/kernel"], by_rule("second/kernel", m=0.5))
    lion = {"rule": "lion", "b1": 0.9, "b2": 0.99}
    assert_close(weights["first/bias"], by_textbook("first/bias", lr=0.002, **lion))
    assert_close(weights["logits/kernel"], by_textbook("logits/kernel", lr=0.001, wd=0.5, decay="decoupled", **lion))


def test_exclusion_from_both_decays():
    optimizer = Muon(0.02, others=Momentum(0.01, weight_decay=0.5, decay="decoupled"), **FEW, **DECAY)
    optimizer.exclude_from_weight_decay(var_names=["second", "bias"])
    weights = trained(optimizer)
    assert_close(weights["second/kernel"], by_rule("second/kernel"))
    assert_close(weights["first/kernel"], by_rule("first/kernel", wd=0.5))
    assert_close(weights["first/bias"], by_textbook("first/bias"))
    assert_close(weights["logits/kernel"], by_textbook("logits/kernel", wd=0.5, decay="decoupled"))


# What is about all variables.


def test_the_norm_is_that_of_all_gradients():
    gradients = [{name: g[name] / (1 + t) for name in START} for t, g in enumerate(GRADIENTS)]
    norms = [np.sqrt(sum((g**2).sum() for g in grads.values())) for grads in gradients]
    bound = float(np.median(norms))
    clipped = [
        {name: g * min(1, bound / norm) for name, g in grads.items()} for grads, norm in zip(gradients, norms, strict=True)
    ]
    weights = trained(Muon(0.02, global_clipnorm=bound, **FEW), gradients)
    for name in START:
        assert_close(weights[name], by_rule(name, clipped) if name in MATRICES else by_textbook(name, clipped))


@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 1.0}], ids=["", "clip"])
def test_a_step_that_is_not_finite_changes_nothing_of_either(clip):
    optimizer = Muon(0.02, finite="skip", **clip, **FEW)
    ws = variables()
    step = stepper(optimizer, ws, MODES[-1])
    step([GRADIENTS[0][name] for name in START])
    for bad in ("first/bias", "mha/query/kernel"):
        before = state_of(optimizer, ws)
        poisoned = {name: GRADIENTS[1][name].copy() for name in START}
        poisoned[bad].flat[1] = np.nan
        step(list(poisoned.values()))
        for ours, theirs in zip(state_of(optimizer, ws), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert optimizer.skipped == 2
    for grads in GRADIENTS[1:]:
        step([grads[name] for name in START])
    clean = trained(Muon(0.02, **clip, **FEW))
    for w, name in zip(ws, START, strict=True):
        assert_close(numpy(w), clean[name])
    assert optimizer.skipped == 2


def test_errors_name_the_variables_of_both():
    poisoned = {name: np.full_like(START[name], np.inf) for name in ("first/bias", "mha/query/kernel")}
    with pytest.raises(FloatingPointError, match=r"At step 0 .*: \['first/bias', 'mha/query/kernel'\]"):
        trained(Muon(0.02, finite="error", **FEW), [GRADIENTS[0] | poisoned], "loop")


def test_gradient_accumulation_and_moving_average():
    optimizer = Muon(0.02, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.5, **FEW)
    ws = variables()
    step = stepper(optimizer, ws, MODES[-1])
    average = {name: w.astype(float) for name, w in START.items()}
    for t, grads in enumerate(GRADIENTS):
        step([grads[name] for name in START])
        # Keras averages at each call, and begins with the weights as they are in the second half of the first update.
        share = 0.5 if t > 1 else 0.0
        average = {name: share * average[name] + (1 - share) * numpy(w) for name, w in zip(START, ws, strict=True)}
    pairs = zip(GRADIENTS[::2], GRADIENTS[1::2], strict=True)
    means = [{name: (a[name] + b[name]) / 2 for name in START} for a, b in pairs]
    for w, name in zip(ws, START, strict=True):
        assert_close(numpy(w), by_rule(name, means) if name in MATRICES else by_textbook(name, means))
    optimizer.finalize_variable_values(ws)
    for w, name in zip(ws, START, strict=True):
        assert_close(numpy(w), average[name])


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless_apply there")
def test_stateless_apply():
    """On PyTorch it is also the way of tensors on a device."""
    optimizer = Muon(0.02, finite="skip", global_clipnorm=1.0, **FEW)
    ws = variables()
    optimizer.build(ws)
    weights, state = [w.value for w in ws], [v.value for v in optimizer.variables]
    for grads in GRADIENTS:
        weights, state = optimizer.stateless_apply(state, [ops.convert_to_tensor(grads[name]) for name in START], weights)
    for w, name in zip(ws, START, strict=True):
        np.testing.assert_array_equal(numpy(w), START[name])  # nothing is written to
    expected = trained(Muon(0.02, global_clipnorm=1.0, **FEW))
    for w, name in zip(weights, START, strict=True):
        assert_close(numpy(w), expected[name])


def test_gradients_that_are_missing():
    ws = variables()
    optimizer = Muon(0.02, **FEW)
    optimizer.build(ws)
    some = {"second/kernel", "logits/kernel"}
    grads = [ops.convert_to_tensor(GRADIENTS[0][name]) if name in some else None for name in START]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply(grads, ws)
    for w, name in zip(ws, START, strict=True):
        if name in MATRICES:
            assert_close(numpy(w), by_rule(name, GRADIENTS[:1]) if name in some else START[name])


@on_tensorflow
def test_replicas():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        ws = [tf.Variable(w, name=name) for name, w in START.items()]
        optimizer = Muon(0.02, global_clipnorm=1.5, finite="skip", others=Momentum(0.01, 0.9), **FEW)

        def replica_step(*grads):  # computed here, as gradients are: they have a device then
            optimizer.apply(list(map(tf.identity, grads)), ws)

        step = tf.function(lambda *grads: strategy.run(replica_step, args=grads), autograph=False)
        for grads in GRADIENTS[:3]:
            step(*(tf.constant(grads[name]) for name in START))
    assert optimizer.report().parameters[0].name == "first/bias"
    expected = trained(Muon(0.02, global_clipnorm=1.5, **FEW), GRADIENTS[:3])
    for w, name in zip(ws, START, strict=True):
        assert_close(numpy(w), expected[name])


# Models.


def model_of(*names):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(8, activation="tanh", name=name) for name in names]
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(1, name="last")])


def test_training_goes_on_bit_for_bit_after_loading(tmp_path):
    x, y = small_data()
    model = model_of("a", "b")
    others = Lion(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9), groups={"bias": {"b1": 0.5}})
    optimizer = Muon(0.02, split={"*b/kernel": 2}, output_axis={"*a/kernel": (1,)}, others=others, **DECAY, **FEW)
    model.compile(optimizer, loss="mse")
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    losses = model.fit(x, y, epochs=4, **fit).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    optimizer.momentum, optimizer.others.b2 = 0.5, 0.75  # assigned values are state
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert str(loaded.optimizer.report()) == str(optimizer.report())
    for ours, theirs in zip(optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    for each in (model, loaded):
        each.fit(x, y, epochs=1, **fit)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))


@on_jax
def test_loss_scale():
    """Whose state is handed through the functions of JAX, with that of both optimizers in it."""
    model = model_of("a")
    model.compile(keras.optimizers.LossScaleOptimizer(Muon(0.02, **FEW)), loss="mse")
    x, y = small_data()
    losses = model.fit(x, y, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_own_variables_hold_all_state():
    optimizer, other = Muon(0.02, **FEW), Muon(0.02, **FEW)
    trained(optimizer)
    ws = variables()
    other.build(ws)
    store = {}
    optimizer.save_own_variables(store)
    other.load_own_variables(store)
    # Count, learning rate; momentum; numbers of the other one; a slot each; the names of the variables.
    assert len(store) == 2 + 1 + 2 + len(START) + 1
    for ours, theirs in zip(optimizer._state.slots, other._state.slots, strict=True):
        np.testing.assert_array_equal(numpy(ours[0]), numpy(theirs[0]))
    assert int(other.others.iterations) == len(GRADIENTS)


def test_config():
    arguments = {
        "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.02, 10, 0.9),
        "momentum": 0.5,
        "nesterov": False,
        "polynomial": "quintic",
        "steps": 6,
        "scale": "match_rms_adamw",
        "roles": {"head/*": "orthogonal"},
        "split": {"*qkv*": 3},
        "output_axis": {"*query*": (-2, -1), "*up*": -2},
        "others": Lion(0.001, groups={"bias": {"learning_rate": 0.002}}),
        "product_dtype": "bfloat16",
        "weight_decay": 0.1,
        "groups": {"head": {"weight_decay": 0.0}},
        "name": "mine",
    }
    optimizer = Muon(**arguments)
    config = optimizer.get_config()
    others = config["others"]["config"]
    assert (others["learning_rate"], others["groups"]) == (pytest.approx(0.001), {"bias": {"learning_rate": 0.002}})
    assert {name: config[name] for name in arguments if name not in ("learning_rate", "others")} == {
        name: x for name, x in arguments.items() if name not in ("learning_rate", "others")
    }
    for again in (Muon.from_config(config), keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))):
        assert again.get_config() == config
        assert again.others is not optimizer.others
    own = set(inspect.signature(Muon).parameters) - {"common"}
    assert set(config) == own | set(Momentum().get_config()) - {"dampening", "velocity"}


# Roles.


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["model/a/kernel", "model/b/kernel"], ["a/kernel", "b/kernel"]),
        (["model/backbone/a/kernel", "model/backbone/b/c/kernel"], ["a/kernel", "b/c/kernel"]),
        (["model/a/kernel", "model/a/bias"], ["a/kernel", "a/bias"]),
        (["model/a/kernel", "other/b/kernel"], ["model/a/kernel", "other/b/kernel"]),
        (["a/kernel", "a/b/kernel"], ["a/kernel", "a/b/kernel"]),
        (["w", "a/b/c"], ["w", "a/b/c"]),
        (["a/b/c/kernel"], ["c/kernel"]),
        (["dense/kernel:0", "head/kernel:0"], ["dense/kernel", "head/kernel"]),
    ],
)
def test_names_have_no_name_of_the_model(paths, names):
    """Whether it is in the paths depends on how the model was made; of a loaded one it may be missing."""
    assert names_of(paths) == names


def report_of(*layers, **options):
    """Of layers, each with the shape of its inputs: role, matrices and reason by path."""
    found = []
    for layer, *shapes in layers:
        layer.build(*shapes)
        found += layer.trainable_variables
    optimizer = Muon(**options)
    optimizer.build(found)
    rows = optimizer.report().parameters
    assert [p.name for p in rows] == [v.path for v in found]
    return {p.name: (p.matrices and (p.matrices.rows, p.matrices.cols), p.why) for p in rows}


@pytest.mark.skipif(BACKEND != "torch", reason="the names are the same on every backend, and made faster there")
def test_layers():
    layers = keras.layers
    found = report_of(
        (layers.Embedding(50, 6, name="table"), None),
        (layers.MultiHeadAttention(4, 8, name="mha"), (None, 5, 6), (None, 5, 6)),
        (layers.MultiHeadAttention(4, 8, use_bias=False, name="plain"), (None, 5, 6), (None, 5, 6)),
        (layers.Conv2D(7, (3, 2), name="conv"), (None, 8, 8, 4)),
        (layers.Conv2DTranspose(7, (3, 2), name="up"), (None, 8, 8, 4)),
        (layers.Conv2DTranspose(5, 3, use_bias=False, name="conv_transpose_2"), (None, 8, 8, 4)),
        (layers.SeparableConv1D(7, 3, name="separable"), (None, 8, 4)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, name="block_depthwise"), (None, 8, 8, 4)),
        (layers.DepthwiseConv2D(3, name="dw"), (None, 8, 8, 4)),
        (layers.LSTM(5, name="lstm"), (None, 3, 4)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="einsum"), (None, 5, 4)),
        (layers.LayerNormalization(axis=(-2, -1), name="norm"), (None, 3, 4)),
        (layers.PReLU(name="prelu"), (None, 3, 4)),
        (layers.Dense(6, name="dense"), (None, 4)),
        (layers.Dense(3, name="last"), (None, 4)),
    )
    matrices = {path: sides for path, (sides, _) in found.items() if sides}
    assert matrices == {
        "mha/query/kernel": (32, 6),
        "mha/key/kernel": (32, 6),
        "mha/value/kernel": (32, 6),
        "mha/attention_output/kernel": (6, 32),
        "plain/query/kernel": (32, 6),
        "plain/key/kernel": (32, 6),
        "plain/value/kernel": (32, 6),
        "plain/attention_output/kernel": (6, 32),
        "conv/kernel": (7, 24),
        "up/kernel": (7, 24),
        "conv_transpose_2/kernel": (5, 36),
        "separable/pointwise_kernel": (7, 4),
        "lstm/lstm_cell/kernel": (20, 4),
        "lstm/lstm_cell/recurrent_kernel": (20, 5),
        "einsum/kernel": (6, 4),
        "dense/kernel": (6, 4),
    }
    assert {path: found[path][1] for path in found if path not in matrices and not path.endswith("bias")} == {
        "table/embeddings": "named as an embedding",
        "separable/depthwise_kernel": "depthwise: a filter for each channel",
        "block_depthwise/kernel": "depthwise: a filter for each channel",
        "dw/kernel": "a filter for each channel, or a single output",
        "norm/gamma": "named as a bias or a scale",
        "norm/beta": "named as a bias or a scale",
        "prelu/alpha": "named as a bias or a scale",
        "last/kernel": "the last kernel: the output head",
    }
    assert found["mha/query/bias"][1] == "named as a bias or a scale"
    assert found["dense/bias"][1] == "fewer than two dimensions"


def test_roles_that_are_given():
    dense, head = keras.layers.Dense(4, name="head"), keras.layers.Dense(4, name="dense")
    found = report_of((dense, (None, 4)), (head, (None, 4)), roles={"head/kernel": "orthogonal", "dense/*": "other"})
    assert found["head/kernel"] == ((4, 4), "roles['head/kernel']")
    assert found["dense/kernel"] == (None, "roles['dense/*']")
    # A kernel that is named as a head is the only one.
    assert report_of((keras.layers.Dense(4, name="predictions_head"), (None, 4)), (keras.layers.Dense(4, name="x"), (None, 4)))[
        "x/kernel"
    ] == ((4, 4), "a matrix")


def test_report():
    optimizer = Muon(scale="match_rms_adamw")
    with pytest.raises(ValueError, match=r"Roles are decided when the optimizer is built: call build\(model"):
        optimizer.report()
    optimizer.build(variables())
    lines = str(optimizer.report()).splitlines()
    assert lines[0].split() == ["parameter", "shape", "role", "matrices", "scale", "why"]
    assert "mha/query/kernel  6 x 2 x 4  orthogonal  8 x 6     0.5657  outputs x the rest" in lines[4]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be finite and at least 0"),
        ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1"),
        ({"momentum": 0.0}, ValueError, "nesterov=True has no effect with momentum=0"),
        ({"nesterov": 2}, ValueError, "nesterov must be True or False; got 2"),
        ({"polynomial": "cubic"}, ValueError, "polynomial must be one of 'quintic', 'polar_express'; got 'cubic'"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"scale": "original"}, ValueError, "scale must be one of 'spectral', 'match_rms_adamw'; got 'original'"),
        ({"product_dtype": "int8"}, ValueError, "product_dtype must be one of 'bfloat16', .*; got 'int8'"),
        ({"decay": "coupled", "weight_decay": 0.1}, ValueError, 'decay="coupled" has no meaning with Muon'),
        ({"decay": "decoupled"}, ValueError, "has no effect with weight_decay=0"),
        ({"groups": {"kernel": {"weight_decay": 0}}}, ValueError, "has no effect with weight_decay=0"),
        ({"cautious_decay": True}, ValueError, "cautious_decay=True has no effect"),
        ({"beta": 0.5}, TypeError, "unexpected keyword argument 'beta'"),
        ({"roles": ["*"]}, TypeError, r"roles must be a dict from patterns of paths; got \['\*'\]"),
        ({"others": "lion"}, TypeError, "others must be an optimizer of polyak.keras, such as .*; got 'lion' of type"),
        ({"others": keras.optimizers.SGD()}, TypeError, "others must be an optimizer of polyak.keras"),
        ({"others": polyak.keras.ScheduleFree()}, ValueError, "others cannot be ScheduleFree, which has to be switched"),
        ({"others": Muon()}, ValueError, "others cannot be Muon, which is for matrices"),
        ({"others": Muon().others}, ValueError, "others has been built, or serves another Muon"),
        ({"others": Lion(finite="skip")}, ValueError, "others has finite='skip', which is for all .*: give it to Muon itself"),
        ({"others": Lion(global_clipnorm=1.0)}, ValueError, "others has global_clipnorm=1.0"),
        ({"others": Lion(use_ema=True)}, ValueError, "others has use_ema=True"),
        ({"others": Lion(gradient_accumulation_steps=2)}, ValueError, "others has gradient_accumulation_steps=2"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        Muon(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": {"nothing": "other"}}, "roles has patterns that fit no parameter"),
        ({"roles": {"first/kernel": "muon"}}, "A role is"),
        ({"split": {"first/kernel": 3}}, "'first/kernel' cannot be orthogonalised .*split=3 does not divide the 4 outputs"),
        ({"output_axis": {"first/kernel": 4}}, "output_axis=4 is no dimension"),
        ({"roles": {"*": "other"}}, "no parameter to orthogonalise"),
        ({"groups": {"bias": {"learning_rate": 1.0}}}, "found in no name.*These are the matrices; groups of the other"),
    ],
)
def test_wrong_for_these_variables(options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Muon(**options).build(variables())


def test_variables_that_muon_cannot_take():
    with pytest.raises(TypeError, match=r"real matrices; 'first/kernel' is of complex64. Give it another rule: roles="):
        Muon().build(variables({"first/kernel": np.ones((2, 2)), "logits/kernel": np.ones((2, 2))}, "complex64"))
    with pytest.raises(ValueError, match=r"several have the same: \['w'\]"):
        Muon().build([variable(np.ones((2, 2)), "w"), variable(np.ones((2, 2)), "w")])


def test_what_is_fixed():
    optimizer = Muon()
    for name in ("nesterov", "steps", "roles", "others", "product_dtype", "weight_decay"):
        with pytest.raises(AttributeError, match=f"{name} is fixed when the optimizer is made"):
            setattr(optimizer, name, None)
    ws = variables()
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.others.apply([ops.convert_to_tensor(g) for g in GRADIENTS[0].values()], ws)
