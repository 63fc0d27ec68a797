"""Momentum optimization for training neural networks.

`import polyak` brings no framework. Take the front-end you use: `polyak.keras`.
The update rules themselves, which know no framework, are in `polyak.rules`.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("polyak")
