"""`polyak compare`, as the command line sees it: the signature and the docstring are its options and its help."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from polyak.complain import complain
from polyak.train.command import Whole


def compare(
    *runs: str,
    optimizers: str | None = None,
    seeds: Whole = 3,
    reach: str | None = None,
    target: str | None = None,
    model: str | None = None,
    backend: str | None = None,
    epochs: Whole | None = None,
    config: Path | None = None,
    out: Path | None = None,
) -> int:
    """Compare runs of one task, or train some and compare them.

    polyak compare RUN RUN ... compares what is there; polyak compare TASK --optimizers descent,momentum,lion trains first.
    Runs that differ in their seed alone are one group. The table and one page say how well and how soon each group learned,
    and which differences are larger than the spread over seeds.

    Args:
        runs: Folders of runs, or the task to train.
        optimizers: What to train: momentum, "lion(lr=0.001)".
        seeds: Runs of each, with the seeds 0, 1, ...
        reach: What to reach, such as val_accuracy=0.98. [what all reach]
        target: The column of a table to learn.
        model: One of the task's. [its first]
        backend: tensorflow, jax or torch. [tensorflow]
        epochs: Passes over the training examples. [30]
        config: A TOML file with any option of polyak train.
        out: Folder of the page and the runs. [runs/compare-DATE-TIME]

    Returns:
        The exit code: 0, 1 where a run failed, 2 for what cannot be compared, 130 after Ctrl-C, 143 after SIGTERM.
    """
    said = {"target": target, "model": model, "backend": backend, "epochs": epochs}
    given = {name: value for name, value in said.items() if value is not None}
    try:
        if optimizers is None:
            if given or config:
                named = ", ".join(f"--{name}" for name in [*given, *(["config"] if config else [])])
                raise ValueError(f"{named} is for runs that are trained: name them with --optimizers, or leave it out.")
            return _write([Path(run) for run in runs], reach, out)
        return _train(runs, optimizers, seeds, config, given, reach, out)
    except ModuleNotFoundError as error:
        return complain(f'polyak compare needs {error.name}: pip install "polyak[train]" brings it.', 2)
    except (ValueError, TypeError, OSError) as error:
        return complain(error, 2)


def _train(
    runs: Sequence[str],
    optimizers: str,
    seeds: int,
    config: Path | None,
    given: Mapping[str, object],
    reach: str | None,
    out: Path | None,
) -> int:
    """Train what is asked for, and compare what is complete."""
    from polyak.compare.plan import plan
    from polyak.compare.training import status, train

    if len(runs) != 1:
        raise ValueError(
            f"--optimizers trains one task, such as polyak compare digits --optimizers {optimizers}; got {len(runs)} names."
        )
    # Planned before a folder is made, so that a wrong option leaves none behind.
    folder = out if out is not None else _unused(f"compare-{Path(runs[0]).stem}")
    planned = plan(optimizers, seeds, config, {**given, "task": runs[0]}, folder)
    code = train(planned)
    done = [run.folder for run in planned if status(run.folder) in ("completed", "failed")]
    if len(done) < len(planned):
        what = "interrupted" if code in (130, 143) else "not all could be trained"
        goes_on = f"The same command with --out {folder} goes on."
        complain(f"{what}; {len(done)} of {len(planned)} runs are complete. {goes_on}", code)
    if done:
        _write(done, reach, folder)
    return code


def _write(runs: Sequence[Path], reach: str | None, out: Path | None) -> int:
    """Compare, print, and write page and numbers."""
    from polyak.compare.page import page
    from polyak.compare.result import compared
    from polyak.compare.text import csv, lines
    from polyak.report.recorded import read
    from polyak.state.writing import replaced

    if not runs:
        raise ValueError("give the folders of runs, such as polyak compare runs/a runs/b, or a task and --optimizers.")
    found = compared([read(run) for run in runs], reach)
    folder = out if out is not None else _unused("compare")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("compare.html", page(found, folder)), ("compare.csv", csv(found))):
        with replaced(folder / name) as file:
            file.write(text.encode())
    print(*lines(found), folder / "compare.html", sep="\n", flush=True)  # noqa: T201  (what the command is for)
    return 0


def _unused(name: str) -> Path:
    """A folder in `runs` that does not exist."""
    from datetime import datetime

    return Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
