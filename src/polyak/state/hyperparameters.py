"""Which hyperparameters a group of an optimizer takes over, and what is said of those that it does not and of its options."""

from collections.abc import Mapping

from polyak.arguments import check_learning_rate
from polyak.state.contents import COMMON, KNOWN, Group


def taken_over(
    own: Group, saved: list[Group], saved_of_shared: Mapping[str, list[Group]]
) -> tuple[dict[str, float], list[str]]:
    """The numbers that a group takes over, and a note for each that it does not."""
    taken, notes = {}, []
    checks = {"learning_rate": check_learning_rate, **KNOWN[own.method].varying}
    for name, check in checks.items():
        of_it = saved_of_shared.get(name, saved)
        values = {group.hyperparameters[name] for group in of_it if name in group.hyperparameters}
        mine = own.hyperparameters.get(name)
        if not values or values == {mine}:
            continue
        units = {own.velocity, *(group.velocity for group in of_it)}
        said = " and ".join(map(str, sorted(values)))
        if name in own.scheduled:
            notes.append(f"{name}: follows the optimizer's schedule, saved {said}")
            continue
        if name not in own.assignable:
            why = "it is fixed when the optimizer is made" if own.slots else "the optimizer keeps no velocity"
        elif len(values) > 1:
            why = "those of the saved groups differ"
        elif name == "learning_rate" and own.slots and "average" in units and len(units) > 1:
            why = f"beside velocities of the units {sorted(map(str, units))} it means another step"
        else:
            taken[name] = check(values.pop())
            continue
        notes.append(f"{name}: stays {mine}, saved {said}: {why}")
    return taken, notes


def differences(own: Group, saved: list[Group]) -> list[str]:
    """A note for each option of a group that is not the saved one."""
    notes = []
    method = KNOWN[own.method]
    for option in (*method.constants, *method.options, *COMMON):
        if option not in own.options or (option == "velocity" and not own.slots):
            continue
        having = [group for group in saved if option in group.options]
        if option == "decay" and not own.options.get("weight_decay"):  # of no decay, the kind is of no account
            having = [group for group in having if group.options.get("weight_decay")]
        others = [group.options[option] for group in having]
        if different := [x for x in others if x != own.options[option]]:
            notes.append(
                f"velocity: converted from {different[0]!r} to {own.velocity!r}"
                if option == "velocity"
                else f"{option}: the optimizer has {own.options[option]!r}, the saved one had {different[0]!r}"
            )
    return notes
