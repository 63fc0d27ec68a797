"""`polyak bits`, as the command line sees it: the docstring is its help."""

import sys


def bits() -> int:
    """Show whether the frameworks on this machine compute the same bits.

    Every rule, without and with each kind of weight decay, at constant, piecewise-constant and linear learning rate and
    momentum, makes 1,000 float32 steps of the same gradients in each framework that is installed, on the processor. The table
    says whether weights and slots are the same after every step, and how far the last are from those in float64.

    Returns:
        The exit code: 0 if all that is installed agrees, 1 if two differ or one fails, 130 after Ctrl-C.
    """
    from polyak.bits.processor import missing_flag
    from polyak.bits.run import TITLES, Result, missing, run
    from polyak.bits.table import differences, table

    installed = [name for name in TITLES if not missing(name)]
    outcomes = run(installed, lambda name: print(f"{TITLES[name]} is done.", file=sys.stderr))  # noqa: T201  (a sign of life)
    results = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Result)}
    if results:
        _say(*table(results))
    parted = list(differences(results)) if results else []
    _say(*parted)
    failures = [f"{TITLES[name]} failed: {outcome}" for name, outcome in outcomes.items() if name not in results]
    _say(*failures)
    for name in TITLES:
        if modules := missing(name):
            _say(f"{TITLES[name]}: nothing is claimed, for it is not installed ({', '.join(modules)}).")
    if flag := missing_flag():
        _say(f"Nothing is claimed for this processor, which has no fused multiply-add (flag {flag}).")
    return 1 if parted or failures else 0


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201  (this is the place that prints)
