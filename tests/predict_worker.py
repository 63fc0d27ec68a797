"""Runs `polyak predict` on one backend, one command after another: python predict_worker.py BACKEND, a line a command."""

import logging
import sys

from polyak.cli import dispatch

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of a function that is compiled for one model after another

for line in sys.stdin:
    code = dispatch(["predict", *line.split(), "--backend", sys.argv[1]])
    for stream in (sys.stdout, sys.stderr):
        stream.write(f"exit {code}\n")
        stream.flush()
