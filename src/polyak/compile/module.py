"""A generated module: its name, its compilation, its place in the cache."""

import hashlib
import inspect
import math
import platform
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core.errors import NumbaError, NumbaWarning
from numba.extending import register_jitable

from polyak import ops
from polyak.compile import primitives
from polyak.compile.cache import keep

Entry = Callable[..., None]


class Module:
    """A text of `polyak.compile.source`, compiled one entry at a time, when it is asked for."""

    def __init__(self, prefix: str, text: str, apply: Callable[..., Any] | None = None, **names: Any) -> None:
        """Take a text and the names that it leaves open.

        Args:
            prefix: What the module's name begins with.
            text: From `polyak.compile.source`.
            apply: The `Update.apply` that the text calls.
            names: Everything else that it calls.
        """
        functions = list(_reached(apply)) if apply else []
        for function in functions[1:]:
            _jitable(function)
        self._text = text
        self._names = {**names, "apply": primitives.compiled(apply)} if apply else names
        self._name, self._cacheable = _name(prefix, text, functions)

    def entry(self, which: str, signature: tuple[Any, ...]) -> Entry:
        """The compiled function `which` for arguments of these types, from the cache where that is possible."""
        if self._cacheable:
            try:
                return self._compile(which, signature, str(keep(f"{self._name}.py", self._text)))
            except NumbaError:
                raise
            except Exception:  # noqa: S110  (whatever is wrong with a cache must not stop a training)
                pass
        return self._compile(which, signature, None)

    def _compile(self, which: str, signature: tuple[Any, ...], path: str | None) -> Entry:
        module = types.ModuleType(f"polyak.compile.{self._name}")
        sys.modules[module.__name__] = module  # where Numba looks for the globals of a function that it loads
        module.__dict__.update(_decorators(cached=path is not None), **_COMMON, **self._names)
        exec(compile(self._text, path or f"<{module.__name__}>", "exec"), module.__dict__)  # noqa: S102  (our own text)
        function = getattr(module, which)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)  # of a TBB that is too old, which Numba then does without
            function.compile(signature)
        function.disable_compile()
        return function  # type: ignore[no-any-return]


_COMMON: Mapping[str, Any] = {
    "array_at": primitives.array_at,
    "add_product": primitives.add_product,
    "wide_vectors": primitives.wide_vectors,
    "prange": numba.prange,
    "float64": np.float64,
    "nan": math.nan,
}


def _decorators(*, cached: bool) -> dict[str, Callable[..., Any]]:
    """Only the entries are cached: their machine code contains that of the functions which they call."""
    return {
        "inner": primitives.compiled,
        "entry": lambda function: primitives.compiled(function, nogil=True, cache=cached),
        "parallel_entry": lambda function: primitives.compiled(function, nogil=True, cache=cached, parallel=True),
    }


@cache
def _jitable(function: types.FunctionType) -> None:
    """Let compiled code call a plain function; once, for a second registration would be ambiguous."""
    register_jitable(function)


def _reached(function: Callable[..., Any]) -> Iterator[types.FunctionType]:
    """A function and the plain functions that it calls, but for those of `polyak.ops`: see `primitives`."""
    seen: set[types.FunctionType] = set()
    waiting: list[Any] = [function]
    while waiting:
        f = waiting.pop()
        if isinstance(f, types.FunctionType) and f.__module__ != ops.__name__ and f not in seen:
            seen.add(f)
            yield f
            waiting += _surroundings(f)


def _surroundings(function: types.FunctionType) -> list[Any]:
    """What a function takes from around it: the values of its closure, and of the globals that it names."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return cells + [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]


def _name(prefix: str, text: str, functions: list[types.FunctionType]) -> tuple[str, bool]:
    """A name that changes with everything that the machine code depends on, and whether it can be told at all."""
    parts = [text, numba.__version__, llvmlite.__version__, np.__version__, platform.python_version()]
    parts += [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    cacheable = True
    try:
        parts += [inspect.getsource(ops), inspect.getsource(primitives), *map(inspect.getsource, functions)]
    except OSError:  # a function that was typed into a shell
        cacheable = False
    for function in functions:
        parts += [repr(value) for value in _surroundings(function) if isinstance(value, (int, float, tuple))]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{prefix}_{digest[:16]}", cacheable
