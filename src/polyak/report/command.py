"""`polyak report`, as the command line sees it: the signature and the docstring are its options and its help."""

from pathlib import Path

from polyak.complain import complain


def report(run: Path, /) -> int:
    """Make the page of a run again: report.html in its folder.

    Args:
        run: The folder of a run, complete, stopped, or still going on.

    Returns:
        The exit code: 0, or 2 for a folder in which there is no run.
    """
    try:
        from polyak.report import write

        write(run)
    except ModuleNotFoundError as error:
        return complain(f'polyak report needs {error.name}: pip install "polyak[train]" brings it.', 2)
    except (ValueError, OSError) as error:
        return complain(error, 2)
    print(run / "report.html", flush=True)  # noqa: T201  (what the command is for)
    return 0
