"""Instances that are used again, since to compile one takes longer than a trial: and what shows that one is as it was."""

import functools
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")

# What belongs to these is state that a driver puts back, or no state.
_FRAMEWORKS = {"jax", "jaxlib", "keras", "llvmlite", "numba", "numpy", "optax", "tensorflow", "torch"}
# Keras notes here, for each variable, whether it decays: it follows from the options.
_FOLLOWS = {"_exclude_from_weight_decay_cache"}

Value = None | bool | int | float | complex | str | bytes
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Pool(Generic[T]):
    """Things that lie ready, the one that was used last first.

    Args:
        most: How many.
    """

    def __init__(self, most: int = 48) -> None:
        self._ready: deque[tuple[Any, T]] = deque(maxlen=most)

    def take(self, key: object) -> T | None:
        """One of this key, which is out of the pool then."""
        for pair in self._ready:
            if pair[0] == key:
                self._ready.remove(pair)
                return pair[1]
        return None

    def give(self, key: object, thing: T) -> None:
        """Keep a thing until it is taken."""
        self._ready.appendleft((key, thing))


def written(options: Mapping[str, Any]) -> str | None:
    """Options as text, the same for the same options. None if there are some whose text does not tell them apart."""

    def plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return isinstance(value, _PLAIN)

    return repr(sorted(options.items())) if all(map(plain, options.values())) else None


def memory(thing: Any, apart: Collection[Any] = ()) -> dict[tuple[Any, ...], Value]:
    """The numbers and words that a Python object or function can remember, in itself and in what it holds, its closure too.

    A thing that computed on other numbers has another memory, unless it keeps them in a module or a generator.

    Args:
        thing: What is looked through.
        apart: Arrays that are not looked at.
    """
    seen = {id(x) for x in apart}
    found: dict[tuple[Any, ...], Value] = {}
    kept = []  # so that no id is given to a second object
    todo: list[tuple[tuple[Any, ...], Any]] = [((), thing)]
    while todo:
        path, x = todo.pop()
        if isinstance(x, _PLAIN):
            found[path] = x
        elif id(x) not in seen:
            seen.add(id(x))
            kept.append(x)
            if hasattr(x, "dtype") and hasattr(x, "shape"):
                found[path] = _bytes(x)
            else:
                todo += [((*path, key), part) for key, part in _parts(x, x is thing) if key not in _FOLLOWS]
    return found


def _bytes(x: Any) -> bytes | None:
    try:
        return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x).tobytes()
    except Exception:  # an array of a program that is being traced, say
        return None


def _parts(x: Any, first: bool) -> Iterator[tuple[Any, Any]]:
    """What an object holds; of those of a framework, only what the first one does."""
    match x:
        case Mapping():
            yield from ((key if isinstance(key, _PLAIN) else type(key).__name__, value) for key, value in list(x.items()))
        case list() | tuple() | set() | frozenset() | deque():
            yield from enumerate(x)
        case functools.partial():
            yield from [("func", x.func), ("args", x.args), ("keywords", x.keywords)]
        case types.MethodType():
            yield from [("self", x.__self__), ("func", x.__func__)]
        case types.FunctionType():
            yield "defaults", (x.__defaults__, x.__kwdefaults__)
            yield from zip(x.__code__.co_freevars, _contents(x), strict=True)
        case types.ModuleType():
            pass
        case type():
            if _is_own(x):
                yield from ((key, value) for key, value in vars(x).items() if not key.startswith("__"))
        case _ if first or _is_own(type(x)):
            yield from list(x.__dict__.items()) if hasattr(x, "__dict__") else ()
            yield from ((name, getattr(x, name, None)) for name in getattr(type(x), "__slots__", ()))
            yield from (("class", cls) for cls in type(x).__mro__[:-1])
        case _:
            pass


def _is_own(cls: type) -> bool:
    """Whether a class is not of a framework."""
    return cls.__module__.partition(".")[0] not in _FRAMEWORKS


def _contents(function: Callable[..., Any]) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None
