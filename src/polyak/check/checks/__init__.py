"""What is looked for: each check is a function of a subject and what it was identified as."""

from collections.abc import Callable, Mapping

from polyak.check.checks.asked import asked
from polyak.check.checks.changes import changes, compilations, schedules
from polyak.check.checks.decay import decay
from polyak.check.checks.effects import effects
from polyak.check.checks.gradients import kept, missing, written
from polyak.check.checks.implementations import implementations
from polyak.check.checks.instances import copies, instances
from polyak.check.checks.options import options
from polyak.check.checks.parameters import groups, parameters
from polyak.check.checks.poison import poison, scale
from polyak.check.checks.precision import bfloat
from polyak.check.checks.regular import first_step, regular
from polyak.check.checks.shapes import layout, shapes, sparse
from polyak.check.checks.state import dtypes, order, resume
from polyak.check.finding import Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Subject

Check = Callable[[Subject, Identity], Outcome]

CHECKS: Mapping[Check, tuple[str, ...]] = {
    options: ("option-without-effect",),
    effects: ("option-effect",),
    asked: ("ascent", "learning-rate-differs", "momentum-differs", "nesterov-differs", "dampening-differs"),
    decay: ("decay-kind", "decay-amount"),
    first_step: ("first-step-differs",),
    regular: ("irregular-steps",),
    implementations: ("implementations-differ",),
    changes: ("change-ignored",),
    schedules: ("schedule-ignored",),
    compilations: ("recompiles",),
    parameters: ("parameters-mixed",),
    groups: ("groups-ignored",),
    resume: ("resume-differs",),
    order: ("state-by-position",),
    dtypes: ("state-dtype",),
    bfloat: ("implementations-differ",),
    shapes: ("shape-fails",),
    layout: ("layout-differs",),
    sparse: ("sparse-differs",),
    poison: ("poison-spreads",),
    written: ("gradient-written",),
    kept: ("gradient-kept",),
    missing: ("missing-gradient",),
    scale: ("scale-fails",),
    instances: ("instances-share-state",),
    copies: ("copy-shares-state",),
}
"""The checks in the order of the page, each with the findings that it may make."""
