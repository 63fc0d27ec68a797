"""How often a step is recorded."""

MOST = 1000  # rows of a run: more show nothing more in a chart
FEWEST = 40  # rows from which something can be told
APART = 25


def automatic(steps: int) -> int:
    """Steps from one that is recorded to the next.

    A step that is recorded takes up to half as long again (dense layers and small batches; others less), so that one in 25 is
    at most 2 %. A run of fewer than 1,000 steps has 40 rows all the same, which takes as long as 20 steps at the most.

    Args:
        steps: Of the whole run.
    """
    return max(-(-steps // MOST), min(APART, max(1, steps // FEWEST)))
