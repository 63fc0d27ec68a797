"""Options in TOML files: written and read back, joined with flags, and what is said of files that are wrong."""

import math
import string
import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.train import config
from polyak.train.optimizers import OPTIMIZERS
from polyak.train.options import Options

# Everything that a path on a person's disk may be called, with what TOML and JSON have to escape.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
RATE = st.floats(1e-12, 1e12)
COUNT = st.integers(1, 2**31)


@st.composite
def options(draw):
    """Options of any kind, that are right."""
    name = draw(st.sampled_from(sorted(OPTIMIZERS)))
    shortcuts, chosen = {}, {}
    if draw(st.booleans()):
        shortcuts["lr"] = draw(RATE)
    else:
        chosen["learning_rate"] = draw(RATE | st.just("cosine(0.1, warmup=2 * epoch)"))
    if "momentum" in OPTIMIZERS[name].settings and draw(st.booleans()):
        shortcuts["momentum"] = draw(st.floats(0.01, 0.99))
    if draw(st.booleans()):
        chosen |= {"weight_decay": draw(st.floats(1e-9, 1)), "decay": draw(st.sampled_from(["coupled", "decoupled"]))}
        if name in ("lars", "muon"):
            chosen["decay"] = {"lars": "coupled", "muon": "decoupled"}[name]
        pattern = st.text(string.ascii_letters + string.digits + " '\"/_-\x7f\n\t\\\\é", min_size=1)
        patterns = draw(st.lists(pattern.map(lambda text: text.replace("\\", "\\\\")), max_size=3))
        chosen["groups"] = {text: {"weight_decay": draw(st.floats(0, 1))} for text in patterns}
    if draw(st.booleans()):
        chosen["global_clipnorm"] = draw(RATE | st.just(math.inf))
    if name == "aggmo":
        chosen["momenta"] = draw(st.lists(st.floats(0, 0.999), min_size=1))
    return Options(
        task=draw(TEXT),
        target=draw(st.none() | TEXT),
        validation=draw(st.floats(0.001, 0.999)),
        backend=draw(st.sampled_from(["tensorflow", "jax", "torch"])),
        model=draw(st.sampled_from(["", "mlp", "a b"])),
        optimizer=name,
        settings=chosen,
        epochs=draw(COUNT),
        batch_size=draw(st.integers(0, 2**31)),
        seed=draw(st.integers(0, 2**32 - 1)),
        checkpoint=draw(st.sampled_from(["epoch", "500 steps", "0.5 minutes"])),
        keep=draw(COUNT),
        record=draw(st.integers(0, 10**6)),
        tensorboard=draw(st.booleans()),
        **shortcuts,
    )


@given(options())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back_equal(tmp_path_factory, some):
    text = config.to_toml(some)
    content = tomllib.loads(text)
    assert content.keys() <= {field.name for field in fields(Options)} - {"settings"} | {"set"}
    path = tmp_path_factory.mktemp("config") / config.NAME
    config.write(some, path)
    assert config.read(path) == some
    assert path.read_text(encoding="utf-8") == text


def test_a_file_of_a_run_has_every_option_that_has_a_value():
    assert config.to_toml(Options(settings={"velocity": "step", "groups": {"bias|norm": {"momentum": 0}}})) == (
        'task = "digits"\nvalidation = 0.2\nbackend = "tensorflow"\nmodel = ""\noptimizer = "momentum"\nepochs = 30\n'
        'batch_size = 0\nseed = 0\ncheckpoint = "epoch"\nkeep = 3\nrecord = 0\ntensorboard = false\n\n'
        '[set]\nvelocity = "step"\ngroups = {"bias|norm" = {momentum = 0}}\n'
    )


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a file that is called run.toml here."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path.relative_to(tmp_path)

    return write


# Files and flags


def test_flags_win_over_the_file_and_the_file_over_defaults(file):
    path = file('epochs = 7\nseed = 3\nlr = 0.5\n[set]\nvelocity = "step"\nmomentum = 0.5\n')
    found = config.combined(path, {"epochs": 2, "settings": {"velocity": "average"}})
    assert found == replace(Options(), epochs=2, seed=3, lr=0.5, settings={"velocity": "average", "momentum": 0.5})
    assert config.combined(None, {"epochs": 2}) == Options(epochs=2)


def test_a_setting_that_has_two_names_is_won_by_either(file):
    path = file('nesterov = true\nlr = 0.5\n[set]\nmomentum = "demon(0.9)"\n')
    by_flag = config.combined(path, {"momentum": 0.3})
    assert by_flag.chosen == {"learning_rate": 0.5, "momentum": 0.3, "nesterov": True}
    by_set = config.combined(path, {"settings": {"learning_rate": "cosine(1.0)", "nesterov": False}})
    assert by_set.chosen == {"learning_rate": "cosine(1.0)", "momentum": "demon(0.9)", "nesterov": False}
    with pytest.raises(ValueError, match=r"--lr 0\.1 is the same as --set learning_rate"):
        config.combined(path, {"lr": 0.1, "settings": {"learning_rate": 0.2}})


def test_what_a_file_sets_is_for_its_optimizer(file):
    path = file('optimizer = "qhm"\nlr = 2.0\nepochs = 3\n[set]\nnu = 0.5\n')
    assert config.combined(path, {"optimizer": "lion"}) == Options(optimizer="lion", epochs=3)
    assert config.left_out(config.values_of(path), {"optimizer": "lion"}) == ("lr", "settings")
    assert config.combined(path, {"optimizer": "qhm"}) == Options(optimizer="qhm", epochs=3, lr=2.0, settings={"nu": 0.5})
    assert config.left_out(config.values_of(path), {"optimizer": "qhm"}) == ()
    # A file that names none sets what the chosen one has.
    path = file("lr = 0.001\n[set]\nb1 = 0.8\n")
    assert config.combined(path, {"optimizer": "lion"}).chosen == {"learning_rate": 0.001, "b1": 0.8}


# Files that are wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3\nepoch = 4\n", "run.toml, line 2: unknown option 'epoch'; choose from task, .* Did you mean 'epochs'"),
        ("\n\nbatch-size = 4\n", "run.toml, line 3: unknown option 'batch-size'; .* Did you mean 'batch_size'"),
        ("settings = {}\n", "run.toml, line 1: unknown option 'settings'; "),
        ("[sets]\nmomentum = 0.9\n", "run.toml, line 1: unknown option 'sets'; .* Did you mean 'set'"),
        ("[optimizer]\nname = 'lion'\n", "run.toml, line 1: --optimizer must be text; got {'name': 'lion'}"),
        ("seed = 1\n'epochs' = 'ten'\n", "run.toml, line 2: --epochs must be a whole number; got 'ten'"),
        ("set.momentum = 0.9\nset = 3\n", "run.toml cannot be read as TOML: "),
        ("epochs = \n", r"run.toml cannot be read as TOML: Invalid value \(at line 1, column 10\)"),
        ("epochs = 3\nepochs = 4\n", r"cannot be read as TOML: Cannot overwrite a value \(at line 2"),
        ("set = 3\n", "run.toml, line 1: --set must be a table of settings; got 3"),
        ("seed = 1979-05-27\n", "run.toml, line 1: --seed must be a whole number; got datetime"),
        ("[set]\nname = 1979-05-27\n", "run.toml, line 1: datetime.* is no number, true, false, text, list or table"),
        ("seed = 1\nepochs = 0\n", "run.toml, line 2: --epochs must be at least 1; got 0"),
        ("optimizer = 'lion'\n[set]\nb1 = 0.9\nb3 = 0.9\n", "run.toml, line 4: lion has no setting 'b3'; choose from"),
        ("[set]\nvelocity = 'speed'\n", "run.toml, line 2: velocity must be one of"),
        ("[set]\nlearning_rate = 'cosine(0.1'\n", "run.toml, line 2: learning_rate must be a number; got 'cosine"),
        ("[set.groups.bias]\nnu = 1\n", "run.toml, line 1: groups.'bias'. may set learning_rate"),
        ("lr = 0.1\nset.learning_rate = 0.1\n", "run.toml, line 1: --lr 0.1 is the same as --set learning_rate"),
        ("checkpoint = '3 apples'\n", "run.toml, line 1: --checkpoint must be"),
    ],
)
def test_a_wrong_file_is_named_with_the_line(file, text, message):
    with pytest.raises((ValueError, TypeError), match=message):
        config.read(file(text))


def test_what_a_flag_did_is_not_blamed_on_the_file(file):
    with pytest.raises(ValueError, match=r"^--epochs must be at least 1"):
        config.combined(file("seed = 1\n"), {"epochs": 0})


def test_a_file_that_is_not_there_or_no_text_says_so(tmp_path):
    with pytest.raises(OSError, match=r"--config .*none.toml: No such file or directory\."):
        config.read(tmp_path / "none.toml")
    config.write(Options(), tmp_path / config.NAME)
    with pytest.raises(OSError, match=r"is a folder. Did you mean .*config.toml\?"):
        config.read(tmp_path)
    (tmp_path / "picture.toml").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"picture\.toml is no TOML file: byte 2 is not UTF-8"):
        config.read(tmp_path / "picture.toml")
