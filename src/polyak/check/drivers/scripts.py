"""What the scripts of all frameworks are written with."""

import keyword
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from polyak.check.trial import Array, Trial

# A run of as many equal steps is written as one.
_LONG = 3

# Lines that a program may have before it is written in a shorter form.
FEW = 5


def program_of(lines: Callable[[bool], Sequence[str]]) -> str:
    """A program: in its plain form, or in the short one where that has too many lines, of which some are joined if need be.

    Args:
        lines: Gives those of the short form, or else of the plain one.
    """
    few = lines(False)
    if len(few) > FEW:
        few = lines(True)
    return "\n".join(few if len(few) <= FEW else joined_simple(few)) + "\n"


class Loop:
    """What differs between the trials of a program goes by a name, which a loop gives its values one after the other.

    Args:
        taken: Names that stand for something else.
        turns: Whether the trials are two, of which each is taken alone, and then both in turns. They are generators then.

    Example:
        >>> loop = Loop()
        >>> body = [f"print({loop.of('lr', ['0.1', '0.2'])}, {loop.of('momentum', ['0.9', '0.9'])})"]
        >>> list(loop.around(body))
        ['for lr in 0.1, 0.2:', '    print(lr, 0.9)']
    """

    def __init__(self, taken: Collection[str] = (), *, turns: bool = False) -> None:
        self.taken, self.turns = taken, turns
        self.named: dict[str, Sequence[str]] = {}

    def of(self, name: str, expressions: Sequence[str]) -> str:
        """The expression that all trials have, or the name of those that they have."""
        if len(set(expressions)) == 1:
            return expressions[0]
        while name in self.taken or self.named.get(name, expressions) != expressions:
            name += "_"
        self.named[name] = expressions
        return name

    def around(self, body: Iterable[str]) -> Iterator[str]:
        """The loop with its body; the body alone where nothing differs."""
        body = list(body)  # only then all names are known
        names, values = ", ".join(self.named), [*zip(*self.named.values(), strict=True)]
        if self.turns:
            one, other = (f"({', '.join(each)},)" if each else "()" for each in values or ((), ()))
            taken = "print([*steps(*one)], [*steps(*other)], [*zip(steps(*one), steps(*other))])"
            return iter([f"def steps({names}):", *indented(body), f"one, other = {one}, {other}; {taken}"])
        if not self.named:
            return iter(body)
        each_value = [each[0] if len(each) == 1 else f"({', '.join(each)})" for each in values]
        return iter([f"for {names} in {', '.join(each_value)}:", *indented(body)])

    def shown(self, expressions: str) -> str:
        """The statement by which something is seen after each step."""
        return f"yield {expressions}" if self.turns else f"print({expressions})"

    def options(self, each: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Options; those that differ by their names, the default where a trial has none."""
        names = dict.fromkeys(name for options in each for name in options)
        values = {name: [options.get(name, defaults.get(name)) for options in each] for name in names}
        return {
            name: Name(self.of(name, expressions)) if len(set(expressions := [*map(written, x)])) > 1 else x[0]
            for name, x in values.items()
        }


class Name(str):
    """An expression in the place of a value."""

    __slots__ = ()

    __repr__ = str.__str__


def stacked(trials: Sequence[Trial], names: Sequence[str], begin: int, end: int) -> list[Array] | None:
    """The gradients of some parameters at some steps, as one array of each trial: (steps, [parameters,] *shape).

    None where they are no one array: some are missing or sparse, or of another shape.
    """
    shapes = {trial.weights[name].shape for trial in trials for name in names}
    if len(shapes) > 1:
        return None
    (shape,), several = shapes, [len(names)] if len(names) > 1 else []
    arrays = []
    for trial in trials:
        steps = [[step.get(name) for name in names] for step in trial.gradients[begin:end]]
        if not all(isinstance(g, np.ndarray) for step in steps for g in step):
            return None
        flat = np.array([g for step in steps for g in step], trial.weights[names[0]].dtype)
        arrays.append(flat.reshape(len(steps), *several, *shape))
    return arrays


def one_line(head: str, statements: Sequence[str]) -> Iterator[str]:
    """A loop over steps: in one line where its statements are simple ones.

    Example:
        >>> list(one_line("for g in gs:", ["take(g)", "print(w)"]))
        ['for g in gs: take(g); print(w)']
        >>> list(one_line("for g in gs:", ["if g: w = 0", "take(g)", "print(w)"]))
        ['for g in gs:', '    if g: w = 0', '    take(g); print(w)']
    """
    lines: list[str] = []
    for compound, run in groupby(statements, lambda statement: statement.startswith(("for ", "if "))):
        some = list(run)
        lines += some if compound else ["; ".join(some)]
    yield from [f"{head} {lines[0]}"] if len(lines) == 1 else [head, *indented(lines)]


def joined_simple(lines: Iterable[str]) -> Iterator[str]:
    """Simple statements that follow each other, in one line.

    Example:
        >>> list(joined_simple(["a = 1", "b = 2", "for i in a, b: print(i)", "c = 3"]))
        ['a = 1; b = 2', 'for i in a, b: print(i)', 'c = 3']
    """
    alone = ("import ", "from ", "for ", "if ", "def ", "class ", "@", "#", "return ")

    def kind(line: str) -> tuple[int, bool]:
        return len(line) - len(line.lstrip()), not line.lstrip().startswith(alone)

    for (indent, simple), run in groupby(lines, kind):
        lines = list(run)
        yield from [" " * indent + "; ".join(map(str.lstrip, lines))] if simple else lines


def numbers(array: Array) -> str:
    """An array as nested lists, such that reading them into its dtype gives the same numbers.

    Example:
        >>> numbers(np.array([[0.5, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        '[[0.5, 1.0]] + 3 * [[0.0, 0.0]]'
    """
    return joined(map(_nested, array)) if array.ndim else _nested(array)


def joined(items: Iterable[str]) -> str:
    """A list of what is written already, where many in a row that are equal stand once.

    Example:
        >>> joined(["1.0", "None", "None", "None"])
        '[1.0] + 3 * [None]'
    """
    parts: list[str] = []
    plain: list[str] = []
    for item, run in groupby(items):
        count = len(list(run))
        if count < _LONG:
            plain += count * [item]
            continue
        parts += [listed(plain)] if plain else []
        parts.append(f"{count} * [{item}]")
        plain = []
    parts += [listed(plain)] if plain or not parts else []
    return " + ".join(parts)


def listed(items: Iterable[str]) -> str:
    """A list of what is written already."""
    return f"[{', '.join(items)}]"


def all_zero(arrays: Sequence[Array]) -> bool:
    """Whether arrays have one shape and nothing but zeros, which are not negative."""
    return len({array.shape for array in arrays}) == 1 and not any(array.any() or np.signbit(array).any() for array in arrays)


def _nested(array: Any) -> str:
    if getattr(array, "ndim", 0):
        return listed([_nested(each) for each in array])
    return number(array)


def number(value: Any) -> str:
    """A number of any dtype in as few digits as say which one it is."""
    given = np.asarray(value)
    plain = given.item()
    if isinstance(plain, float) and not math.isfinite(plain):
        return f"float('{plain}')"
    if given.dtype == np.float32:
        return repr(float(str(given)))
    return repr(plain)


def arguments(options: Mapping[str, Any]) -> str:
    """The arguments of a call, each after a comma.

    Example:
        >>> f"SGD([a]{arguments({'lr': 0.1, 'nesterov': True})})"
        'SGD([a], lr=0.1, nesterov=True)'
    """
    return "".join(f", {name}={written(value)}" for name, value in options.items())


def items(options: Mapping[str, Any]) -> str:
    """Options as a dict.

    Example:
        >>> items({"lr": np.float64(0.1)})
        "{'lr': 0.1}"
    """
    return f"{{{', '.join(f'{name!r}: {written(value)}' for name, value in options.items())}}}"


def written(value: Any) -> str:
    """An option."""
    if isinstance(value, np.generic | float):
        return number(value)
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def variables(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """For each parameter a name that can stand in a program in which others are taken."""
    avoided = {*taken, *keyword.kwlist}
    return {name: name if name.isidentifier() and name not in avoided else f"p{number}" for number, name in enumerate(names)}


def called(name: str) -> str:
    """How what is at "module:name" is called where its module is imported; its own name where it cannot be."""
    module, _, path = name.partition(":")
    if not _can_be_imported(name):
        return path.rpartition(".")[2]
    return path if _is_hidden(module) else f"{module}.{path}"


def imports(modules: Sequence[str], name: str) -> Iterator[str]:
    """The lines that import modules and what is at "module:name".

    Example:
        >>> list(imports(["torch"], "torch.optim:SGD")), called("torch.optim:SGD")
        (['import torch'], 'torch.optim.SGD')
        >>> list(imports(["torch"], "mypackage.optim:MySGD"))
        ['import torch, mypackage.optim']
    """
    module, _, path = name.partition(":")
    if not _can_be_imported(name):
        yield f"# {path.rpartition('.')[2]}: yours, the one that was checked"
    elif _is_hidden(module):
        yield f"from {module} import {path.partition('.')[0]}"
    elif module.partition(".")[0] not in modules:  # a framework's own are there with it
        modules = [*modules, module]
    yield f"import {', '.join(modules)}"


def _can_be_imported(name: str) -> bool:
    """Whether it is not in a function, and was not typed in."""
    return "<" not in name and name.partition(":")[0] not in ("__main__", "builtins", "")


def _is_hidden(module: str) -> bool:
    """Whether something else has the name of a module in its package, often a function of that name in it."""
    root, *path = module.split(".")
    found: Any = sys.modules.get(root)
    for part in path:
        found = getattr(found, part, None)
    return found is not sys.modules.get(module)


def indented(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a block."""
    return (f"    {line}" for line in lines)
