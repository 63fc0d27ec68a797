"""Polyak for Keras, on its TensorFlow, JAX and PyTorch backends.

    import polyak.keras

    optimizer = polyak.keras.Momentum(learning_rate=0.1, momentum=0.9)

The optimizers here are `keras.optimizers.Optimizer`s: they serve in `model.compile`, in a GradientTape loop, in
`stateless_apply` and under `tf.distribute`, and they are saved in `.keras` files.
"""

from polyak.keras.aggmo import AggMo
from polyak.keras.averaged import Averaged
from polyak.keras.guard import FiniteCheck
from polyak.keras.lars import LARS
from polyak.keras.lion import Lion
from polyak.keras.momentum import Momentum
from polyak.keras.muon import Muon
from polyak.keras.qhm import QHM
from polyak.keras.recorder import Recorder
from polyak.keras.schedule_free import ScheduleFree
from polyak.keras.signum import Signum

__all__ = ["LARS", "QHM", "AggMo", "Averaged", "FiniteCheck", "Lion", "Momentum", "Muon", "Recorder", "ScheduleFree", "Signum"]
