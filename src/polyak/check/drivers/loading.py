"""From what people name or hand over to the subject that is checked: the type of what is found says the framework."""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from polyak.check.drivers.running import asked
from polyak.check.trial import Refused, Subject
from polyak.train.tasks.code import imported
from polyak.train.tasks.task import TaskError
from polyak.train.words import unknown

_KINDS = "a subclass of torch.optim.Optimizer, a Keras optimizer, or an optax function that returns a GradientTransformation"


def load(name: str, options: Mapping[str, Any]) -> Subject:
    """The optimizer of a name, as a subject.

    Args:
        name: "module:name", as "torch.optim:SGD". The present folder is looked through first.
        options: Of its constructor. A list stands for a tuple where the default is a tuple, since on a command line both are
            written alike.

    Raises:
        ValueError: There is no such module or name, it is no optimizer, or the options do not fit it.

    Example:
        >>> load("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9}).framework
        'torch'
    """
    found = _found(name)
    optimizer = _is_torch(found) or _is_keras(found) or _is_optax(found)
    if not (optimizer or (callable(found) and not inspect.isclass(found))):
        raise ValueError(f"{name} is {_what(found)}; {_KINDS} is needed.")
    if options and not callable(found):
        raise ValueError(f"{name} is {_what(found)}, which has its options already; it takes none.")
    given = _fitting(found, name, options) if callable(found) else {}
    try:
        return _of(found, name, given)
    except (Refused, TypeError) as error:
        complaint = f"{name} with {_written(given)} cannot be checked: {error}"
        for option in options.keys() - _parameters(found).keys():  # taken by **kwargs, and perhaps refused there
            complaint += f" {unknown(f'It names no option {option!r}', option, _parameters(found))}"
        raise ValueError(complaint) from error


def of(optimizer: Any) -> Subject:
    """An optimizer that is at hand, as a subject.

    Args:
        optimizer: A function of the parameters that returns a torch optimizer; a function of nothing that returns a Keras
            optimizer or a GradientTransformation; or a class or an object of these kinds. Of an object others are made that are
            like it.

    Raises:
        TypeError: It is none of these.
        ValueError: It cannot be made, or cannot take a step.

    Example:
        >>> import torch
        >>> of(lambda params: torch.optim.SGD(params, lr=0.1)).name
        'torch.optim.sgd:SGD'
    """
    try:
        return _of(optimizer, None, {})
    except Refused as refused:
        raise ValueError(f"{_what(optimizer)} cannot be checked: {refused}") from refused


def _of(found: Any, name: str | None, options: Mapping[str, Any]) -> Subject:
    """The subject; its framework by the type of what was found or of what it makes."""
    cls: Any = found if inspect.isclass(found) else type(found)
    where = name or f"{cls.__module__}:{cls.__qualname__}"
    subject: Subject
    if _is_torch(found):
        from polyak.check.drivers import torch

        if found is not cls:
            options = {key: found.defaults[key] for key in inspect.signature(cls).parameters if key in found.defaults}
        subject = torch.of_class(cls, where, options)
    elif _is_keras(found):
        from polyak.check.drivers import keras

        made = lambda: cls.from_config(found.get_config())  # noqa: E731  (one of two ways)
        subject = keras.of_class(cls, where, options) if found is cls else keras.of_factory(made)
    elif _is_optax(found):
        from polyak.check.drivers import jax

        subject = jax.of_factory(lambda: found)
    elif callable(found) and found is not cls:
        subject = _of_function(found, name, options)
    else:
        raise TypeError(f"{_what(found)} is no optimizer; {_KINDS} is needed, or a function that makes one.")
    return subject


def _of_function(function: Callable[..., Any], name: str | None, options: Mapping[str, Any]) -> Subject:
    """The subject that a function makes: from parameters, as PyTorch's do, or from nothing but its options."""
    missing = [p for p in _required(function) if p not in options]
    subject: Subject
    if len(missing) == 1 and (name is None or missing[0].startswith("param")):
        from polyak.check.drivers import torch

        return torch.of_factory(partial(function, **options), options)
    if missing:
        raise TypeError(_needs(missing))
    with asked():
        made = function(**options)
    if _is_keras(made):
        from polyak.check.drivers import keras

        subject = keras.of_factory(lambda: function(**options), name)
    elif _is_optax(made):
        from polyak.check.drivers import jax

        subject = jax.of_function(function, name, options) if name else jax.of_factory(function)
    else:
        raise TypeError(f"{name or _what(function)} returned {_what(made)}; {_KINDS} is needed.")
    return subject


def _found(name: str) -> Any:
    """What is under a name."""
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise ValueError(f"{name!r} names no optimizer; it is written module:name, as in torch.optim:SGD.")
    try:
        found = imported(module)
    except TaskError as error:
        raise ValueError(str(error).removesuffix(" (--debug shows the traceback)")) from error  # an option of polyak train
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(unknown(f"{module} has no {path!r}", part, _optimizers(found)))
        found = getattr(found, part)
    return found


def _optimizers(module: Any) -> list[str]:
    """The names in a module that may be meant: its optimizers or, if none are known by their type, its functions."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    classes = [key for key, x in public.items() if inspect.isclass(x) and (_is_torch(x) or _is_keras(x)) and key != "Optimizer"]
    functions = {key: x for key, x in public.items() if inspect.isfunction(x)}
    made = [key for key, x in functions.items() if "GradientTransformation" in str(inspect.signature(x).return_annotation)]
    return sorted(classes or made or functions, key=str.lower)


def _fitting(found: Any, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the constructor takes them."""
    parameters = _parameters(found)
    any_name = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values())
    for option in options:
        if option not in parameters and not any_name:
            raise ValueError(unknown(f"{name} has no option {option!r}", option, parameters))
    if inspect.isclass(found) and (missing := [each for each in _required(found) if each not in options]):
        raise ValueError(f"{name} {_needs(missing)}")
    return {
        option: tuple(value) if isinstance(value, list) and _takes_tuple(parameters.get(option)) else value
        for option, value in options.items()
    }


def _takes_tuple(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and isinstance(parameter.default, tuple)


def _parameters(found: Any) -> dict[str, inspect.Parameter]:
    """What can be set: the arguments, but for the parameters of a torch optimizer."""
    arguments = list(inspect.signature(found).parameters.items())
    named = [(name, p) for name, p in arguments if p.kind is not p.VAR_KEYWORD]
    return dict(named[1:] if inspect.isclass(found) and _is_torch(found) else named)


def _required(found: Any) -> list[str]:
    """Those that have no default."""
    return [name for name, p in _parameters(found).items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]


def _needs(missing: list[str]) -> str:
    return (
        f"needs {' and '.join(missing)}, which {'has' if len(missing) == 1 else 'have'} no default: --set {missing[0]}=... or, "
        "from Python, a function that makes the optimizer."
    )


def _is(thing: Any, module: str, path: str) -> bool:
    """Whether it is of a class, or a subclass of it. A framework that nobody imported has no optimizers here."""
    cls: Any = sys.modules.get(module)
    for part in path.split("."):
        cls = getattr(cls, part, None)
    if cls is None:
        return False
    return issubclass(thing, cls) if inspect.isclass(thing) else isinstance(thing, cls)


def _is_torch(thing: Any) -> bool:
    return _is(thing, "torch", "optim.Optimizer")


def _is_keras(thing: Any) -> bool:
    return _is(thing, "keras", "optimizers.Optimizer")


def _is_optax(thing: Any) -> bool:
    return _is(thing, "optax", "GradientTransformation")


def _what(thing: Any) -> str:
    if inspect.isclass(thing):
        return f"the class {thing.__module__}.{thing.__qualname__}"
    if inspect.ismodule(thing):
        return f"the module {thing.__name__}"
    if inspect.isfunction(thing):
        return f"the function {thing.__module__}.{thing.__qualname__}"
    return f"an object of type {type(thing).__module__}.{type(thing).__qualname__}"


def _written(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "its defaults"
