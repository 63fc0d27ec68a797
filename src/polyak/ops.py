"""What a rule may use beyond `+ - * /`.

Each function is plain arithmetic, so it serves whatever arithmetic its arguments have: traced arrays (JAX, TensorFlow),
tensors (PyTorch), NumPy arrays, Python floats and `fractions.Fraction`. The functions exist to leave a compiler no choice:
where two of them could round differently, the rule names the operation instead of spelling it out.
"""

from typing import Any

# An array of any framework, or a number. There is no common base class to name.
Array = Any


def fma(a: Array, b: Array, c: Array) -> Array:
    """The fused multiply-add a * b + c.

    Where the machine has the instruction and the code is compiled, the product is not rounded before the sum. XLA fuses the
    first product of a sum; a rule therefore writes `fma(m, v, lr * g)` for `m v + lr g`, and nothing is left to choose.
    Evaluated directly (NumPy, PyTorch operations, fractions), the product is rounded as the type rounds it.
    """
    return a * b + c


def one_minus(a: Array) -> Array:
    """1 - a in the type of `a`: a compiler that reads the literal as a 64-bit integer would widen a float32 to float64."""
    return 1 - a
