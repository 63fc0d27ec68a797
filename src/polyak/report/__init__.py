"""Pictures and pages of what a run recorded: its curves, `report.html`, and a reading in plain language.

Everything is read from the files of the run's folder, and no framework is imported.
"""

from pathlib import Path

__all__ = ["write"]


def write(folder: Path) -> None:
    """Put `report.html` into the folder of a run, complete or stopped, in place of an earlier one.

    Args:
        folder: What `polyak train` made.

    Raises:
        polyak.report.recorded.NotARun: The folder has no run in it, or a file of it cannot be read.
        OSError: The page cannot be written.

    Example:
        >>> from pathlib import Path
        >>> write(Path("runs/first"))  # doctest: +SKIP
    """
    from polyak.report.page import page
    from polyak.report.recorded import read
    from polyak.state.writing import replaced

    text = page(read(folder))
    with replaced(folder / "report.html") as file:
        file.write(text.encode())
