"""The state of Muon: that of the matrices and that of the other rule, in one file. `test_state_moves.py` has Keras too."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import polyak.jax
import polyak.numpy
import polyak.torch
from polyak import state
from polyak.state.metadata import decode, encode

# As PyTorch has it, outputs x inputs; the last is an embedding by its name.
SHAPES = {"a": (6, 4), "b": (4, 6), "bias": (6,), "embedding": (5, 4)}
MATRICES, REST = ("a", "b"), ("bias", "embedding")
ROWS = {"*": 0}


def arrays(seed: int, dtype: str = "float64") -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


class InNumPy:
    others = staticmethod(lambda method="Momentum", **options: partial(getattr(polyak.numpy, method), **options))

    def __init__(self, **options: Any) -> None:
        self.weights = arrays(0)
        self.optimizer = polyak.numpy.Muon(self.weights, output_axis={"[ab]": 0}, **options)

    def step(self, grads: dict[str, Any]) -> None:
        self.optimizer.step(grads)


class InTorch:
    others = staticmethod(lambda method="Momentum", **options: partial(getattr(polyak.torch, method), **options))

    def __init__(self, **options: Any) -> None:
        self.params = {name: torch.tensor(w).requires_grad_() for name, w in arrays(0).items()}
        self.optimizer = polyak.torch.Muon(self.params.items(), **options)

    @property
    def weights(self) -> dict[str, Any]:
        return {name: p.detach().numpy() for name, p in self.params.items()}

    def step(self, grads: dict[str, Any]) -> None:
        for name, p in self.params.items():
            p.grad = torch.tensor(grads[name])
        self.optimizer.step()


FRONT_ENDS = {"numpy": InNumPy, "torch": InTorch}
EACH = pytest.mark.parametrize("origin", FRONT_ENDS)
OTHER = pytest.mark.parametrize("target", FRONT_ENDS)


def make(front_end: str, others: str = "Momentum", steps: int = 0, others_options: Any = None, **options: Any) -> Any:
    kind = FRONT_ENDS[front_end]
    made = kind(**{"lr": 0.125, "momentum": 0.75, **options}, others=kind.others(others, **(others_options or {"lr": 0.25})))
    for t in range(steps):
        made.step(arrays(100 + t))
    return made


def go_on(made: Any, steps: range) -> dict[str, Any]:
    for t in steps:
        made.step(arrays(100 + t))
    return made.weights


def take_weights(source: Any, target: Any) -> None:
    for name, w in source.weights.items():
        target.weights[name][...] = w


@EACH
@OTHER
@pytest.mark.parametrize("others", ["Momentum", "Lion", "AggMo"])
def test_a_run_goes_on(origin: str, target: str, others: str, tmp_path: Any) -> None:
    source, alone = make(origin, others, 4), make(target, others, 8)
    state.save(tmp_path / "state", source.optimizer)
    wrong = {"lr": 0.5, "momentum": 0.5}
    loaded = make(target, others, 2, {"lr": 0.5}, **wrong)
    report = state.load(tmp_path / "state", loaded.optimizer)
    slots = {"AggMo": [f"velocity_{i}" for i in range(3)]}.get(others, ["velocity"])
    expected = [f"velocity/{name}" for name in MATRICES] + [f"{slot}/{name}" for slot in slots for name in REST]
    assert sorted(report.loaded) == sorted(expected)
    assert (report.left, report.notes) == ((), ())
    take_weights(source, loaded)
    found = go_on(loaded, range(4, 8))
    for name, w in alone.weights.items():
        # Rounding of float64 in products that NumPy and PyTorch add up differently, times the polynomials' slope at 0, 1,000.
        np.testing.assert_allclose(found[name], w, rtol=0, atol=1e-10 if name in MATRICES else 0)


def test_what_a_file_holds(tmp_path: Any) -> None:
    source = make("torch", "Momentum", 2, {"lr": 0.25, "velocity": "step"}, weight_decay=0.5, nesterov=False, cautious=True)
    state.save(tmp_path / "state", source.optimizer)
    contents = state.read(tmp_path / "state")
    own, rest = contents.groups
    assert (own.method, own.names) == ("Muon", MATRICES)
    assert own.options == {
        "nesterov": False,
        "polynomial": "polar_express",
        "steps": 5,
        "scale": "spectral",
        "weight_decay": 0.5,
        "decay": "decoupled",
        "maximize": False,
        "cautious": True,
        "cautious_decay": False,
    }
    assert own.hyperparameters == {"learning_rate": 0.125, "momentum": 0.75}
    assert (own.last_learning_rate, rest.last_learning_rate) == (0.125, 0.25)
    assert (rest.method, rest.names, rest.velocity) == ("Momentum", REST, "step")
    assert rest.hyperparameters == {"learning_rate": 0.25, "momentum": 0.9}
    assert contents.count == 2


@EACH
@OTHER
def test_a_velocity_of_the_other_rule_is_converted(origin: str, target: str) -> None:
    """That of the matrices has one unit only."""
    source = make(origin, steps=3)
    loaded = make(target, others_options={"lr": 0.5, "velocity": "step"})
    report = state.load(source.optimizer, loaded.optimizer)
    assert report.notes == ("velocity: converted from 'gradient' to 'step'",)
    before, after = (dict(state_arrays(made)) for made in (source, loaded))
    for name in REST:
        np.testing.assert_array_equal(after[f"velocity/{name}"], 0.25 * before[f"velocity/{name}"])
    for name in MATRICES:
        np.testing.assert_array_equal(after[f"velocity/{name}"], before[f"velocity/{name}"])


def state_arrays(made: Any) -> Any:
    from polyak.state.frontends import adapter

    captured = adapter(made.optimizer).capture(made.optimizer)
    return ((name, captured.array(name)) for name in captured.contents.tensors)


@EACH
@OTHER
def test_options_that_differ_are_noted(origin: str, target: str) -> None:
    source = make(origin, steps=1, polynomial="quintic", scale="match_rms_adamw")
    report = state.load(source.optimizer, make(target, steps=2).optimizer)
    assert set(report.notes) == {
        "polynomial: the optimizer has 'polar_express', the saved one had 'quintic'",
        "scale: the optimizer has 'spectral', the saved one had 'match_rms_adamw'",
    }


@EACH
@OTHER
def test_another_second_rule_or_other_roles_do_not_fit(origin: str, target: str) -> None:
    source = make(origin, "Momentum", 2)
    loaded = make(target, "Lion", 1)
    before = {name: x.copy() for name, x in state_arrays(loaded)}
    with pytest.raises(ValueError, match=r"bias and 1 more: saved by Momentum, and the optimizer is Lion"):
        state.load(source.optimizer, loaded.optimizer)
    roles = make(target, steps=1, roles={"b": "other"})
    with pytest.raises(ValueError, match=r"b: saved by Muon, and the optimizer is Momentum"):
        state.load(source.optimizer, roles.optimizer)
    for name, x in state_arrays(loaded):
        np.testing.assert_array_equal(x, before[name])
    report = state.load(source.optimizer, loaded.optimizer, strict=False)
    assert sorted(report.loaded) == ["velocity/a", "velocity/b"]


def test_a_second_rule_of_torch_can_be_read(tmp_path: Any) -> None:
    def sgd(named: Any) -> Any:
        return torch.optim.SGD(named, lr=0.25, momentum=0.9)

    source = InTorch(lr=0.125, momentum=0.75, others=sgd)
    for t in range(3):
        source.step(arrays(100 + t))
    for place in (source.optimizer, source.optimizer.state_dict()):
        state.save(tmp_path / "state", place)
        loaded = make("numpy")
        state.load(tmp_path / "state", loaded.optimizer)
        assert loaded.optimizer.count == 3
        expected = dict(state_arrays(make("numpy", steps=3)))
        for name, x in state_arrays(loaded):
            # SGD rounds the product before the sum.
            np.testing.assert_allclose(x, expected[name], rtol=1e-14, atol=1e-14)
    with pytest.raises(TypeError, match="the others of a Muon, SGD is read only"):
        state.load(tmp_path / "state", source.optimizer)
    adam = InTorch(others=lambda named: torch.optim.AdamW(named, lr=0.25))
    with pytest.raises(TypeError, match=r"(?s)are known; got AdamW"):
        state.save(tmp_path / "state", adam.optimizer)


def test_torch_optim_muon_can_be_read(tmp_path: Any) -> None:
    params = {name: torch.tensor(arrays(0)[name]).requires_grad_() for name in MATRICES}
    peer = torch.optim.Muon(params.items(), lr=0.125, momentum=0.75, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for t in range(3):
        for name, p in params.items():
            p.grad = torch.tensor(arrays(100 + t)[name])
        peer.step()
    for place in (peer, peer.state_dict()):
        state.save(tmp_path / "state", place)
        contents = state.read(tmp_path / "state")
        (group,) = contents.groups
        assert (group.method, contents.count) == ("Muon", None)
        assert {name: group.options[name] for name in ("polynomial", "steps", "scale", "decay", "weight_decay")} == {
            "polynomial": "quintic",
            "steps": 5,
            "scale": "match_rms_adamw",
            "decay": "decoupled",
            "weight_decay": 0.5,
        }
        loaded = make("numpy", momentum=0.5)
        report = state.load(tmp_path / "state", loaded.optimizer, strict=False)
        assert sorted(report.loaded) == ["velocity/a", "velocity/b"]
        assert sorted(report.left) == [
            f"velocity/{name}: missing, the optimizer has float64{s}" for name, s in (("bias", [6]), ("embedding", [5, 4]))
        ]
        assert loaded.optimizer.momentum == 0.75
        expected = dict(state_arrays(make("numpy", steps=3)))
        for name in MATRICES:  # its average is an interpolation that rounds otherwise
            np.testing.assert_allclose(dict(state_arrays(loaded))[f"velocity/{name}"], expected[f"velocity/{name}"], rtol=1e-13)
    with pytest.raises(TypeError, match="The state of Muon is read only"):
        state.load(tmp_path / "state", peer)


def test_a_torch_muon_that_has_no_like_cannot_be_read(tmp_path: Any) -> None:
    peer = torch.optim.Muon([("a", torch.zeros(2, 2, requires_grad=True))], eps=0.5)
    with pytest.raises(ValueError, match=r"eps=0\.5"):
        state.save(tmp_path / "state", peer)


def test_a_file_cannot_ask_for_steps_without_end(tmp_path: Any) -> None:
    state.save(tmp_path / "state", make("numpy", steps=1).optimizer)
    contents = state.read(tmp_path / "state")
    metadata = encode(contents)
    changed = metadata | {"groups": metadata["groups"].replace('"steps": 5', '"steps": 1000000000')}
    with pytest.raises(ValueError, match=r"groups\[0\], of Muon: steps must be at most 100; got 1000000000"):
        decode(changed, contents.tensors)
    assert decode(metadata, contents.tensors) == contents


def test_schedules_go_on() -> None:
    def falling(step: int) -> float:
        return 0.25 / (1 + step)

    source = make("torch", steps=3)
    loaded = make("numpy", lr=falling, others_options={"lr": falling})
    state.load(source.optimizer, loaded.optimizer)
    assert (loaded.optimizer.lr, loaded.optimizer.others.lr) == (0.0625, 0.0625)


@pytest.mark.parametrize("way", ["save", "load"])
def test_not_while_the_others_are_averaged(way: str, tmp_path: Any) -> None:
    source = make("torch", "ScheduleFree", 2)
    state.save(tmp_path / "state", source.optimizer)
    with source.optimizer.others.averaged(), pytest.raises(RuntimeError, match="weights are their average"):
        getattr(state, way)(tmp_path / "state", source.optimizer)


def test_what_a_device_left_out_leaves_the_last_rate_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyak.torch.views.in_host_memory", lambda t: False)  # noqa: ARG005
    source = make("torch", steps=1, finite="skip")
    source.step({name: np.full_like(g, np.nan) for name, g in arrays(1).items()})
    with pytest.raises(ValueError, match="learning rate of the last step, which is not known"):
        state.load(source.optimizer, make("numpy", others_options={"lr": 0.5, "velocity": "step"}).optimizer)


# JAX, whose state is apart.


def in_jax(steps: int = 0, others: Any = None, lr: Any = 0.125, **options: Any) -> Any:
    others = polyak.jax.momentum(0.25, 0.9) if others is None else others
    optimizer = polyak.jax.muon(lr, 0.75, others=others, output_axis={"[ab]": 0}, **options)
    params = {name: jnp.asarray(w, "float32") for name, w in arrays(0).items()}
    held, update = optimizer.init(params), jax.jit(optimizer.update)
    for t in range(steps):
        updates, held = update({name: jnp.asarray(g, "float32") for name, g in arrays(100 + t).items()}, held, params)
        params = optax.apply_updates(params, updates)
    return optimizer, held, params


def test_jax_and_numpy(tmp_path: Any) -> None:
    optimizer, held, _ = in_jax(3)
    state.save(tmp_path / "state", (optimizer, held))
    contents = state.read(tmp_path / "state")
    assert [(group.method, group.names) for group in contents.groups] == [("Muon", MATRICES), ("Momentum", REST)]
    loaded = make("numpy")
    state.load(tmp_path / "state", loaded.optimizer)
    expected = dict(state_arrays(make("numpy", steps=3)))
    for name, x in state_arrays(loaded):
        np.testing.assert_allclose(x, expected[name], rtol=1e-5, atol=1e-6)  # float32
    fresh, empty, _ = in_jax()
    report = state.load((optimizer, held), (fresh, empty))
    assert len(report.loaded) == 4
    for name in MATRICES:
        np.testing.assert_array_equal(report.state.slots["velocity"][name], held.slots["velocity"][name])
    for name in REST:
        np.testing.assert_array_equal(report.state.others.slots["velocity"][name], held.others.slots["velocity"][name])
    assert int(report.state.count) == int(report.state.others.count) == 3
    assert jax.tree.structure(report.state) == jax.tree.structure(empty)


def test_jax_with_a_second_rule_without_slots() -> None:
    optimizer, held, params = in_jax(2, others=polyak.jax.momentum(0.25, 0.0))
    loaded = make("numpy", others_options={"lr": 0.5, "momentum": 0.0})
    state.load((optimizer, held), loaded.optimizer)
    assert loaded.optimizer.count == 2
    captured = state.load((optimizer, held), (optimizer, held), params)
    assert sorted(captured.loaded) == ["velocity/a", "velocity/b"]


def test_jax_with_a_second_rule_of_optax(tmp_path: Any) -> None:
    optimizer, held, _ = in_jax(1, others=optax.adam(0.1))
    with pytest.raises(TypeError, match=r"its `others` is a transformation that a function of polyak\.jax returned"):
        state.save(tmp_path / "state", (optimizer, held))
