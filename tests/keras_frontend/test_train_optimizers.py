"""The optimizers of `polyak train` as polyak.keras makes them."""

import numpy as np
import pytest

import polyak.keras
from polyak import schedules
from polyak.keras.schedules import StepFunction
from polyak.train.optimizers import OPTIMIZERS, build_optimizer, checked
from polyak.train.options import Options


def built(**options):
    return build_optimizer(Options(**options), steps=200, steps_per_epoch=20)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_made_with_its_defaults(name):
    optimizer = built(optimizer=name)
    assert type(optimizer) is getattr(polyak.keras, OPTIMIZERS[name].method.name)
    assert optimizer.finite == "error"
    config = optimizer.get_config()
    for setting, expected in {**OPTIMIZERS[name].settings, **OPTIMIZERS[name].fixed}.items():
        if setting == "others":
            assert isinstance(optimizer.others, polyak.keras.Momentum)
            continue
        found = config[setting]
        if setting == "learning_rate":  # Keras keeps it as a float32
            found, expected = np.float32(found), np.float32(expected)
        assert (list(found) if isinstance(expected, list) else found) == expected, setting


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_setting_that_all_optimizers_have_reaches_it(name):
    given = {"global_clipnorm": 2.0, "finite": "skip", "use_ema": True, "ema_momentum": 0.5, "gradient_accumulation_steps": 2}
    if name == "schedule_free":
        del given["use_ema"], given["ema_momentum"]
    config = built(optimizer=name, settings=given).get_config()
    assert {setting: config[setting] for setting in given} == given


def test_schedules_are_those_of_the_run():
    optimizer = built(settings={"learning_rate": "one_cycle(0.5, tail=epoch)", "groups": {"bias": {"momentum": "demon(0.5)"}}})
    rate, momentum = schedules.one_cycle(0.5, 200, tail=20)
    assert (optimizer._learning_rate.function, optimizer._given["momentum"].function) == (rate, momentum)
    (group,) = optimizer._groups.overrides.values()
    assert isinstance(group["momentum"], StepFunction)
    assert group["momentum"].function == schedules.demon(0.5, 200)


def test_what_only_keras_refuses_is_an_error_of_the_options_too():
    with pytest.raises(ValueError, match="warmup_steps=5 makes a schedule of the learning rate"):
        built(optimizer="schedule_free", settings={"warmup_steps": 5, "learning_rate": "cosine(1.0)"})
    with pytest.raises(ValueError, match="warmup is a part of steps"):
        built(settings={"learning_rate": "cosine(1.0, warmup=1000)"})


def test_muon_takes_the_optimizer_of_the_others_as_a_call():
    optimizer = built(optimizer="muon", settings={"others": "lion(learning_rate=cosine(0.01), b1=0.8)", "weight_decay": 0.1})
    assert isinstance(optimizer.others, polyak.keras.Lion)
    assert optimizer.others._learning_rate.function == schedules.cosine(0.01, 200)
    assert optimizer.others.finite == "off"
    assert (optimizer.weight_decay, optimizer.decay) == (0.1, "decoupled")
    with pytest.raises(ValueError, match=r"others=lion\(b3=1\): lion has no setting 'b3'"):
        checked("muon", {"others": "lion(b3=1)"})
    with pytest.raises(ValueError, match="unknown optimizer in others: 'muon'"):
        checked("muon", {"others": "muon()"})
