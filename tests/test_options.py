"""What a person may choose, and what is said of what cannot be chosen. No framework is imported."""

import ast
import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyak
from polyak import schedules
from polyak.train.optimizers import COMMON, OPTIMIZERS, checked
from polyak.train.options import Options, batch_size_for
from polyak.train.schedules import NAMES, Length
from polyak.train.settings import Call, Epochs, call, plain, settings, value

# Settings as they are written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.95", 0.95),
        ("-1", -1),
        ("+2e-3", 0.002),
        ("1_000", 1000),
        ("inf", math.inf),
        ("true", True),
        ("False", False),
        ("step", "step"),
        (" polar_express ", "polar_express"),
        ("'a b'", "a b"),
        ("my-run", "my-run"),
        ("1/30", "1/30"),  # no number here; the check of the setting says so
        ("a.b", "a.b"),
        ("(0, 0.9, 0.99)", [0, 0.9, 0.99]),
        ("[1, [true]]", [1, [True]]),
        ("{'bias|norm': {weight_decay: 0}}", {"bias|norm": {"weight_decay": 0}}),
        (r"{'layer_\d': {}}", {r"layer_\d": {}}),
        ("{}", {}),
        ("cosine( 0.1,warmup = 100 )", "cosine(0.1, warmup=100)"),
        ("{'head': {'learning_rate': cosine(0.1)}}", {"head": {"learning_rate": "cosine(0.1)"}}),
        ("Größe", "Größe"),
    ],
)
def test_a_value_is_what_it_looks_like(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--set takes NAME=VALUE, such as --set momentum=0.95; got 'lr'"),
        ("=1", "--set takes NAME=VALUE"),
        ("a b=1", "--set takes NAME=VALUE"),
        ("lr=", "--set lr=: there is no value"),
        ("lr=cosine(0.1", r"--set lr=cosine\(0.1: '\(' was never closed"),
        ("lr=None", "None is the same as to leave it out"),
        ("lr=[x for x in y]", "is no number, true, false, word, list, table or call"),
        ("lr={1: 2}", "is no number"),
        ("lr={[1]: 2}", "is no number"),
        ("lr={**x}", "is no number"),
        ("lr=-word", "is no number"),
        ("lr=lambda: 1", "is no number"),
        ("lr=b'1'", "is no number"),
        ("lr=1j", "is no number"),
    ],
)
def test_what_cannot_be_read_is_shown(text, message):
    with pytest.raises(ValueError, match=message):
        settings([text])


@given(st.text() | st.text("()[]{}'\"\\,:=*-+.1eax \0"))
def test_any_text_is_a_value_or_an_error_that_can_be_shown(text):
    for read in (value, call, lambda text: settings([text])):
        with suppress(ValueError):
            found = read(text)
            assert isinstance(found, Call) or repr(plain(found)) == repr(found)


def test_a_setting_is_given_once():
    assert settings(["a=1", "b=x=y"]) == {"a": 1, "b": "x=y"}
    with pytest.raises(ValueError, match="--set a was given twice: 1 and '2'"):
        settings(["a=1", "a=2"])


def test_nothing_that_is_written_is_run(tmp_path):
    file = tmp_path / "made"
    for text in (f"open({str(file)!r}, 'w')", f"cosine(open({str(file)!r}, 'w'))", f"__import__('os').mkdir({str(file)!r})"):
        with pytest.raises(ValueError, match=r"schedule|calls|must"):
            Options(settings=settings([f"learning_rate={text}"]))
    assert not file.exists()


def test_calls_are_taken_apart():
    made = call("linear(0.1, end=-1, steps=2 * epoch)")
    assert made == ("linear", (0.1,), {"end": -1, "steps": Epochs(2)}, "linear(0.1, end=-1, steps=2 * epoch)")
    assert made.counts_epochs
    assert made.in_steps(25).kwargs == {"end": -1, "steps": 50}
    corners = call("piecewise_linear((0, epoch, epoch * 1.5), [0.1, 0.1, 0])")
    assert corners.in_steps(25).args == ([0, 25, 38], [0.1, 0.1, 0])
    assert not call("sutskever()").counts_epochs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine", "is no call"),
        ("cosine(", "cannot be read"),
        ("a.cosine(1)", "where the name alone stands"),
        ("cosine(**x)", "without"),
        ("cosine(warmup='a' * epoch)", "no number of epochs"),
        ("cosine(1 + 1)", "is no number"),
    ],
)
def test_what_is_no_call_is_shown(text, message):
    with pytest.raises(ValueError, match=message):
        call(text)


# Options


def test_defaults_are_what_the_readme_says():
    options = Options()
    assert (options.task, options.backend, options.optimizer, options.chosen) == ("digits", "tensorflow", "momentum", {})
    arguments = checked("momentum", {})
    assert (arguments["learning_rate"], arguments["momentum"]) == (0.1, 0.9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "numpy"}, "unknown --backend 'numpy'; choose from tensorflow, jax, torch"),
        ({"optimizer": "adam"}, "unknown --optimizer 'adam'; choose from descent, momentum, nesterov, qhm"),
        ({"optimizer": "Lion"}, "Did you mean 'lion'"),
        ({"optimizer": "schedule-free"}, "Did you mean 'schedule_free'"),
        ({"lr": 0.0}, "learning_rate must be above 0; got 0"),
        ({"lr": -0.1}, "learning_rate must"),
        ({"lr": math.nan}, "learning_rate must"),
        ({"lr": math.inf}, "learning_rate must"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        ({"momentum": -0.1}, "momentum must"),
        ({"momentum": 0.0, "nesterov": True}, "no effect with momentum=0"),
        (
            {"optimizer": "lion", "nesterov": True},
            "lion has no setting 'nesterov'; choose from learning_rate, b1, b2, weight_decay",
        ),
        ({"optimizer": "aggmo", "momentum": 0.9}, "aggmo has no setting 'momentum'.* Did you mean 'momenta'"),
        ({"optimizer": "descent", "momentum": 0.9}, "descent is momentum with momentum=0: leave momentum out"),
        ({"optimizer": "nesterov", "nesterov": True}, "nesterov is momentum with nesterov=true: leave nesterov out"),
        ({"lr": 0.1, "settings": {"learning_rate": 0.2}}, "--lr 0.1 is the same as --set learning_rate"),
        ({"momentum": 0.1, "settings": {"momentum": 0.1}}, "--momentum 0.1 is the same as --set momentum"),
        ({"settings": {"velocity": "speed"}}, "velocity must be one of 'gradient', 'step', 'average'; got 'speed'"),
        ({"settings": {"nesterov": 1}}, "nesterov must be true or false; got 1"),
        ({"settings": {"moment": 0.9}}, "momentum has no setting 'moment'.* Did you mean 'momentum'"),
        ({"settings": {"weight_decay": 1e-4}}, "needs decay"),
        ({"settings": {"decay": "coupled"}}, "has no effect with weight_decay=0"),
        ({"settings": {"cautious": "yes"}}, "cautious must be true or false"),
        ({"settings": {"cautious_decay": True}}, "cautious_decay=True has no effect"),
        ({"settings": {"finite": "ignore"}}, 'finite must be "error"'),
        ({"settings": {"global_clipnorm": 0}}, "global_clipnorm must be above 0"),
        ({"settings": {"global_clipnorm": 1.0, "clipvalue": 1.0}}, "global_clipnorm and clipvalue bound the same gradients"),
        ({"settings": {"ema_momentum": 0.9}}, "ema_momentum has no effect without use_ema"),
        ({"settings": {"gradient_accumulation_steps": 1}}, "gradient_accumulation_steps must be from 2"),
        ({"settings": {"groups": {"bias": {"nu": 1}}}}, "may set learning_rate, momentum or weight_decay; got 'nu'"),
        ({"settings": {"groups": {"(": {"momentum": 0}}}}, "is no regular expression"),
        ({"optimizer": "lars", "settings": {"weight_decay": 0.1, "decay": "decoupled"}}, 'decay="decoupled" has no meaning'),
        ({"optimizer": "schedule_free", "momentum": 0.0}, r"momentum must be in \(0, 1\]"),
        ({"epochs": 0}, "--epochs must be at least 1; got 0"),
        ({"batch_size": -1}, "--batch-size must be at least 0; got -1"),
        ({"keep": 0}, "--keep must be at least 1"),
        ({"record": -1}, "--record must be at least 0"),
        ({"seed": -1}, "--seed must"),
        ({"seed": 2**32}, "--seed must"),
        ({"validation": 0.0}, "--validation is a share of the examples, between 0 and 1; got 0.0"),
        ({"validation": 1.0}, "--validation is a share"),
        ({"checkpoint": "5 apples"}, "--checkpoint must be"),
        ({"task": "caf\udce9.csv"}, "is not UTF-8"),
    ],
)
def test_wrong_options_say_what_would_be_right(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Options(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": "ten"}, "--epochs must be a whole number; got 'ten'"),
        ({"epochs": 1.0}, "--epochs must be a whole number; got 1.0"),
        ({"epochs": True}, "--epochs must be a whole number; got True"),
        ({"validation": "0.2"}, "--validation must be a number"),
        ({"tensorboard": 1}, "--tensorboard must be true or false"),
        ({"task": 3}, "TASK must be text"),
        ({"settings": []}, "--set must be a table of settings"),
        ({"settings": {"name": None}}, "None is no number, true, false, text, list or table"),
        ({"settings": {"learning_rate": "fast"}}, "learning_rate must be a number; got 'fast'"),
        ({"settings": {"momenta": 0.9}, "optimizer": "aggmo"}, "momenta must be a sequence"),
        ({"settings": {"groups": "bias"}}, "groups must be a dict"),
    ],
)
def test_options_of_another_type_say_what_is_wanted(wrong, message):
    with pytest.raises(TypeError, match=message):
        Options(**wrong)


@pytest.mark.parametrize(
    "edge",
    [
        {"momentum": 0.0},
        {"lr": 1},
        {"batch_size": 1},
        {"epochs": 1},
        {"seed": 2**32 - 1},
        {"settings": {"global_clipnorm": math.inf}},
        {"settings": {"weight_decay": 1, "decay": "coupled", "groups": {"bias": {"weight_decay": 0}}}},
        {"settings": {"groups": {"head": {"learning_rate": "cosine(0.1)", "momentum": 0.0}}}},
        {"optimizer": "aggmo", "settings": {"momenta": (0.0, 0.9)}},
        {"optimizer": "lars", "settings": {"weight_decay": 0.1, "decay": "coupled"}},
    ],
)
def test_options_at_the_edge_are_right(edge):
    options = Options(**edge)
    assert replace(options) == options


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_has_a_default_for_all_its_arguments_and_takes_each_guard(name):
    guards = {"finite": "skip", "global_clipnorm": 1.0, "cautious": True}
    arguments = checked(name, Options(optimizer=name, settings=guards).chosen)
    assert {"learning_rate", *OPTIMIZERS[name].method.arguments, *guards} <= arguments.keys()


def defaults(method):
    """The arguments of a method's class in Keras and their defaults, read from its file: importing it would import Keras."""
    tree = ast.parse((Path(polyak.__file__).parent / "keras" / f"{method.function}.py").read_text())
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == method.name)
    (init,) = (node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    positional = dict(zip([arg.arg for arg in init.args.args][1:], init.args.defaults, strict=True))
    named = dict(zip([arg.arg for arg in init.args.kwonlyargs], init.args.kw_defaults, strict=True))
    return {name: ast.literal_eval(x) for name, x in {**positional, **named}.items()}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "muon"])
def test_defaults_but_the_learning_rate_are_those_of_the_class(name):
    choice = OPTIMIZERS[name]
    of_class = {setting: x for setting, x in defaults(choice.method).items() if setting not in COMMON}
    found = {**of_class, **choice.settings, **choice.fixed}
    assert found.keys() - {"name", "loss_scale_factor"} <= of_class.keys()
    changed = {setting for setting in choice.settings if choice.settings[setting] != of_class[setting]}
    if name == "aggmo":  # a list there, as in TOML
        assert tuple(choice.settings["momenta"]) == of_class["momenta"]
        changed -= {"momenta"}
    assert changed <= {"learning_rate"}


def test_every_argument_that_all_optimizers_have_can_be_set():
    tree = ast.parse((Path(polyak.__file__).parent / "keras" / "hyperparameters.py").read_text())
    (common,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Common")
    names = {node.target.id for node in common.body if isinstance(node, ast.AnnAssign)}
    assert COMMON.keys() == names - {"name"}  # which would have no effect


def test_the_table_in_the_docs_has_every_optimizer_with_its_defaults():
    text = (Path(__file__).parent.parent / "docs" / "train.md").read_text()
    rows = {
        name: (rate, others) for name, rate, others in re.findall(r"^\| `(\w+)`.* \| ([\d.]+) \| (.*) \|$", text, re.MULTILINE)
    }
    for name, choice in OPTIMIZERS.items():
        rate, others = rows[name]
        assert float(rate) == choice.settings["learning_rate"]
        shown = settings(re.findall(r"`(\w+=[^`]+)`", others))
        assert shown == {setting: choice.settings[setting] for setting in shown}
        unsaid = choice.settings.keys() - shown.keys() - {"learning_rate"}
        assert all(f"`{setting}`" in others or choice.settings[setting] == 0 for setting in unsaid)


# Schedules

LENGTH = Length(steps=200, steps_per_epoch=20)


def schedule(text, setting="learning_rate", **given):
    return checked("momentum", {**given, setting: text}, LENGTH)[setting]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cosine(0.5)", schedules.cosine(0.5, 200)),
        ("cosine(0.5, 100)", schedules.cosine(0.5, 100)),
        ("cosine(0.5, steps=2*epoch, warmup=0.5*epoch)", schedules.cosine(0.5, 40, warmup=10)),
        ("linear(0.5, 0)", schedules.linear(0.5, 0, 200)),
        ("warmup_stable_decay(0.5, warmup=10, decay=2*epoch)", schedules.warmup_stable_decay(0.5, 200, warmup=10, decay=40)),
        ("piecewise((5 * epoch,), (0.5, 0.05))", schedules.piecewise((100,), (0.5, 0.05))),
        ("piecewise_linear([0, epoch], [0.5, 0])", schedules.piecewise_linear((0, 20), (0.5, 0))),
        ("constant(0.5)", schedules.constant(0.5)),
    ],
)
def test_a_call_is_a_schedule_of_the_runs_length(text, expected):
    assert schedule(text) == expected
    assert Options(settings={"learning_rate": text}).chosen == {"learning_rate": text}


def test_momentum_may_follow_a_schedule_too():
    assert schedule("demon(0.9)", "momentum") == schedules.demon(0.9, 200)
    assert schedule("sutskever()", "momentum", nesterov=True) == schedules.sutskever()


def test_a_cycle_gives_learning_rate_and_momentum():
    arguments = checked("qhm", {"learning_rate": "one_cycle(0.5, momentum=(0.8, 0.9))"}, LENGTH)
    assert (arguments["learning_rate"], arguments["momentum"]) == schedules.one_cycle(0.5, 200, momentum=(0.8, 0.9))
    Options(settings={"learning_rate": "one_cycle(0.5, tail=epoch)"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": "cosin(0.1)"}, r"unknown schedule in learning_rate=cosin\(0.1\): 'cosin'.* Did you mean 'cosine'"),
        ({"learning_rate": "plot(0.1)"}, "unknown schedule"),
        (
            {"learning_rate": "cosine(0.1, warmpu=3)"},
            "unexpected keyword argument 'warmpu'. It is cosine.peak: float, steps: int",
        ),
        ({"learning_rate": "cosine()"}, "missing 1 required positional argument: 'peak'"),
        ({"learning_rate": "cosine(-1)"}, r"learning_rate=cosine\(-1\): peak must be 0, or from"),
        ({"learning_rate": "cosine(0.1, warmup=1.5)"}, "warmup counts steps, so it must be an int"),
        ({"learning_rate": "cosine(0.1, 100, warmup=100)"}, "warmup is a part of steps"),
        ({"momentum": "linear(0.9, 1.5)"}, r"momentum=linear\(0.9, 1.5\): momentum must be in \[0, 1\); got 1.5"),
        ({"momentum": "one_cycle(0.1)"}, "one_cycle is for the learning_rate of all parameters"),
        ({"learning_rate": "one_cycle(0.1)", "momentum": 0.5}, "gives the momentum too: leave momentum=0.5 out"),
        ({"groups": {"bias": {"learning_rate": "one_cycle(0.1)"}}}, "groups.'bias'.: .*one_cycle is for"),
        ({"groups": {"bias": {"learning_rate": "cosine(0.1, x=1)"}}}, "groups.'bias'.: .*unexpected keyword"),
        ({"dampening": "cosine(0.1)"}, "dampening must be a number"),
    ],
)
def test_wrong_schedules_are_found_before_the_data_are_there(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Options(settings=given)


def test_a_schedule_that_does_not_fit_the_run_is_found_when_its_length_is_known():
    Options(settings={"learning_rate": "cosine(0.1, warmup=1000)"})
    with pytest.raises(ValueError, match="warmup is a part of steps; got warmup=1000 of 200 steps"):
        schedule("cosine(0.1, warmup=1000)")
    Options(settings={"momentum": "piecewise((epoch,), (0.9, 1.5))"})
    with pytest.raises(ValueError, match=r"got 1\.5"):
        schedule("piecewise((epoch,), (0.9, 1.5))", "momentum")


def test_a_cycle_wants_a_momentum():
    with pytest.raises(ValueError, match="gives a momentum too, which lion does not have"):
        Options(optimizer="lion", settings={"learning_rate": "one_cycle(0.1)"})


def test_every_schedule_of_the_package_can_be_named():
    assert set(NAMES) == {name for name in schedules.__all__ if name not in ("plot", "OneCycle")}


# Batch sizes


@pytest.mark.parametrize(
    ("examples", "size"), [(6400, 256), (10**6, 256), (5120, 256), (5119, 128), (3200, 128), (120, 8), (9, 8), (5, 5), (1, 1)]
)
def test_few_examples_get_small_batches(examples, size):
    assert batch_size_for(examples) == size
    assert Options().for_examples(examples).batch_size == size


def test_a_batch_size_that_was_given_is_kept_or_refused():
    assert Options(batch_size=7).for_examples(7).batch_size == 7
    with pytest.raises(ValueError, match="--batch-size must be from 1 to 6, the training examples of digits; got 7"):
        Options(batch_size=7).for_examples(6)
    assert Options().for_examples(None) == Options()
    with pytest.raises(ValueError, match="makes its own batches: leave --batch-size 7 out"):
        Options(batch_size=7).for_examples(None)
