"""The driver of JAX: trials of optax's and Polyak's transformations come to the weights that their users get."""

from collections import OrderedDict
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import polyak.jax
from check.trials import CHANGED, CHANGES, CLOSE, RESUMES, G, W, assert_script_comes_to, assert_weights, heavy_ball, trial
from polyak.check.drivers.jax import of_factory, of_function
from polyak.check.trial import Group, NotOffered, Refused, Resume, Rows, Trial


def sgd(**options):
    return of_function(optax.sgd, "optax:sgd", {"learning_rate": 0.1, "momentum": 0.9, **options})


@pytest.mark.parametrize("implementation", ["jit", "eager", ""])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_those_of_the_rule(dtype, implementation):
    found = sgd().run(trial(dtype, implementation=implementation))
    assert found.after["a"].dtype == dtype
    assert_weights(found, heavy_ball(in_steps=False), CLOSE[dtype])
    np.testing.assert_array_equal(found.before["a"][1:], found.after["a"][:-1])
    np.testing.assert_array_equal(found.gradients["b"], G[-1]["b"].astype(dtype))
    assert found.compilations == (1 if implementation == "jit" else None)
    assert not jax.config.jax_enable_x64


def test_a_loop_of_ones_own_comes_to_the_same_bits():
    optimizer = optax.adamw(0.1)
    params = OrderedDict((n, jnp.asarray(w, jnp.float32)) for n, w in W.items())
    state = optimizer.init(params)
    for g in G:
        updates, state = optimizer.update(OrderedDict((n, jnp.asarray(g[n], jnp.float32)) for n in W), state, params)
        params = optax.apply_updates(params, updates)
    found = of_function(optax.adamw, "optax:adamw", {"learning_rate": 0.1}).run(trial())
    np.testing.assert_array_equal(found.after["a"][-1], params["a"])
    np.testing.assert_array_equal(found.state["a"]["[0].mu"], state[0].mu["a"])
    assert int(found.state[""]["[0].count"]) == 5


def test_dtypes_are_kept():
    found = sgd(accumulator_dtype=jnp.float32).run(trial(ml_dtypes.bfloat16))
    assert found.after["a"].dtype == ml_dtypes.bfloat16
    assert found.state["a"]["[0].trace"].dtype == np.float32


def test_a_trial_that_is_repeated_is_not_compiled_again_and_finds_nothing_of_the_first():
    subject = sgd()
    first = subject.run(trial(implementation="jit"))
    programs = list(subject._compiled._ready)
    again = subject.run(trial(implementation="jit"))
    assert list(subject._compiled._ready) == programs
    np.testing.assert_array_equal(first.after["a"], again.after["a"])
    assert again.compilations == 1


def test_a_transformation_that_remembers_is_not_used_again():
    def counting(learning_rate):
        calls = 0

        def update(grads, state, _=None):
            nonlocal calls
            calls += 1
            return jax.tree.map(lambda g: -learning_rate * g * calls, grads), state

        return optax.GradientTransformation(lambda _: (), update)

    subject = of_function(counting, "here:counting", {"learning_rate": 0.1})
    for implementation in subject.implementations:
        one, two = (subject.run(trial(implementation=implementation)) for _ in range(2))
        np.testing.assert_array_equal(one.after["a"], two.after["a"])


@pytest.mark.parametrize("implementation", ["jit", "eager"])
@pytest.mark.parametrize("function", [optax.sgd, polyak.jax.momentum])
def test_options_change_in_use_without_compiling_again(function, implementation):
    subject = of_function(function, "here:function", {"learning_rate": 0.1, "momentum": 0.9})
    for each in (subject, subject.scheduler()):
        found = each.run(trial(changes=CHANGES, implementation=implementation))
        assert_weights(found, heavy_ball(**CHANGED, in_steps=False), CLOSE["float32"])
        assert found.compilations == (1 if implementation == "jit" else None)


def test_a_schedule_makes_the_change_where_an_option_cannot_be_injected():
    def picky(learning_rate):
        if not callable(learning_rate) and learning_rate <= 0:  # not known where it is injected
            raise ValueError("learning_rate")
        return optax.sgd(learning_rate, 0.9)

    found = of_function(picky, "here:picky", {"learning_rate": 0.1}).run(
        trial(changes={2: {"learning_rate": 0.02}}, implementation="jit")
    )
    assert_weights(found, heavy_ball(lr=[0.1, 0.1, 0.02, 0.02, 0.02], in_steps=False), CLOSE["float32"])


def test_changes_that_cannot_be_made_are_refused():
    for name in ("nesterov", "nothing"):
        with pytest.raises(Refused):
            sgd().run(trial(changes={1: {name: True}}))
    assert of_factory(lambda: optax.sgd(0.1)).scheduler() is None


def test_ready_made_transformations():
    subject = of_factory(lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9))
    assert subject.defaults == {"learning_rate": pytest.approx(0.1), "momentum": pytest.approx(0.9)}
    found = subject.run(trial(changes={2: {"learning_rate": 0.02}}, options={"momentum": 0.5}))
    assert_weights(found, heavy_ball(lr=[0.1, 0.1, 0.02, 0.02, 0.02], m=0.5, in_steps=False), CLOSE["float32"])
    plain = of_factory(lambda: optax.sgd(0.1, 0.9))
    assert_weights(plain.run(trial()), heavy_ball(in_steps=False), CLOSE["float32"])
    with pytest.raises(Refused, match="no hyperparameter"):
        plain.run(trial(options={"learning_rate": 1.0}))
    assert of_factory(lambda: polyak.jax.momentum(0.1, 0.5)).defaults["momentum"] == 0.5


def test_held_weights():
    found = sgd().run(trial("float64", held=True))
    free = sgd().run(trial("float64"))
    np.testing.assert_array_equal(found.before["a"], np.stack(5 * [W["a"]]))
    np.testing.assert_allclose(found.steps("a"), free.steps("a"), rtol=1e-12, atol=1e-14)  # rounding


@pytest.mark.parametrize("implementation", ["jit", "eager"])
def test_training_goes_on_in_another_instance(implementation):
    subject = sgd()
    straight = subject.run(trial(implementation=implementation))
    for resume in RESUMES:
        found = subject.run(trial(implementation=implementation, resume=resume))
        for name in W:
            np.testing.assert_array_equal(found.after[name], straight.after[name])


def test_loading_what_does_not_fit_is_refused():
    def by_position():
        def init(params):
            return {f"{name}{len(params)}": w for name, w in zip(params, params.values(), strict=True)} | {
                next(iter(params)): 0.0
            }

        return optax.GradientTransformation(init, lambda g, state, _=None: (g, state))

    with pytest.raises(Refused, match="other arrays"):
        of_function(by_position, "here:by_position", {}).run(trial(resume=Resume(1, "load", ("a", "b"))))


def test_two_trials_together():
    subject = sgd()
    first, second = trial(), trial(options={"learning_rate": 0.3}, implementation="jit")
    for pair in ((first, second), (first, first), (second, second)):
        for found, alone in zip(subject.together(*pair), map(subject.run, pair), strict=True):
            np.testing.assert_array_equal(found.after["a"], alone.after["a"])


def test_what_jax_does_not_have_is_not_offered():
    w = np.ones((2, 2), "float32")
    for more in (
        {"groups": (Group(("w",), {}),)},
        {"strided": True},
        {"gradients": [{"w": Rows(np.array([0]), w[:1])}]},
        {"gradients": [{}]},
    ):
        with pytest.raises(NotOffered):
            sgd().run(Trial({"w": w}, **{"gradients": [{"w": w}], **more}))


def test_what_is_known_of_a_subject():
    subject = of_function(polyak.jax.lion, "polyak.jax:lion", {"learning_rate": 0.1})
    assert (subject.framework, subject.name, subject.rate, subject.double) == ("jax", "polyak.jax:lion", "learning_rate", True)
    assert subject.defaults["b1"] == 0.9
    assert subject.defaults["learning_rate"] == 0.1
    assert subject.documentation.startswith("Lion")
    with pytest.raises(Refused, match="momentum"):
        of_function(polyak.jax.momentum, "polyak.jax:momentum", {"learning_rate": 0.1, "momentum": 2.0})


def test_an_optimizer_that_wants_the_loss_is_given_it():
    found = of_function(optax.polyak_sgd, "optax:polyak_sgd", {"max_learning_rate": 0.1}).run(trial())
    assert not np.array_equal(found.after["a"][-1], W["a"].astype("float32"))


SCRIPTS = [
    (sgd, trial()),
    (sgd, trial("float64", implementation="jit", changes=CHANGES)),
    (lambda: sgd().scheduler(), trial(changes=CHANGES, held=True)),
    (sgd, trial(ml_dtypes.bfloat16, options={"nesterov": True})),
    (
        sgd,
        Trial(
            {"w": np.float32([1, 2]), "e": np.zeros((0, 3), "float32")},
            4 * [{"w": np.float32([1, 0.1]), "e": np.zeros((0, 3), "float32")}],
        ),
    ),
    *((sgd, trial(resume=resume)) for resume in RESUMES[8:]),
    *((sgd, trial(resume=resume, implementation="jit")) for resume in (RESUMES[10], RESUMES[13])),
    (sgd, trial(resume=Resume(5, "load", ("a", "b")))),
    (lambda: of_function(optax.polyak_sgd, "optax:polyak_sgd", {"max_learning_rate": 0.1}), trial()),
    (lambda: of_function(polyak.jax.aggmo, "polyak.jax:aggmo", {"learning_rate": 0.1, "momenta": (0.0, 0.9)}), trial()),
]


PAIRS = [
    (trial(), trial(options={"momentum": 0.5})),
    (trial("float64", options={"nesterov": True}), trial("float64")),
    (trial(), trial(ml_dtypes.bfloat16)),
    (trial(), trial(implementation="jit")),
    (trial(), Trial({"a": W["a"].astype("float32")}, [{"a": g["a"].astype("float32")} for g in G[:2]])),
]


@pytest.fixture
def _single():
    """As it was, after scripts that allow float64."""
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("_single")
def test_scripts_come_to_the_weights_of_their_trials():
    for make, t in SCRIPTS:
        assert_script_comes_to(make(), t)
        jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("_single")
@pytest.mark.parametrize(("number", "made"), list(enumerate([1, 1, 1, 2, 2])))
def test_a_script_of_two_trials_comes_to_the_weights_of_both(number, made):
    assert sgd().script(*PAIRS[number]).count("optax.sgd(") == made
    assert_script_comes_to(sgd(), *PAIRS[number])


def test_a_script_is_short():
    subject = sgd()
    one = Trial({"w": np.zeros(1, "float32")}, [{"w": np.ones(1, "float32")}])
    assert subject.script(one) == (
        "import jax, optax\n"
        "params = {'w': jax.numpy.zeros((1,))}\n"
        "optimizer = optax.sgd(learning_rate=0.1, momentum=0.9)\n"
        "state = optimizer.init(params)\n"
        "for w in jax.numpy.array([[1.0]]): updates, state = optimizer.update({'w': w}, state, params); "
        "params = optax.apply_updates(params, updates); print(params['w'].tolist())\n"
    )
    # What is made is made in one line where it would be more than five.
    assert len(subject.script(one, replace(one, options={"momentum": 0.5})).splitlines()) == 4
    assert len(subject.script(*PAIRS[1]).splitlines()) == 4


def test_a_script_shows_when_a_step_is_compiled(capsys):
    subject = sgd()
    exec(subject.script(trial(implementation="jit"), shown="compilations"), {})  # noqa: S102  (what is tested)
    assert capsys.readouterr().out.splitlines().count("compiled") == 1
