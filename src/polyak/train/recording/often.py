"""How often a step is recorded."""

MOST = 1000  # rows of a run: more show nothing more in a chart
APART = 25


def automatic(updates: int) -> int:
    """Updates from one that is recorded to the next.

    A step that is recorded takes up to half as long again (dense layers and small batches; others less), so that one in 25 is
    at most 2 %, however long a run is. One of fewer than 25 records its last, since a run without a row would show nothing.

    Args:
        updates: Of the whole run.
    """
    return max(-(-updates // MOST), min(APART, max(1, updates)))
