"""What does this optimizer really do? It is measured as a black box.

    print(polyak.check.check("torch.optim:SGD", lr=0.1, momentum=0.9))

is one page: the recurrence that it follows, and what is wrong with it. In the tests of an optimizer of one's own:

    polyak.check.assert_conforms(lambda params: MySGD(params, lr=0.1))

No framework is imported but that of the optimizer. docs/check.md says what is measured and how.
"""

from polyak.check.conforms import assert_conforms
from polyak.check.finding import FINDINGS, Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.report import Report, check, identify

__all__ = ["FINDINGS", "Finding", "Identity", "Outcome", "Report", "assert_conforms", "check", "identify"]
