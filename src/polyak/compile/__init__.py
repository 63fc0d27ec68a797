"""Rules as machine code: all tensors of a group updated in one pass over host memory.

    primitives   what `polyak.ops` means to Numba, and arrays by their address
    source       the text of the small module that is compiled for a rule
    cache        where that module and its machine code are kept between processes
    threads      running a kernel on several threads, safely
    kernel       the compiled rule, and the sum of squares that clipping and rules of tensors need
    table        addresses and lengths of the tensors of a group, cut into chunks

No arithmetic of a rule is written here: the compiler is given `Update.apply` itself.

Example:
    >>> import numpy as np
    >>> from polyak.rules import heavy_ball
    >>> from polyak.update import pipeline
    >>> w, g, v = np.ones(3), np.full(3, 2.0), np.zeros(3)
    >>> table = Table([3], [[address(w)], [address(v)]])
    >>> update = kernel(pipeline(heavy_ball()), "float64")
    >>> sums = update(table, [address(g)], {"learning_rate": 0.25, "momentum": 0.5, "dampening": 0.0}, threads=1)
    >>> w, v
    (array([0.5, 0.5, 0.5]), array([2., 2., 2.]))
"""

from polyak.compile import threads
from polyak.compile.kernel import Kernel, kernel, per_tensor, sum_of_squares
from polyak.compile.table import CHUNK, Table, address

__all__ = ["CHUNK", "Kernel", "Table", "address", "kernel", "per_tensor", "sum_of_squares", "threads"]
