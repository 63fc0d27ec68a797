"""Saves states to one path again and again, for the test that kills it."""

import signal
import sys

import numpy as np

import polyak.numpy
from polyak import state

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the process of the tests has
path, size = sys.argv[1], int(sys.argv[2])
params = {"w": np.zeros(size, np.float32), "v": np.zeros(size, np.float32)}
optimizer = polyak.numpy.Momentum(params, lr=0.1)
sys.stdout.write("started\n")
sys.stdout.flush()
for i in range(1, 1_000_000):
    for array in optimizer.slots["velocity"].values():
        array[...] = i
    state.save(path, optimizer)
