"""Break the rules on purpose and see whether the tests notice: `make mutants`, or `python tools/mutants.py rules/muon.py`.

Each mutant of the files below has one change: a sign flipped, a coefficient or an operand dropped, operands swapped, a
condition negated. The tests of the file run on each; a mutant that passes them all is printed, and the exit status is then 1.
One with which they do not end is noticed too.

The known tools (cosmic-ray, mutmut) change operators, literals and whole arguments, and neither drops one factor of a product
nor swaps the arguments of `fma`, which is where these files keep their arithmetic. Hence this short one.
"""

import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_OF_ELEMENTS = ("tests/test_ops.py", "tests/test_rules.py", "tests/test_update.py")
_OF_MATRICES = ("tests/test_orthogonal.py", "tests/test_muon.py")

# Each file with the tests that run on its mutants.
FILES = {
    "ops.py": _OF_ELEMENTS,
    "update.py": _OF_ELEMENTS,
    "matrices.py": (*_OF_MATRICES, "tests/test_muon_tensorflow.py"),
    "rules/descent.py": _OF_ELEMENTS,
    "rules/heavy_ball.py": _OF_ELEMENTS,
    "rules/qhm.py": _OF_ELEMENTS,
    "rules/aggmo.py": _OF_ELEMENTS,
    "rules/signum.py": _OF_ELEMENTS,
    "rules/lion.py": _OF_ELEMENTS,
    "rules/lars.py": _OF_ELEMENTS,
    "rules/schedule_free.py": _OF_ELEMENTS,
    "rules/directed.py": _OF_MATRICES,
    "rules/muon.py": _OF_MATRICES,
    "rules/orthogonal.py": _OF_MATRICES,
}

# Mutants that are the same function but for rounding: `about`, in `update.decoupled`, is put on and taken off again; and in
# `update._apart` a sign times a number is on the same side of 0 as a sign times a sign, and its arguments commute. Polynomials
# of one matrix commute. Only TensorFlow has shapes that are no tuples.
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
    "before - error  ->  error - before",
    "tuple(direction.shape)  ->  direction.shape",
    "tuple(G.shape)  ->  G.shape",
    "tuple(shape)  ->  shape",
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
    source = (ROOT / "src/polyak" / file).read_text()
    count = len(list(ast.walk(ast.parse(source))))
    for position in range(count):
        for which in range(20):
            tree = ast.parse(source)
            node = list(ast.walk(tree))[position]
            choices = [new for new in replacements(node) if not equivalent(node, new)]
            if which >= len(choices):
                break
            change = f"{ast.unparse(node)}  ->  {ast.unparse(choices[which])}"
            if change in EQUIVALENT:
                continue
            mutant = ast.unparse(ast.fix_missing_locations(Replace(node, choices[which]).visit(tree)))
            yield f"{file}:{node.lineno}: {change}", mutant  # type: ignore[attr-defined]


def survives(source: str, file: str, package: Path, limit: float | None) -> bool:
    """Whether the tests pass, within so many seconds, with the mutant in a copy of the package."""
    (package / "polyak" / file).write_text(source)
    # The tests import the copy: PYTHONPATH comes before an installed package. No bytecode, which is cached by seconds.
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick"]
    options: Any = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": limit}
    try:
        run = subprocess.run([*command, *FILES[file]], **options, check=False)
    except subprocess.TimeoutExpired:
        return False
    if run.returncode not in (0, 1, 2):  # passed, failed, or failed at import
        sys.exit(f"pytest did not run (exit {run.returncode}):\n{run.stdout}{run.stderr}")
    return run.returncode == 0


def main() -> None:
    """Run every mutant, or those of the files that are named, and print the survivors."""
    files = sys.argv[1:] or list(FILES)
    if unknown := set(files) - FILES.keys():
        sys.exit(f"No tests are known for {', '.join(sorted(unknown))}. The files are {', '.join(FILES)}.")
    work = [(file, what, source) for file in files for what, source in mutants(file)]
    with tempfile.TemporaryDirectory() as folder:
        free: SimpleQueue[Path] = SimpleQueue()  # copies of the package, one for each mutant that runs at a time
        for i in range(os.cpu_count() or 1):
            package = Path(folder, str(i))
            shutil.copytree(ROOT / "src/polyak", package / "polyak", ignore=shutil.ignore_patterns("__pycache__"))
            free.put(package)

        def run(item: tuple[str, str, str]) -> bool:
            file, what, source = item
            package = free.get()
            try:
                alive = survives(source, file, package, limits[FILES[file]])
            finally:
                shutil.copy(ROOT / "src/polyak" / file, package / "polyak" / file)
                free.put(package)
            print(f"{'SURVIVED' if alive else 'killed  '}  {what}", flush=True)
            return alive

        limits = {}
        for file in {FILES[file]: file for file in files}.values():
            began = time.monotonic()
            if not survives((ROOT / "src/polyak" / file).read_text(), file, Path(folder, "0"), None):
                sys.exit(f"{' '.join(FILES[file])} fail on the code as it is; mend that first.")
            limits[FILES[file]] = 4 * (time.monotonic() - began)  # other mutants run beside it
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            alive = list(pool.map(run, work))
    survivors = [what for (_, what, _), a in zip(work, alive, strict=True) if a]
    print(f"\n{len(work)} mutants, {len(survivors)} survived")
    for what in survivors:
        print(f"  {what}")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
