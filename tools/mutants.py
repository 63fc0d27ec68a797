"""Break the rules on purpose and see whether the tests notice: `make mutants`, or `python tools/mutants.py rules/muon.py`.

Each mutant of the files below has one change: a sign flipped, a coefficient or an operand dropped, operands swapped, a
condition negated. The tests of the file run on each; a mutant that passes them all is printed, and the exit status is then 1.
One with which they do not end is noticed too, and printed as such.

The known tools (cosmic-ray, mutmut) change operators, literals and whole arguments, and neither drops one factor of a product
nor swaps the arguments of `fma`, which is where these files keep their arithmetic. Hence this short one.
"""

import ast
import copy
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from forked import Place, Result, Task, prepare, run

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src/polyak"
_OF_ELEMENTS = ("tests/test_ops.py", "tests/test_update.py", "tests/test_rules.py")
_OF_MUON = ("tests/test_muon.py", "tests/test_muon_traced.py")

# Each file with the tests that run on its mutants.
FILES = {
    "ops.py": _OF_ELEMENTS,
    "update.py": _OF_ELEMENTS,
    "matrices.py": ("tests/test_matrices.py", "tests/test_orthogonal.py"),
    "rules/descent.py": _OF_ELEMENTS,
    "rules/heavy_ball.py": _OF_ELEMENTS,
    "rules/qhm.py": _OF_ELEMENTS,
    "rules/aggmo.py": _OF_ELEMENTS,
    "rules/signum.py": _OF_ELEMENTS,
    "rules/lion.py": _OF_ELEMENTS,
    "rules/lars.py": _OF_ELEMENTS,
    "rules/schedule_free.py": _OF_ELEMENTS,
    "rules/directed.py": _OF_MUON,
    "rules/muon.py": _OF_MUON,
    "rules/orthogonal.py": ("tests/test_orthogonal.py", "tests/test_muon.py"),
}

# Mutants that are the same function but for rounding: `about`, in `update.decoupled`, is put on and taken off again; and in
# `update._apart` a sign times a number is on the same side of 0 as a sign times a sign, and its arguments commute. Polynomials
# of one matrix commute. In `orthogonal.band` the root is taken with both signs.
EQUIVALENT = {
    "sign(a)  ->  a",
    "sign(b)  ->  b",
    "_apart(s, g)  ->  _apart(g, s)",
    "_apart(s, w)  ->  _apart(w, s)",
    "w + (c + c) * w - w  ->  w - (w + (c + c) * w)",
    "w + (c + c) * w  ->  w",
    "c + c  ->  c - c",
    "c + c  ->  c",
    "add_product(b, A, c * A, A)  ->  add_product(b, A, A, c * A)",
    "add_product(a, Q, B, Q)  ->  add_product(a, Q, Q, B)",
    "add_product(a, A, B, A)  ->  add_product(a, A, A, B)",
    "add_product(a, PA, PA, B)  ->  add_product(a, PA, B, PA)",
    "-3 * b + sign * root  ->  -3 * b - sign * root",
}

FLIPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def replacements(node: ast.AST) -> Iterator[ast.expr]:
    """What can stand in an expression's place by mistake."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in FLIPPED:
            yield ast.BinOp(left, FLIPPED[type(op)](), right)
            yield left
            yield right
            if isinstance(op, ast.Sub | ast.Div):
                yield ast.BinOp(right, op, left)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Call(ast.Name(), [only], []):
            yield only
        case ast.Call(ast.Name(), args, []):
            for i, j in combinations(range(len(args)), 2):
                swapped = list(args)
                swapped[i], swapped[j] = args[j], args[i]
                yield ast.Call(node.func, swapped, [])
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from values
        case ast.Compare(left, [op], [right]):
            yield ast.UnaryOp(ast.Not(), copy.deepcopy(node))
        case ast.Attribute(ast.Name("h"), name):  # one hyperparameter in place of another
            for other in {"learning_rate", "momentum", "weight_decay"} - {name}:
                yield ast.Attribute(ast.Name("h", ast.Load()), other, ast.Load())


# In whatever order these two arguments are: fma(a, b, c) = fma(b, a, c), bit for bit, and c z + x y is z c + x y.
SAME = {"fma": (0, 1), "max": (0, 1), "min": (0, 1), "add_product": (0, 1)}


def equivalent(node: ast.AST, new: ast.expr) -> bool:
    """Whether the mutant is the same function, or no change at all."""
    if ast.dump(node) == ast.dump(new):
        return True
    if isinstance(node, ast.Call) and isinstance(new, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAME:
        i, j = SAME[node.func.id]
        swapped = list(node.args)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        return [ast.dump(a) for a in swapped] == [ast.dump(a) for a in new.args]
    return False


class Replace(ast.NodeTransformer):
    """Puts one expression in the place of another."""

    def __init__(self, target: ast.AST, new: ast.expr) -> None:
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, or what replaces it."""
        return ast.copy_location(self.new, node) if node is self.target else self.generic_visit(node)


def mutants(file: str) -> Iterator[tuple[str, str]]:
    """Each mutant of a file: what was changed where, and its source."""
    source = (PACKAGE / file).read_text()
    for position, node in enumerate(ast.walk(ast.parse(source))):
        for new in replacements(node):
            change = f"{ast.unparse(node)}  ->  {ast.unparse(new)}"
            if equivalent(node, new) or change in EQUIVALENT:
                continue
            tree = ast.parse(source)
            target = list(ast.walk(tree))[position]
            mutant = ast.unparse(ast.fix_missing_locations(Replace(target, new).visit(tree)))
            yield f"{file}:{node.lineno}: {change}", mutant  # type: ignore[attr-defined]


def limits(files: list[str], place: Place) -> dict[tuple[str, ...], int]:
    """How many seconds of processors each tuple of tests may take: several times what it takes without a mutant."""
    first = {FILES[file]: file for file in files}
    unchanged = [Task(file, (PACKAGE / file).read_text(), tests, limit=24 * 3600) for tests, file in first.items()]
    found = {}

    def tell(task: Task, result: Result) -> None:
        tests = " ".join(task.tests)
        if result.end != "SURVIVED":
            sys.exit(f"{tests} fail on the code as it is; mend that first.\n{result.output}")
        print(f"{result.seconds:.1f} s of a processor: {tests}", flush=True)
        found[task.tests] = 10 + 3 * int(result.seconds)

    run(unchanged, [place], tell)
    return found


def main() -> None:
    """Run every mutant, or those of the files that are named, and print the survivors."""
    files = sys.argv[1:] or list(FILES)
    if unknown := set(files) - FILES.keys():
        sys.exit(f"No tests are known for {', '.join(sorted(unknown))}. The files are {', '.join(FILES)}.")
    os.chdir(ROOT)
    prepare()
    ended: dict[str, list[str]] = {"killed": [], "no end": [], "SURVIVED": []}

    def tell(task: Task, result: Result) -> None:
        ended[result.end].append(task.what)
        print(f"{result.end:8} {result.seconds:5.1f} s  {task.what}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        places = [Place(PACKAGE, Path(folder, str(i))) for i in range(os.cpu_count() or 1)]
        most = limits(files, places[0])
        run([Task(f, source, FILES[f], most[FILES[f]], what) for f in files for what, source in mutants(f)], places, tell)
    print(f"\n{sum(map(len, ended.values()))} mutants")
    for end in ("no end", "SURVIVED"):
        print(f"{len(ended[end])} {end}", *ended[end], sep="\n  ")
    sys.exit(1 if ended["SURVIVED"] else 0)


if __name__ == "__main__":
    main()
