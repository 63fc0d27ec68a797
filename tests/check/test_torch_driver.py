"""The driver of PyTorch: what comes of a trial is what a person's own loop comes to."""

import random
import signal
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16
from numpy.testing import assert_array_equal

import polyak.torch
from check.trials import ADAM, SGD, TWO, drawn
from polyak.check.drivers.loading import load, of
from polyak.check.drivers.torch import of_class, of_factory
from polyak.check.trial import Group, Refused, Resume, Rows, Trajectory, Trial


def assert_same(one: Trajectory, two: Trajectory) -> None:
    for name in one.after:
        assert one.after[name].dtype == two.after[name].dtype
        assert_array_equal(one.after[name], two.after[name], strict=True)


class Spy(torch.optim.SGD):
    """Notes what it was given."""

    seen: list[Any] = []  # noqa: RUF012  (of all instances)

    def step(self, closure: Any = None) -> Any:
        self.seen += [(p.detach(), p.grad) for group in self.param_groups for p in group["params"]]
        return super().step(closure)


@pytest.fixture
def seen() -> Iterable[list[Any]]:
    Spy.seen.clear()
    yield Spy.seen
    Spy.seen.clear()


class Rude(torch.optim.SGD):
    """Changes what it finds, prints and warns."""

    def step(self, closure: Any = None) -> Any:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002  (which is what it is here for)
        random.seed(7)
        print("hello")  # noqa: T201  (likewise)
        warnings.warn("careful", UserWarning, stacklevel=1)
        return super().step(closure)


class Dice(torch.optim.Optimizer):
    """Steps of random lengths."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002  (as torch has it)
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * torch.rand_like(p) * random.random() * np.random.rand()  # noqa: NPY002, S311  (as others do)


class Aliasing(torch.optim.Optimizer):
    """Its velocity is the first gradient itself."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002  (as torch has it)
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "velocity" in state:
                    state["velocity"].mul_(0.5).add_(p.grad)
                else:
                    state["velocity"] = p.grad
                p -= group["lr"] * state["velocity"]


# What comes of a trial.


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adadelta", "RMSprop", "NAdam"])
def test_a_trial_is_the_loop_that_everyone_writes(name: str) -> None:
    subject = load(f"torch.optim:{name}", {"weight_decay": 0.1})
    found = subject.run(Trial(**TWO, options={"lr": 0.05}, changes={2: {"lr": 0.01}}))
    params = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in TWO["weights"].values()]
    optimizer = getattr(torch.optim, name)(params, weight_decay=0.1, lr=0.05)
    for step, gradients in enumerate(TWO["gradients"]):
        if step == 2:
            optimizer.param_groups[0]["lr"] = 0.01
        for p, key in zip(params, "ab", strict=True):
            assert_array_equal(found.before[key][step], p.detach().numpy())
            p.grad = torch.from_numpy(gradients[key].copy())
        optimizer.step()
        for p, key in zip(params, "ab", strict=True):
            assert_array_equal(found.after[key][step], p.detach().numpy())
    for p, key in zip(params, "ab", strict=True):
        assert found.state[key].keys() == optimizer.state[p].keys()
        for slot, value in optimizer.state[p].items():
            assert_array_equal(found.state[key][slot], value.numpy() if isinstance(value, torch.Tensor) else value)


def test_weights_are_held_where_they_were() -> None:
    held = load(*SGD).run(Trial(**TWO, held=True))
    free = load(*SGD).run(Trial(**TWO))
    assert_array_equal(held.before["a"], np.stack(4 * [TWO["weights"]["a"]]))
    np.testing.assert_allclose(held.steps("a"), free.steps("a"), rtol=1e-12)  # the weights round otherwise


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bfloat16])
def test_dtypes_stay(dtype: Any) -> None:
    found = load(*SGD).run(Trial(**drawn(dtype, a=(3,))))
    assert found.before["a"].dtype == found.after["a"].dtype == found.state["a"]["momentum_buffer"].dtype == dtype
    assert found.gradients["a"].dtype == dtype  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (2, 3, 4)])
def test_shapes_stay(shape: tuple[int, ...]) -> None:
    found = load(*SGD).run(Trial(**drawn(a=shape)))
    assert found.after["a"].shape == (4, *shape)


def test_no_steps_come_to_nothing() -> None:
    found = load(*SGD).run(Trial({"a": np.ones((2, 3), np.float32)}, []))
    assert found.after["a"].shape == (0, 2, 3)
    assert found.after["a"].dtype == np.float32


def test_missing_gradients_are_none(seen: list[Any]) -> None:
    subject = of_class(Spy, "spy", {"lr": 0.1})
    seen.clear()
    found = subject.run(Trial(TWO["weights"], [{"a": np.ones(3)}, {"a": None, "b": np.ones((2, 2))}]))
    assert [grad is None for _, grad in seen] == [False, True, True, False]
    assert found.gradients["a"] is None
    assert not found.steps("b")[0].any()


def test_sparse_gradients_are_dense_ones_that_name_rows(seen: list[Any]) -> None:
    rows = Rows(np.array([2, 0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    subject = of_class(Spy, "spy", {"lr": 0.1})
    seen.clear()
    found = subject.run(Trial({"a": np.zeros((3, 2))}, [{"a": rows}]))
    assert seen[0][1].is_sparse
    assert_array_equal(found.steps("a")[0], 0.1 * np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]))
    left = found.gradients["a"]
    assert isinstance(left, Rows)
    assert_array_equal(left.rows, [0, 2])
    assert_array_equal(left.values, [[3.0, 4.0], [1.0, 2.0]])


def test_strided_tensors_are_not_contiguous(seen: list[Any]) -> None:
    trial = Trial(**drawn(a=(3,), b=(2, 3), c=(2, 3, 4)), strided=True, resume=Resume(2))
    subject = of_class(Spy, "spy", {"lr": 0.1})
    seen.clear()
    found = subject.run(trial)
    assert len(seen) == 12
    assert not any(p.is_contiguous() or grad.is_contiguous() for p, grad in seen)
    assert all(p.stride() != grad.stride() for p, grad in seen if p.ndim > 1)
    assert_same(found, load(*SGD[:1], {"lr": 0.1}).run(Trial(trial.weights, trial.gradients)))


def test_gradients_are_written_into_the_same_tensor_where_that_is_asked_for(seen: list[Any]) -> None:
    subject = of_class(Spy, "spy", {"lr": 0.1})
    for reused, count in ((False, 4), (True, 1)):
        seen.clear()
        subject.run(Trial(**drawn(a=(2,)), reused=reused))
        assert len({id(grad) for _, grad in seen}) == count
    trial = drawn(a=(2,))
    alias = of(Aliasing)
    assert not np.array_equal(alias.run(Trial(**trial)).after["a"], alias.run(Trial(**trial, reused=True)).after["a"])


def test_what_is_left_of_a_gradient_is_seen() -> None:
    class Writing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for p in self.param_groups[0]["params"]:
                p.grad.mul_(2)
            return super().step(closure)

    given = np.ones(2)
    assert_array_equal(of(Writing).run(Trial({"a": np.ones(2)}, [{"a": given}])).gradients["a"], [2, 2])
    assert_array_equal(given, [1, 1])


def test_groups_have_their_own_options() -> None:
    groups = (Group(("b",), {"lr": 0.0}), Group(("a",), {}))
    found = load(*SGD).run(Trial(**TWO, groups=groups, resume=Resume(2)))
    assert not found.steps("b").any()
    assert_array_equal(found.after["a"], load(*SGD).run(Trial(**TWO)).after["a"])


def test_the_state_in_lists_and_dicts_is_named_and_what_belongs_to_no_parameter_too() -> None:
    class Rich(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            p = self.param_groups[0]["params"][0]
            self.state[p].update(pair=[1, torch.ones(2)], table={"x": 3.5}, word="no array")
            self.state["all"]["count"] = 7  # type: ignore[index]
            return super().step(closure)

    state = of(Rich).run(Trial({"a": np.ones(2)}, [{"a": np.ones(2)}])).state
    assert {slot for slot in state["a"] if "momentum" not in slot} == {"pair/0", "pair/1", "table/x"}
    assert state[""]["all/count"] == 7


# Another instance.


@pytest.mark.parametrize("name", [SGD, ADAM])
@pytest.mark.parametrize("how", ["load", "copy", "pickle"])
@pytest.mark.parametrize("step", [0, 2, 4])
def test_another_instance_goes_on(name: tuple[str, dict[str, Any]], how: Any, step: int) -> None:
    subject = load(*name)
    whole, parts = (subject.run(Trial(**TWO, resume=resume)) for resume in (None, Resume(step, how, unharmed=True)))
    assert_same(whole, parts)
    for slot, value in whole.state["a"].items():
        assert_array_equal(parts.state["a"][slot], value, strict=True)


def test_what_a_copy_shares_shows() -> None:
    class Sharing(torch.optim.SGD):
        velocity = torch.zeros(2, 2)

        def step(self, closure: Any = None) -> Any:
            p = self.param_groups[0]["params"][0]
            p.grad = self.velocity.mul_(0.9).add_(p.grad).clone()
            return super().step(closure)

    def after(unharmed: bool) -> Any:
        Sharing.velocity.zero_()
        return subject.run(Trial(**drawn(np.float32, a=(2, 2)), resume=Resume(1, "copy", unharmed=unharmed))).after["a"]

    subject = of(Sharing)
    assert not np.array_equal(after(True), after(False))


def test_by_position_and_by_name() -> None:
    same = drawn(a=(3,), b=(3,))
    resume = Resume(2, order=("b", "a"))
    for name, options, follows in [(*SGD, False), ("polyak.torch:Momentum", SGD[1], True)]:
        subject = load(name, options)
        whole, parts = (subject.run(Trial(**same, resume=r)) for r in (None, resume))
        assert np.array_equal(whole.after["a"], parts.after["a"]) is follows


def test_names_are_given_only_where_they_are_taken() -> None:
    class Nameless(torch.optim.SGD):
        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__([p.view(-1) if p.ndim == 9 else p for p in params], lr=lr)

    assert_same(*(of(Nameless).run(Trial(**TWO, resume=resume)) for resume in (None, Resume(2))))


# Two at once.


def test_together_is_alone() -> None:
    one, two = Trial(**TWO), Trial(**drawn(a=(5,), steps=6), options={"lr": 0.01}, resume=Resume(6))
    for subject in (load(*SGD), of(Dice)):
        for both, alone in zip(subject.together(one, two), map(subject.run, (one, two)), strict=True):
            assert_same(both, alone)


def test_what_two_instances_share_shows() -> None:
    class Sharing(torch.optim.SGD):
        count = 0

        def step(self, closure: Any = None) -> Any:
            Sharing.count += 1
            self.param_groups[0]["lr"] = 0.1 / Sharing.count
            return super().step(closure)

    subject = of(Sharing)
    Sharing.count = 0
    alone = subject.run(Trial(**TWO))
    Sharing.count = 0
    assert not np.array_equal(subject.together(Trial(**TWO), Trial(**TWO))[0].after["a"], alone.after["a"])


# Changes.


def test_a_scheduler_makes_the_changes() -> None:
    scheduled = load(*SGD).scheduler()
    assert scheduled is not None
    changes = {1: {"lr": 0.05}, 3: {"lr": 0.2, "momentum": 0.5}}
    for resume in (None, Resume(2), Resume(2, "copy")):
        found, by_hand = (s.run(Trial(**TWO, changes=changes, resume=resume)) for s in (scheduled, load(*SGD)))
        np.testing.assert_allclose(found.after["a"], by_hand.after["a"], rtol=1e-14)  # 0.1 * (0.05 / 0.1) rounds


def test_a_scheduler_that_does_not_reach_the_step_shows() -> None:
    class Fixed(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            self.param_groups[0]["lr"] = 0.1
            return super().step(closure)

    scheduled = of(Fixed).scheduler()
    assert scheduled is not None
    trial = Trial(**TWO, changes={1: {"lr": 0.0}})
    assert scheduled.run(trial).steps("a")[1].any()


def test_what_is_in_no_group_cannot_be_changed() -> None:
    with pytest.raises(Refused, match="'mass' is in none of the optimizer's param_groups"):
        load(*SGD).run(Trial(**TWO, changes={1: {"mass": 2}}))


# What is known of a subject.


def test_implementations_are_those_that_run_here() -> None:
    assert load(*SGD).implementations == ("loop", "foreach", "fused", "compiled")
    assert "capturable" not in load(*ADAM).implementations  # which is for devices
    assert load("torch.optim:Muon", {}).implementations == ("loop", "compiled")
    subject = load(*ADAM)
    for name in subject.implementations:
        np.testing.assert_allclose(  # they round otherwise
            subject.run(Trial(**TWO, implementation=name)).after["a"],
            subject.run(Trial(**TWO)).after["a"],
            rtol=1e-12,
            atol=1e-5 if name == "compiled" else 0,  # a ten-thousandth of a step: Adam counts in float32 there
        )


def test_an_interrupt_in_a_compiled_step_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Any, graph: Any, inputs: Any) -> Any:  # noqa: ARG001  (TorchDynamo's)
        signal.raise_signal(signal.SIGINT)
        ended.append(True)
        return graph.forward

    ended: list[bool] = []
    monkeypatch.setattr("polyak.check.drivers.torch.compiled.Compiled._backend", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(*SGD).run(Trial(**TWO, implementation="compiled"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


def test_each_implementation_is_asked_for() -> None:
    asked: list[Any] = []

    class Noting(torch.optim.SGD):
        def __init__(self, params: Any, lr: float = 0.1, foreach: bool | None = None, fused: bool | None = None) -> None:
            asked.append((foreach, fused))
            super().__init__(params, lr=lr, foreach=foreach, fused=fused)

    subject = of(Noting)
    for name, expected in {"": (None, None), "loop": (False, False), "foreach": (True, False), "fused": (False, True)}.items():
        asked.clear()
        subject.run(Trial(**TWO, implementation=name))
        assert asked == [expected]


def test_defaults_are_all_options_with_their_values() -> None:
    subject = load(*SGD)
    assert subject.options == {"lr": 0.1, "momentum": 0.9}
    assert {"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False}.items() <= subject.defaults.items()
    assert (subject.rate, subject.double, subject.framework, subject.name) == ("lr", True, "torch", "torch.optim:SGD")
    assert "Nesterov" in subject.documentation


def test_what_draws_random_numbers_is_known() -> None:
    class Beginning(Dice):
        """Draws at the first step alone."""

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            if not self.state:
                super().step(closure)
                self.state["begun"] = True  # type: ignore[index]

    assert of(Dice).random
    assert of(Beginning).random
    assert not load(*SGD).random


def test_names_are_given_to_what_asks_for_them() -> None:
    options = {"lr": 0.1, "momentum": 0.9}
    for subject in (load("polyak.torch:Muon", options), of(lambda params: polyak.torch.Muon(params, **options))):
        trial = Trial(**drawn(a=(2, 2), b=(2, 2)))
        found = subject.run(trial)
        params = {name: torch.nn.Parameter(torch.from_numpy(w.copy())) for name, w in trial.weights.items()}
        optimizer = polyak.torch.Muon(params.items(), **options)
        for gradients in trial.gradients:
            for name, p in params.items():
                p.grad = torch.from_numpy(gradients[name].copy())
            optimizer.step()
        assert_array_equal(found.after["a"][-1], params["a"].detach().numpy())
        assert "[('a', a), ('b', b)]" in subject.script(trial)


def test_an_optimizer_that_refuses_float64_is_not_double() -> None:
    class Single(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if any(p.dtype != torch.float32 for p in self.param_groups[0]["params"]):
                raise RuntimeError("float32 alone")
            return super().step(closure)

    assert not of(Single).double


def test_a_closure_is_given_where_it_is_asked_for() -> None:
    subject = load("torch.optim:LBFGS", {"lr": 0.5, "max_iter": 1})
    assert subject.closure
    # Its first step is that of gradient descent, shortened by the sum of the gradient's absolute values where this is above 1.
    found = subject.run(Trial({"a": np.zeros(2)}, [{"a": np.array([3.0, 1.0])}]))
    np.testing.assert_allclose(found.steps("a")[0], np.array([3.0, 1.0]) / 4 * 0.5, rtol=1e-15)
    assert not load(*SGD).closure


class Modal(torch.optim.SGD):
    """Has a mode, which is not saved and not copied."""

    training = False

    def train(self) -> None:
        self.training = True

    def step(self, closure: Any = None) -> Any:
        assert self.training
        return super().step(closure)


@pytest.mark.parametrize("how", ["load", "copy", "pickle"])
def test_a_mode_for_training_is_switched_on(how: Any) -> None:
    assert_same(*(of(Modal).run(Trial(**TWO, resume=resume)) for resume in (None, Resume(2, how))))


# Factories.


def test_a_factory_that_calls_a_class_is_that_class_with_options() -> None:
    init = torch.optim.SGD.__init__
    subject = of(lambda params: torch.optim.SGD(params, 0.2, momentum=0.5))
    assert torch.optim.SGD.__init__ is init
    assert (subject.name, subject.options) == ("torch.optim.sgd:SGD", {"lr": 0.2, "momentum": 0.5})
    assert_same(
        subject.run(Trial(**TWO, options={"nesterov": True})),
        load("torch.optim:SGD", {"lr": 0.2, "momentum": 0.5, "nesterov": True}).run(Trial(**TWO)),
    )
    with pytest.raises(Refused, match="Nesterov momentum requires"):  # as the class itself says
        subject.run(Trial(**TWO, options={"nesterov": True, "momentum": 0}))


def test_a_class_without_its_own_constructor_is_as_it_was() -> None:
    of(lambda params: Spy(params, lr=0.1))
    assert "__init__" not in vars(Spy)


def halved(params: Any, lr: float = 0.2) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(params, lr=lr, momentum=0.5)
    optimizer.param_groups[0]["lr"] /= 2
    return optimizer


def test_a_factory_that_does_more_is_given_options_afterwards() -> None:
    subject = of(halved)
    assert_same(subject.run(Trial(**TWO)), load("torch.optim:SGD", {"lr": 0.1, "momentum": 0.5}).run(Trial(**TWO)))
    assert_same(subject.run(Trial(**TWO, options={"momentum": 0.9})), load(*SGD).run(Trial(**TWO)))
    groups = (Group(("a",), {"momentum": 0.0}), Group(("b",), {"lr": 0.1}))  # the first one's lr is halved again
    in_groups = [subject.run(Trial(**TWO, groups=groups, options={"momentum": 0.9})).after[name] for name in "ab"]
    assert_array_equal(in_groups[0], load("torch.optim:SGD", {"lr": 0.1}).run(Trial(**TWO)).after["a"])
    assert_array_equal(in_groups[1], load(*SGD).run(Trial(**TWO)).after["b"])
    with pytest.raises(Refused, match="mass is none of the optimizer's defaults"):
        subject.run(Trial(**TWO, options={"mass": 1}))


def test_a_factory_that_wraps_an_optimizer_is_run_as_it_is() -> None:
    class Slow(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer, factor: float) -> None:
            self.optimizer, self.factor = optimizer, factor
            super().__init__(optimizer.param_groups, optimizer.defaults)
            self.param_groups = optimizer.param_groups

        def step(self, closure: Any = None) -> Any:  # noqa: ARG002  (as torch has it)
            for p in self.param_groups[0]["params"]:
                p.grad.mul_(self.factor)
            return self.optimizer.step()

    subject = of_factory(lambda params: Slow(torch.optim.SGD(params, lr=1.0), 0.5))
    assert_array_equal(subject.run(Trial(**TWO)).after["a"], load("torch.optim:SGD", {"lr": 0.5}).run(Trial(**TWO)).after["a"])


# What a trial leaves as it was.


def state_of_the_process() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        repr(np.random.get_state()),  # noqa: NPY002  (the generator that others use)
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    ]


@pytest.mark.filterwarnings("error")
def test_nothing_of_the_process_changes(capsys: pytest.CaptureFixture[str]) -> None:
    before = state_of_the_process()
    subject = of(lambda params: Rude(params, lr=0.1))
    subject.run(Trial(**TWO))
    subject.together(Trial(**TWO), Trial(**TWO))
    with pytest.raises(Refused):
        subject.run(Trial(**TWO, options={"lr": -1}))
    assert state_of_the_process() == before
    assert capsys.readouterr() == ("", "")


def test_a_trial_comes_to_the_same_again() -> None:
    assert_same(*(of(Dice).run(Trial(**TWO)) for _ in range(2)))


def test_errors_are_those_of_the_optimizer() -> None:
    with pytest.raises(Refused, match=r"^ValueError: Invalid learning rate: -1$") as caught:
        load(*SGD).run(Trial(**TWO, options={"lr": -1}))
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_optimizer_that_exits_does_not_end_the_check() -> None:
    class Exiting(torch.optim.SGD):
        def __init__(self, params: Any, lr: float = 0.1, use_triton: bool = False) -> None:
            if use_triton:
                sys.exit()
            super().__init__(params, lr=lr)

    with pytest.raises(Refused, match="SystemExit"):
        of(Exiting).run(Trial(**TWO, options={"use_triton": True}))


def test_a_state_that_does_not_load_is_an_error_of_the_optimizer() -> None:
    class Lossy(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "param_groups": []}

    subject = of(Lossy)
    for step in (1, 4):
        with pytest.raises(Refused, match="different number of parameter groups"):
            subject.run(Trial(**TWO, resume=Resume(step)))


def test_our_own_optimizers_are_subjects_like_any_other() -> None:
    subject = of(lambda params: polyak.torch.Momentum(params, lr=0.1, momentum=0.9))
    np.testing.assert_allclose(subject.run(Trial(**TWO)).after["a"], load(*SGD).run(Trial(**TWO)).after["a"], rtol=1e-14)
