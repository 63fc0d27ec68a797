"""The names of the variables, beside the state that Keras saves by their numbers: so state never goes to the wrong ones."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

# Of the entry that has them, among those of Keras: "0", "1" ...
NAMES = "names"


def written(names: Sequence[str]) -> Any:
    """Names as an array, which every store takes."""
    return np.frombuffer(json.dumps(names).encode(), np.uint8)


def check_order(entry: Any, names: Sequence[str]) -> None:
    """Refuse state whose variables had the same names in another order. Other names may be those that Keras makes up, in order.

    Args:
        entry: What `written` made of the names.
        names: Of the variables into which the state is to be loaded.

    Raises:
        ValueError: The order is another one.
    """
    saved = json.loads(np.asarray(entry).tobytes())
    if saved != names and sorted(saved) == sorted(names):
        raise ValueError(
            f"The state was saved with the variables in the order {', '.join(saved)}, and this optimizer was built with "
            f"{', '.join(names)}. Build it in the order of the saved state, or use polyak.state, which goes by the names."
        )
