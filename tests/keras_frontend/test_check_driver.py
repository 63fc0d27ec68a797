"""The driver of Keras: trials come to the weights that users of Keras get, on the backend of this process."""

import ast
from dataclasses import replace

import keras
import ml_dtypes
import numpy as np
import pytest

import polyak.keras
from check.trials import CHANGED, CHANGES, CLOSE, RESUMES, G, W, assert_script_comes_to, assert_weights, heavy_ball, trial
from check.zoo import keras_zoo
from keras_support import BACKEND, on_tensorflow
from polyak.check.drivers.keras import of_class, of_factory
from polyak.check.drivers.keras.backends import STEPS
from polyak.check.trial import Group, NotOffered, Refused, Resume, Rows, Trial

if BACKEND == "jax":
    import jax
if BACKEND == "torch":
    import torch

COMPILED = list(STEPS)[1:]


def sgd(**options):
    return of_class(keras.optimizers.SGD, "keras.optimizers:SGD", {"learning_rate": 0.1, "momentum": 0.9, **options})


def of_the_zoo():
    """Its state is saved by the names of its variables."""
    return of_class(keras_zoo.SGD, "check.zoo.keras_zoo:SGD", {"learning_rate": 0.1})


def momentum(**options):
    given = {"learning_rate": 0.1, "momentum": 0.9, "velocity": "step", **options}
    return of_class(polyak.keras.Momentum, "polyak.keras:Momentum", given)


@pytest.mark.parametrize("implementation", STEPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_those_of_the_rule(dtype, implementation):
    for subject in (sgd(), momentum()):
        found = subject.run(trial(dtype, implementation=implementation))
        assert found.after["a"].dtype == dtype
        # Of Keras's own, ops.cast(0.9, "float64") on TensorFlow is 0.9 in float32.
        through_float32 = BACKEND == "tensorflow" and subject.name.startswith("keras")
        assert_weights(found, heavy_ball(in_steps=True), 1e-6 if through_float32 else CLOSE[dtype])
        np.testing.assert_array_equal(found.before["a"][1:], found.after["a"][:-1])
        np.testing.assert_array_equal(found.gradients["b"], G[-1]["b"].astype(dtype))
        assert found.compilations == (1 if implementation in COMPILED else None)
    assert keras.config.floatx() == "float32"


def test_a_loop_of_ones_own_comes_to_the_same_bits():
    optimizer = keras.optimizers.Adam(0.1)
    variables = [keras.Variable(w, dtype="float32", name=name) for name, w in W.items()]
    for g in G:
        optimizer.apply([keras.ops.convert_to_tensor(x, "float32") for x in g.values()], variables)
    found = of_class(keras.optimizers.Adam, "keras.optimizers:Adam", {"learning_rate": 0.1}).run(trial())
    np.testing.assert_array_equal(found.after["a"][-1], keras.ops.convert_to_numpy(variables[1]))
    assert sorted(found.state) == ["", "a", "b"]
    assert found.state["a"].keys() == {"momentum", "velocity"}
    assert found.state["a"]["velocity"].shape == (3,)
    assert int(found.state[""]["iteration"]) == 5


def test_dtypes_are_kept():
    found = momentum().run(trial(ml_dtypes.bfloat16))
    assert found.after["a"].dtype == ml_dtypes.bfloat16
    assert found.gradients["a"].dtype == ml_dtypes.bfloat16
    assert found.state["a"]["velocity"].dtype == np.float32
    assert sgd().run(trial(ml_dtypes.bfloat16)).state["a"]["momentum"].dtype == ml_dtypes.bfloat16


# On torch, Polyak's learn the layout of their tensors in the first step, and are made anew.
@pytest.mark.parametrize("make", [sgd] if BACKEND == "torch" else [sgd, momentum])
@pytest.mark.parametrize("implementation", STEPS)
def test_an_instance_that_is_used_again_is_as_new(implementation, make):
    subject = make()
    first = subject.run(trial(implementation=implementation))
    ready = list(subject._ready._ready)
    assert ready[0][0][1] == implementation
    again = subject.run(trial(implementation=implementation))
    assert list(subject._ready._ready) == ready
    for name in W:
        np.testing.assert_array_equal(first.after[name], again.after[name])
    assert again.compilations == first.compilations


class Remembers(keras.optimizers.Optimizer):
    """Step by the count of steps, in Python."""

    calls = 0

    def update_step(self, gradient, variable, learning_rate):
        self.calls += 1
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * gradient * float(self.calls))


def test_an_instance_that_remembers_more_than_variables_is_not_used_again():
    subject = of_class(Remembers, "here:Remembers", {"learning_rate": 0.1})
    one, two = (subject.run(trial()) for _ in range(2))
    if BACKEND != "torch":  # which has another hook than update_step
        assert not subject._ready._ready
    np.testing.assert_array_equal(one.after["a"], two.after["a"])


class BeginsWithTheWeights(keras.optimizers.Optimizer):
    """Go from the first weights by the last gradient alone."""

    def build(self, variables):
        super().build(variables)
        self.begun = [self.add_variable_from_reference(v, "begun") for v in variables]
        for own, v in zip(self.begun, variables, strict=True):
            own.assign(v)

    def update_step(self, gradient, variable, learning_rate):
        own = self.begun[self._get_variable_index(variable)]
        self.assign(variable, own - keras.ops.cast(learning_rate, variable.dtype) * gradient)


@pytest.mark.skipif(BACKEND == "torch", reason="there Keras has another hook than update_step")
def test_an_instance_that_begins_with_its_weights_is_used_again_for_these_alone():
    subject = of_class(BeginsWithTheWeights, "here:BeginsWithTheWeights", {"learning_rate": 0.1})
    turned = trial()
    turned = replace(turned, weights={name: -w for name, w in turned.weights.items()})
    for resume in (None, Resume(2, "copy"), Resume(2, "pickle"), Resume(2, "load")):
        for of in (trial(), turned, trial(), turned):
            came = subject.run(replace(of, resume=resume))
            for name, w in of.weights.items():
                np.testing.assert_allclose(came.after[name][1], w - 0.1 * of.gradients[1][name], rtol=1e-6)


@pytest.mark.parametrize("implementation", STEPS)
def test_options_change_in_use_without_compiling_again(implementation):
    for subject in (momentum(), momentum().scheduler()):
        found = subject.run(trial(changes=CHANGES, implementation=implementation))
        assert_weights(found, heavy_ball(**CHANGED, in_steps=True), CLOSE["float32"])
        assert found.compilations == (1 if implementation in COMPILED else None)
        assert_weights(subject.run(trial()), heavy_ball(in_steps=True), CLOSE["float32"])


@pytest.mark.parametrize("implementation", COMPILED)
def test_keras_own_momentum_cannot_be_changed_in_compiled_code(implementation):
    found = sgd().run(trial(changes={2: {"momentum": 0.1}}, implementation=implementation))
    assert_weights(found, heavy_ball(in_steps=True), CLOSE["float32"])
    assert_weights(
        sgd().run(trial(changes={2: {"momentum": 0.1}})),
        heavy_ball(m=[0.9, 0.9, 0.1, 0.1, 0.1], in_steps=True),
        CLOSE["float32"],
    )


def test_changes_that_cannot_be_made_are_refused():
    with pytest.raises(Refused, match="nothing"):
        sgd().run(trial(changes={1: {"nothing": True}}))
    with pytest.raises(Refused, match="fixed"):
        momentum().run(trial(changes={1: {"nesterov": True}}))


def test_factories():
    subject = of_factory(lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01))
    assert subject.name.endswith(":SGD")
    assert {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}.items() <= subject.defaults.items()
    found = subject.run(trial(options={"weight_decay": None, "momentum": 0.5}))
    assert_weights(found, heavy_ball(m=0.5, in_steps=True), CLOSE["float32"])
    with pytest.raises(Refused, match="b1"):
        subject.run(trial(options={"b1": 1.0}))


def test_what_is_known_of_a_subject():
    subject = momentum()
    assert (subject.framework, subject.rate, subject.double, subject.closure) == ("keras", "learning_rate", True, False)
    assert subject.implementations == tuple(STEPS)
    # Those too that are behind **base.
    assert {
        "nesterov": False,
        "weight_decay": None,
        "cautious": False,
        "learning_rate": 0.1,
    }.items() <= subject.defaults.items()
    assert subject.documentation.startswith("Gradient descent with momentum")
    with pytest.raises(Refused, match="momentum"):
        momentum(momentum=2.0)


def test_held_weights():
    found, free = (sgd().run(trial("float64", held=held)) for held in (True, False))
    np.testing.assert_array_equal(found.before["a"], np.stack(5 * [W["a"]]))
    np.testing.assert_allclose(found.steps("a"), free.steps("a"), rtol=1e-12, atol=1e-14)  # rounding


def test_missing_gradients():
    gradients = [{n: g[n].astype("float32") for n in (W if i != 2 else ["a"])} for i, g in enumerate(G)]
    found = sgd().run(Trial(trial().weights, gradients))
    assert_weights(
        found, heavy_ball(gradients=[{n: G[i][n] for n in g} for i, g in enumerate(gradients)], in_steps=True), CLOSE["float32"]
    )


@on_tensorflow
@pytest.mark.parametrize("implementation", ["eager", "graph"])
def test_sparse_gradients(implementation):
    w = np.ones((3, 2), "float32")
    rows = Rows(np.array([0, 2]), np.array([[1, 2], [3, 4]], "float32"))
    dense = np.array([[1, 2], [0, 0], [3, 4]], "float32")
    found, expected = (sgd().run(Trial({"w": w}, 3 * [{"w": g}], implementation=implementation)) for g in (rows, dense))
    np.testing.assert_allclose(found.after["w"], expected.after["w"], rtol=1e-6)  # rounding
    np.testing.assert_array_equal(found.gradients["w"].values, rows.values)


def test_what_keras_does_not_have_is_not_offered():
    w = np.ones((2, 2), "float32")
    cases = [{"groups": (Group(("w",), {}),)}, {"strided": True}]
    if BACKEND != "tensorflow":
        cases.append({"gradients": [{"w": Rows(np.array([0]), w[:1])}]})
    for more in cases:
        with pytest.raises(NotOffered):
            sgd().run(Trial({"w": w}, **{"gradients": [{"w": w}], **more}))


def test_training_goes_on_in_another_instance():
    subject = sgd()
    straight = subject.run(trial())
    for resume in (*RESUMES[:8:2], *RESUMES[8:]):  # at the beginning there is little that an old instance could do
        if resume.order:
            with pytest.raises(Refused, match="shape"):  # Keras loads by position
                subject.run(trial(resume=resume))
            continue
        found = subject.run(trial(resume=resume))
        for name in W:
            np.testing.assert_array_equal(found.after[name], straight.after[name])


@pytest.mark.parametrize("implementation", COMPILED)
def test_training_goes_on_in_compiled_code(implementation):
    straight, found = (
        sgd().run(trial(implementation=implementation, resume=r)) for r in (None, Resume(2, "pickle", None, True))
    )
    np.testing.assert_array_equal(found.after["a"], straight.after["a"])


def test_two_trials_together():
    subject = momentum()
    first, second = trial(), trial(options={"learning_rate": 0.3}, implementation=[*COMPILED, ""][0])
    for pair in ((first, second), (first, first), (second, second)):
        for found, alone in zip(subject.together(*pair), map(subject.run, pair), strict=True):
            np.testing.assert_array_equal(found.after["a"], alone.after["a"])


SAME = {"a": np.float32([1, 2]), "b": np.float32([3, 4])}
EMPTY = np.zeros((0, 3), "float32")
SCRIPTS = [
    (sgd, trial()),
    (momentum, trial("float64", implementation=[*COMPILED, "eager"][-2 if len(COMPILED) > 1 else 0], changes=CHANGES)),
    (lambda: sgd().scheduler(), trial(changes={2: {"learning_rate": 0.02}}, held=True)),
    (sgd, trial(ml_dtypes.bfloat16, options={"nesterov": True}, implementation=COMPILED[-1] if COMPILED else "")),
    (sgd, Trial({"w": np.float64([1, 2])}, 3 * [{"w": np.float64([0.1, 0.2])}])),
    (
        lambda: of_factory(lambda: polyak.keras.AggMo(0.1, (0.0, 0.9))),
        Trial({**SAME, "e": EMPTY}, 4 * [{**SAME, "e": EMPTY}]),
    ),
    (sgd, Trial(SAME, [SAME, {"a": SAME["b"]}, SAME])),
    *((sgd, Trial(SAME, 4 * [SAME], resume=resume)) for resume in RESUMES[8:]),
    *((sgd, Trial(SAME, 4 * [SAME], implementation=i, resume=RESUMES[9])) for i in COMPILED),
    (sgd, Trial(SAME, 4 * [SAME], resume=Resume(4, "load", ("b", "a")))),
    (of_the_zoo, Trial({"w": SAME["a"]}, 3 * [{"w": SAME["b"]}], resume=Resume(1))),
    (of_the_zoo, Trial({"w": SAME["a"]}, 3 * [{"w": SAME["b"]}], resume=Resume(1, "pickle"))),
]  # fmt: skip
if BACKEND == "tensorflow":
    SCRIPTS.append(
        (sgd, Trial({"w": np.ones((3, 2), "float32")}, 3 * [{"w": Rows(np.array([0, 2]), np.ones((2, 2), "float32"))}]))
    )


ONE = Trial({"w": np.float64([1, 2])}, 3 * [{"w": np.float64([0.1, 0.2])}])
PAIRS = [
    (ONE, replace(ONE, options={"momentum": 0.5})),
    (replace(ONE, changes={2: {"momentum": 0.5}}), ONE),
    (ONE, replace(ONE, implementation=[*STEPS][-1], options={"nesterov": True})),
]


@pytest.fixture
def _settings():
    """As they were, after scripts that set them."""
    floatx = keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", False)
    if BACKEND == "torch":
        torch.set_grad_enabled(True)


@pytest.mark.usefixtures("_settings")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of missing gradients
@pytest.mark.parametrize(("make", "trials"), [*((make, (t,)) for make, t in SCRIPTS), *((sgd, pair) for pair in PAIRS)])
def test_scripts_come_to_the_weights_of_their_trials(make, trials):
    assert_script_comes_to(make(), *trials)


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("resume", [Resume(2), Resume(2, order=("b", "a")), Resume(0)])
def test_what_is_loaded_is_shown_beside_what_was_not_stopped(capsys, resume):
    subject, one = sgd(), Trial(SAME, 4 * [SAME])
    script = subject.script(one, replace(one, resume=resume))
    assert len(script.splitlines()) <= 5
    exec(script, {})  # noqa: S102  (what is tested)
    lines = [ast.literal_eval(line.replace("] [", "], [")) for line in capsys.readouterr().out.splitlines()]
    came = [subject.run(trial).after for trial in (one, replace(one, resume=resume))]
    for step, line in enumerate(lines, resume.step):
        np.testing.assert_array_equal(np.float32(line), [after[name][step] for after in came for name in ("a", "b")])
    assert len(lines) == 4 - resume.step


def test_a_script_is_short():
    lines = sgd().script(*PAIRS[0]).splitlines()
    assert lines[0] == f'import os; os.environ["KERAS_BACKEND"] = "{BACKEND}"'
    assert lines[2:4] == [
        "for momentum in 0.9, 0.5:",
        "    w, optimizer = keras.Variable([1.0, 2.0], dtype='float64'), "
        "keras.optimizers.SGD(learning_rate=0.1, momentum=momentum)",
    ]
    assert len(lines) == 5


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("implementation", COMPILED)
def test_a_script_shows_when_a_step_is_compiled(capsys, implementation):
    exec(sgd().script(replace(ONE, implementation=implementation), shown="compilations"), {})  # noqa: S102  (what is tested)
    assert capsys.readouterr().out.splitlines().count("compiled") == 1
