"""Tests of changed copies of the package, each in a fork of a process that has imported the frameworks already.

The frameworks take longer to import than most mutants to be noticed. Nothing else of them may be used before the fork: the
threads that they start are missing in it.
"""

import gc
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

# What the tests import, but for polyak; the underlined one by `torch.testing` and by the counter of operations.
IMPORTED = ("numpy", "torch._dynamo", "torch.distributed.tensor", "jax", "optax", "tensorflow", "hypothesis", "pytest")

# Nothing that takes time and only makes a failure easier to read; of plugins the one that is needed.
PYTEST = ["-x", "-q", "--tb=no", "--assert=plain", "-pno:cacheprovider", "-phypothesispytest", "--hypothesis-profile=quick"]


def prepare() -> None:
    """Import what the tests import."""
    os.environ["OMP_NUM_THREADS"] = "1"  # there are as many forks as processors
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.dont_write_bytecode = True  # which is told from that of another mutant by the second and the size alone
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # a collection would copy all of their memory into each fork


@dataclass(frozen=True)
class Task:
    """Tests to run with this source of a file of the package, within so many seconds of processors."""

    file: str
    source: str
    tests: tuple[str, ...]
    limit: int
    what: str = "no change"


@dataclass(frozen=True)
class Result:
    """How they ended, in a word, after how many seconds of processors, and what they printed."""

    end: str
    seconds: float
    output: str


class Place:
    """A copy of the package, for one task at a time."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.original, self.package, self.output = package, folder / package.name, folder / "output"
        shutil.copytree(package, self.package, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self, task: Task) -> int:
        """Start the tests, in a process of their own."""
        self.task = task
        (self.package / task.file).write_text(task.source)
        process = os.fork()
        if not process:
            os._exit(self._test())
        return process

    def end(self, status: int, usage: resource.struct_rusage) -> Result:
        """What became of them. The file is then as it was."""
        shutil.copy(self.original / self.task.file, self.package / self.task.file)
        code, output = os.waitstatus_to_exitcode(status), self.output.read_text(errors="replace")
        words = {0: "SURVIVED", 1: "killed", 2: "killed", -signal.SIGXCPU: "no end"}  # 2: an error at import
        if code not in words:
            sys.exit(f"The tests did not run (exit {code}):\n{output}")
        return Result(words[code], usage.ru_utime + usage.ru_stime, output)

    def _test(self) -> int:
        """The exit status of pytest, in the forked process, which has no way back."""
        try:
            # Of processors, not of the clock: with one that is shared a slow mutant is not one without end.
            resource.setrlimit(resource.RLIMIT_CPU, (self.task.limit, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with self.output.open("wb") as output:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            sys.path.insert(0, str(self.package.parent))  # before an installed package
            found = import_module(self.package.name).__file__
            if found != str(self.package / "__init__.py"):
                print(f"{found} would be tested, which is not the mutant.")
                return 70
            return int(import_module("pytest").main([*PYTEST, *self.task.tests]))
        except BaseException as error:
            print(repr(error))
            return 71
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def run(tasks: list[Task], places: list[Place], told: Callable[[Task, Result], None]) -> None:
    """Run all, as many at a time as there are places; each is told as it ends."""
    waiting, free, busy = list(reversed(tasks)), list(places), {}
    while waiting or busy:
        while waiting and free:
            place = free.pop()
            busy[place.start(waiting.pop())] = place
        process, status, usage = os.wait4(-1, 0)
        place = busy.pop(process)
        told(place.task, place.end(status, usage))
        free.append(place)
