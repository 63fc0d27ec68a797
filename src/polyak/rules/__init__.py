"""The update rules: pure functions that know no framework.

A rule maps a gradient to a step; `polyak.update` puts weight decay around it and subtracts the step from the weight.
"""

from polyak.rules.aggmo import aggmo
from polyak.rules.descent import DESCENT
from polyak.rules.heavy_ball import HEAVY_BALL, heavy_ball
from polyak.rules.lion import LION
from polyak.rules.qhm import QHM
from polyak.rules.rule import Rule
from polyak.rules.schedule_free import SCHEDULE_FREE
from polyak.rules.signum import SIGN_DESCENT, SIGNUM

__all__ = ["RULES", "Rule", "heavy_ball"]

# Every rule by name. The contract tests run over all of it, so a rule that stands here is a rule that is tested. AggMo has a
# rule for each number of velocities, of which two stand for all.
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (DESCENT, *HEAVY_BALL.values(), QHM, aggmo(1), aggmo(3), SIGN_DESCENT, SIGNUM, LION, SCHEDULE_FREE)
}
