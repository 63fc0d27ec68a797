"""Names that people choose from."""

import difflib
from collections.abc import Iterable


def choice(what: str, name: str, known: Iterable[str]) -> str:
    """A name that is known, or a ValueError with the known ones and the closest of them."""
    names = list(known)
    if name not in names:
        raise ValueError(unknown(f"unknown {what} {name!r}", name, names))
    return name


def unknown(complaint: str, name: str, known: Iterable[str]) -> str:
    """A complaint about a name that is not known, with the known ones and the closest of them."""
    names = list(known)
    lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    hint = f" Did you mean {lower[close[0]]!r}?" if close else ""
    return f"{complaint}; choose from {', '.join(names)}.{hint}"
