"""PyTorch: momentum and its family as `torch.optim.Optimizer`s.

    optimizer = polyak.torch.Momentum(model.parameters(), lr=0.1, momentum=0.9)

takes the place of `torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)`.
"""

from polyak.torch.aggmo import AggMo
from polyak.torch.lars import LARS
from polyak.torch.lion import Lion
from polyak.torch.momentum import Momentum
from polyak.torch.muon import Muon
from polyak.torch.qhm import QHM
from polyak.torch.schedule import Schedule
from polyak.torch.schedule_free import ScheduleFree
from polyak.torch.signum import Signum

__all__ = ["LARS", "QHM", "AggMo", "Lion", "Momentum", "Muon", "Schedule", "ScheduleFree", "Signum"]
