"""The settings of an optimizer as people write them: `--set NAME=VALUE`, and calls such as `cosine(0.1, warmup=100)`.

A value is a number, true or false, a word, a list, a table, or a call. Nothing that is written is ever run: `ast` takes it
apart, and a call stays the text that it is until `polyak.train.schedules` makes what it names.
"""

import ast
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

_WORDS: dict[str, Any] = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan")}


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """The settings that a list of NAME=VALUE gives.

    Raises:
        ValueError: A text of another form, a value that cannot be read, or a name that comes twice.

    Example:
        >>> settings(["momentum=0.95", "velocity=step", "learning_rate=cosine(0.1, warmup=100)"])
        {'momentum': 0.95, 'velocity': 'step', 'learning_rate': 'cosine(0.1, warmup=100)'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ValueError(f"--set takes NAME=VALUE, such as --set momentum=0.95; got {text!r}.")
        if name in found:
            raise ValueError(f"--set {name} was given twice: {found[name]!r} and {written!r}. Leave one of them out.")
        try:
            found[name] = value(written)
        except ValueError as error:
            raise ValueError(f"--set {text}: {error}") from None
    return found


def value(text: str) -> Any:
    """The value that a text stands for: a number, true or false, a word, a list, a table, or the text of a call.

    Raises:
        ValueError: None of these.

    Example:
        >>> value("{'bias|norm': {'weight_decay': 0}}")
        {'bias|norm': {'weight_decay': 0}}
    """
    text = text.strip()
    if not text:
        raise ValueError("there is no value after the equals sign.")
    try:
        node = _parsed(text)
    except SyntaxError as error:
        if set(text) & set("()[]{}'\""):
            raise ValueError(f"{error.msg}; a value is a number, true, false, a word, a list, a table or a call.") from None
        return text  # a word that Python would not take for one
    return _plain(node) if not isinstance(node, ast.BinOp | ast.Attribute) else text


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of "\\d" in a pattern, which is not to be Python
        return ast.parse(text, mode="eval").body


def _plain(node: ast.expr) -> Any:
    """What TOML can hold of a piece of Python."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.Name(id=word):
            return _WORDS.get(word.lower(), word) if word != "None" else word
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _plain(operand)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_plain(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            names = [_plain(key) for key in keys if key is not None]
            if len(names) == len(values) and all(isinstance(name, str) for name in names):
                return {name: _plain(x) for name, x in zip(names, values, strict=True)}
        case ast.Call():
            return ast.unparse(node)
        case ast.Constant(value=None):
            raise ValueError("None is the same as to leave it out: leave it out.")
    raise ValueError(f"{ast.unparse(node)!r} is no number, true, false, word, list, table or call.")


class Call(NamedTuple):
    """A call as it was written.

    Attributes:
        name: What is called.
        args: Its arguments by position; a number of epochs is still to be turned into steps.
        kwargs: Those by name.
        text: All of it.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    text: str

    @property
    def counts_epochs(self) -> bool:
        """Whether an argument is a number of epochs."""
        return any(_has_epochs(x) for x in (*self.args, *self.kwargs.values()))

    def in_steps(self, steps_per_epoch: int) -> "Call":
        """The call with steps in the place of epochs."""
        args = tuple(_in_steps(x, steps_per_epoch) for x in self.args)
        return self._replace(args=args, kwargs={name: _in_steps(x, steps_per_epoch) for name, x in self.kwargs.items()})


class Epochs(NamedTuple):
    """A number of steps, written as a number of epochs."""

    number: float


def call(text: str) -> Call:
    """A call, taken apart.

    Its arguments are numbers, words, lists and tables, and `epoch` with a factor: `warmup=2 * epoch`.

    Raises:
        ValueError: It is no call, or an argument is another thing.

    Example:
        >>> call("cosine(0.1, warmup=2 * epoch)").kwargs
        {'warmup': Epochs(number=2)}
    """
    try:
        node = _parsed(text.strip())
    except SyntaxError as error:
        raise ValueError(f"{text!r} cannot be read: {error.msg}.") from None
    if not isinstance(node, ast.Call):
        raise ValueError(f"{text!r} is no call such as cosine(0.1, warmup=100).")
    if not isinstance(node.func, ast.Name):
        raise ValueError(f"{text!r} calls {ast.unparse(node.func)!r}, where the name alone stands: cosine(0.1).")
    kwargs: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(f"{text!r}: arguments are written one by one, without **.")
        if keyword.arg in kwargs:
            raise ValueError(f"{text!r} has {keyword.arg} twice.")
        kwargs[keyword.arg] = _argument(keyword.value)
    return Call(node.func.id, tuple(map(_argument, node.args)), kwargs, ast.unparse(node))


def is_call(written: Any) -> TypeGuard[str]:
    """Whether a value is the text of a call."""
    return isinstance(written, str) and written.rstrip().endswith(")")


def _argument(node: ast.expr) -> Any:
    match node:
        case ast.Name(id="epoch"):
            return Epochs(1)
        case ast.BinOp(op=ast.Mult(), left=left, right=ast.Name(id="epoch")):
            factor = left
        case ast.BinOp(op=ast.Mult(), left=ast.Name(id="epoch"), right=right):
            factor = right
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_argument(element) for element in elements]
        case _:
            return _plain(node)
    number = _plain(factor)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{ast.unparse(node)!r} is no number of epochs such as 2 * epoch.")
    return Epochs(number)


def _has_epochs(x: Any) -> bool:
    return isinstance(x, Epochs) or (isinstance(x, list) and any(map(_has_epochs, x)))


def _in_steps(x: Any, steps_per_epoch: int) -> Any:
    if isinstance(x, Epochs):
        return round(x.number * steps_per_epoch)
    return [_in_steps(each, steps_per_epoch) for each in x] if isinstance(x, list) else x


def plain(written: Any) -> Any:
    """A value with nothing in it but what TOML gives back: tuples become lists, mappings dicts.

    Raises:
        TypeError: TOML cannot hold it.
    """
    match written:
        case bool() | int() | float() | str():
            return written
        case list() | tuple():
            return [plain(x) for x in written]
        case Mapping() if all(isinstance(name, str) for name in written):
            return {name: plain(x) for name, x in written.items()}
    raise TypeError(f"{written!r} is no number, true, false, text, list or table.")
