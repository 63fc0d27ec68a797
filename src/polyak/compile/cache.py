"""Where the generated modules and their machine code are kept between processes.

A module is a file that never changes, named by everything its machine code depends on; Numba keeps the code beside it. Two
processes that write one file write the same text, and the later takes the place of the earlier whole. Each compiled
function has one signature, so that two processes never disagree about which file holds the code for which.
"""

import os
import sys
import tempfile
from pathlib import Path


def folder() -> Path:
    """$POLYAK_CACHE_DIR, or `polyak` in the platform's folder for a user's cache files."""
    if own := os.environ.get("POLYAK_CACHE_DIR"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "polyak"
    if sys.platform == "win32" and (base := os.environ.get("LOCALAPPDATA")):
        return Path(base) / "polyak" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "polyak"
    return Path.home() / ".cache" / "polyak"


def keep(name: str, text: str) -> Path:
    """The path of the file `name` with this text, written if need be.

    Raises:
        OSError: The folder cannot be written.
    """
    path = folder() / name
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # code that this user runs: no one else may write there
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
