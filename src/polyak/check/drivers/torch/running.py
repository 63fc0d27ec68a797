"""A PyTorch optimizer in use."""

import copy
import io
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from polyak.check.drivers import running
from polyak.check.drivers.running import quiet
from polyak.check.drivers.torch.compiled import COMPILED, Compiled
from polyak.check.drivers.torch.making import SWITCHES, Maker, Optimizer
from polyak.check.drivers.torch.tensors import array, arrays, as_left, gradient, tensor, weights
from polyak.check.trial import Array, Gradient, Refused, Resume, Trial

Parameters = dict[str, torch.nn.Parameter]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave nothing of the process changed: seeds, default dtype, threads; and nothing printed or warned of."""
    seeds = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  (the generator that others use)
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    with quiet():
        torch.set_num_threads(1)  # trials are small: threads would only wait for one another
        try:
            yield
        finally:
            torch.set_rng_state(seeds[0])
            np.random.set_state(seeds[1])  # noqa: NPY002  (see above)
            random.setstate(seeds[2])
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            torch.set_num_threads(threads)


@contextmanager
def asked(seed: int = 0) -> Iterator[None]:
    """What the optimizer itself does: its errors are `Refused`; its random numbers, if it draws some, those of the seed."""
    torch.default_generator.manual_seed(seed)  # that of the processor alone, which is far faster than torch.manual_seed
    np.random.seed(seed)  # noqa: NPY002  (the generator that others use)
    random.seed(seed)
    with running.asked():
        yield


def generators() -> tuple[Any, ...]:
    """The states of the generators of random numbers."""
    return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002  (see above)


@dataclass(frozen=True)
class Way:
    """How an optimizer is used.

    Attributes:
        maker: Makes it.
        scheduled: The option that a scheduler changes, or None.
        closure: Whether `step` is given the closure that computes loss and gradients.
        named: Whether it is given the names of its parameters.
        mode: Whether it has a mode for training, as those of schedulefree, which is switched on.
    """

    maker: Maker
    scheduled: str | None = None
    closure: bool = False
    named: bool = False
    mode: bool = False


class Instance:
    """See `polyak.check.drivers.running.Instance`."""

    def __init__(self, way: Way, trial: Trial, params: Parameters, optimizer: Optimizer, taken: int = 0) -> None:
        self.way, self.trial, self.params, self.optimizer, self.taken = way, trial, params, optimizer, taken
        with asked():
            if way.mode:
                optimizer.train()  # type: ignore[attr-defined]  # see Way
            self.scheduler = _scheduler(way, trial, optimizer, taken - 1)  # it puts something of its own around `step`
            self.compiled = Compiled(optimizer.step) if trial.implementation == COMPILED else None

    @property
    def compilations(self) -> int | None:
        """How often its step was compiled."""
        return self.compiled.compilations if self.compiled else None

    def weights(self) -> Mapping[str, Array]:
        """Copies of the weights."""
        return {name: array(p) for name, p in self.params.items()}

    def put(self, weights: Mapping[str, Array]) -> None:
        """Give the parameters other weights."""
        for name, p in self.params.items():
            p.data.copy_(tensor(weights[name]))

    def change(self, options: Mapping[str, Any]) -> None:
        """Give options other values, but for the one that the scheduler changes."""
        for name, value in options.items():
            if name == self.way.scheduled:
                continue
            groups = [group for group in self.optimizer.param_groups if name in group]
            if not groups:
                raise Refused(f"{name!r} is in none of the optimizer's param_groups, so it cannot be changed in use.")
            for group in groups:
                group[name] = value

    def step(self, gradients: Mapping[str, Gradient]) -> None:
        """Take a step."""

        def give() -> None:
            for name, p in self.params.items():
                new = gradient(gradients.get(name), p, self.trial.strided)
                if self.trial.reused and p.grad is not None and new is not None:
                    p.grad.copy_(new)
                else:
                    p.grad = new

        def closure() -> Tensor:
            """The loss that is linear in the weights: it has these gradients wherever it is taken."""
            give()
            products = [(p.detach() * p.grad).sum() for p in self.params.values() if p.grad is not None]
            return sum(products, torch.zeros(()))

        give()
        self.taken += 1
        step: Callable[..., Any] = self.compiled or self.optimizer.step
        with asked(self.taken):
            step(*([closure] if self.way.closure else []))
            if self.scheduler:
                self.scheduler.step()

    def again(self, resume: Resume) -> "Instance":
        """Another instance that goes on from here."""
        both = self.optimizer, self.params
        with asked():
            if resume.how == "copy":
                optimizer, params = copy.deepcopy(both)
            elif resume.how == "pickle":
                optimizer, params = pickle.loads(pickle.dumps(both))  # noqa: S301  (our own)
            else:
                optimizer, params = self._loaded(resume.order or tuple(self.params))
        return Instance(self.way, self.trial, params, optimizer, self.taken)

    def _loaded(self, order: tuple[str, ...]) -> tuple[Optimizer, Parameters]:
        """A new optimizer of new parameters, into which the state is loaded from the disk."""
        torch.save(self.optimizer.state_dict(), file := io.BytesIO())
        file.seek(0)
        params = parameters(self.weights(), self.trial)
        optimizer = made(self.way, self.trial, params, order)
        optimizer.load_state_dict(torch.load(file, weights_only=False))  # whatever it holds, it was saved a moment ago
        return optimizer, params

    def left(self) -> Mapping[str, Gradient]:
        """The gradients of the last step, as they are after it."""
        return {name: as_left(p.grad) for name, p in self.params.items()}

    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """What it remembers, by parameter and slot; under "" what it remembers beside its parameters."""
        names: dict[Tensor, str] = {p: name for name, p in self.params.items()}
        state: dict[str, dict[str, Array]] = {name: {} for name in self.params}
        with running.asked():
            for key, slots in self.optimizer.state.items():
                if isinstance(key, Tensor):
                    state.setdefault(names.get(key, ""), {}).update(arrays(slots))
                else:
                    state.setdefault("", {}).update(arrays({key: slots}))
        return state


def begun(way: Way, trial: Trial) -> Instance:
    """An optimizer with the first weights."""
    params = parameters(trial.weights, trial)
    with asked():
        optimizer = made(way, trial, params, tuple(params))
    return Instance(way, trial, params, optimizer)


def parameters(arrays: Mapping[str, Array], trial: Trial) -> Parameters:
    """New parameters of these weights."""
    return {name: weights(w, trial.strided) for name, w in arrays.items()}


def made(way: Way, trial: Trial, params: Parameters, order: tuple[str, ...]) -> Optimizer:
    """A new optimizer of parameters in this order."""

    def listed(names: tuple[str, ...]) -> list[Any]:
        of = {name: params[name] for name in order if name in names}
        return list(of.items()) if way.named else list(of.values())

    groups = [{"params": listed(group.names), **group.options} for group in trial.groups]
    return way.maker.make(groups or listed(order), {**trial.options, **switches(trial.implementation, way.maker.defaults)})


def switches(implementation: str, defaults: Mapping[str, Any]) -> dict[str, bool]:
    """The options by which an implementation is chosen."""
    chosen = implementation not in ("", COMPILED)
    return {name: name == implementation for name in SWITCHES if chosen and name in defaults}


def _scheduler(way: Way, trial: Trial, optimizer: Optimizer, last: int) -> LambdaLR | None:
    """What makes the changes of an option after the step of the number `last`."""
    if way.scheduled is None:
        return None
    changes = {step: new[way.scheduled] for step, new in trial.changes.items() if way.scheduled in new}
    first = [group.get("initial_lr", group[way.scheduled]) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [_factor(float(lr), changes) for lr in first], last)


def _factor(first: float, changes: Mapping[int, float]) -> Callable[[int], float]:
    """What LambdaLR multiplies the first learning rate by, from the number of a step."""
    return lambda step: next((changes[at] / first for at in sorted(changes, reverse=True) if at <= step), 1.0)
