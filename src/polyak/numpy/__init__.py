"""Momentum and its family for NumPy arrays: for people who write their own gradients, and the simplest front-end to read.

params = {"w": np.zeros((3, 2)), "b": np.zeros(2)}
optimizer = polyak.numpy.Momentum(params, lr=0.1)
optimizer.step({"w": grad_w, "b": grad_b})      # params now hold the new weights
"""

from polyak.numpy.aggmo import AggMo
from polyak.numpy.lars import LARS
from polyak.numpy.lion import Lion
from polyak.numpy.momentum import Momentum
from polyak.numpy.muon import Muon
from polyak.numpy.qhm import QHM
from polyak.numpy.schedule_free import ScheduleFree
from polyak.numpy.signum import Signum

__all__ = ["LARS", "QHM", "AggMo", "Lion", "Momentum", "Muon", "ScheduleFree", "Signum"]
