"""The options of a parameter group, and what they choose."""

from collections.abc import Sequence
from typing import Any

from polyak.arguments import Finite, check_cautious, check_decay, check_finite, check_learning_rate, check_max_norm
from polyak.methods import Method
from polyak.update import Update, pipeline

Options = dict[str, Any]

# Every group has the arguments of its method, and these.
COMMON = ("weight_decay", "decay", "max_norm", "maximize", "cautious", "cautious_decay", "finite")


def chosen(method: Method, group: Options, *, remembers: bool) -> tuple[Update, dict[str, float]]:
    """The rule and the values of its hyperparameters, or an error that says what is wrong with the options.

    Args:
        method: Of the optimizer.
        group: The group, with its options as they are now.
        remembers: Whether its parameters have slots, so that arguments which vary are no constants, if they are 0.
    """
    arguments = method.checked(group)
    rule = method.choose(**{**arguments, **dict.fromkeys(method.varying if remembers else ())})
    weight_decay = group["weight_decay"]
    weight_decay, decay = check_decay(weight_decay, group["decay"] if weight_decay else None)
    careful = group["cautious_decay"] and bool(weight_decay)  # a group may have no decay to be cautious with
    check_cautious(group["cautious"], careful, decay)
    by_signs = method.signs or group["cautious"] or careful
    if by_signs and (shapes := [tuple(p.shape) for p in group["params"] if p.is_complex()]):
        who = method.name if method.signs else "A cautious option"
        raise TypeError(f"{who} goes by signs, which complex numbers do not have; parameters of shapes {shapes} are complex.")
    check_finite(group["finite"])
    scaled = group["maximize"] or check_max_norm(group["max_norm"]) is not None
    update = pipeline(rule, decay, scale=scaled, cautious=group["cautious"], cautious_decay=careful)
    return update, {
        "learning_rate": check_learning_rate(group["lr"]),
        **method.numbers(arguments),
        "weight_decay": weight_decay,
        "scale": -1.0 if group["maximize"] else 1.0,
    }


def of_all_groups(groups: Sequence[Options]) -> tuple[float | None, Finite]:
    """The bound of the norm and what becomes of gradients that are not finite, which are one for all groups."""
    for name, of_all in (("max_norm", "bounds the norm of"), ("finite", "looks at")):
        given = [group[name] for group in groups]
        if any(value != given[0] for value in given):
            raise ValueError(
                f"{name} {of_all} the gradients of all groups together, so it must be the same in all of them; got {given}."
            )
    return groups[0]["max_norm"], groups[0]["finite"]
