"""The update rules: pure functions that know no framework.

A rule maps a gradient to a step; `polyak.update` puts weight decay around it and subtracts the step from the weight.
"""

from polyak.rules.descent import DESCENT
from polyak.rules.heavy_ball import HEAVY_BALL, heavy_ball
from polyak.rules.rule import Rule

__all__ = ["RULES", "Rule", "heavy_ball"]

# Every rule by name. The contract tests run over all of it, so a rule that stands here is a rule that is tested.
RULES: dict[str, Rule] = {rule.name: rule for rule in (DESCENT, *HEAVY_BALL.values())}
