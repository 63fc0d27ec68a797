"""What a rule may use beyond `+ - * /`.

Each function serves whatever arithmetic its arguments have: traced arrays (JAX, TensorFlow), tensors (PyTorch), NumPy arrays,
Python floats and `fractions.Fraction`. Some exist to leave a compiler no choice: where two of them could round differently, the
rule names the operation instead of spelling it out. The others have no operator in Python.
"""

import sys
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


def where(condition: Array, a: Array, b: Array) -> Array:
    """`a`, which may be a literal, where the condition holds, and `b` elsewhere. A NaN in the other one does no harm."""
    if isinstance(condition, bool):  # of numbers
        return a if condition else b
    functions = namespace(condition)
    if isinstance(a, int):  # TensorFlow would take it for an integer tensor
        a = functions.ones_like(b) * a
    return functions.where(condition, a, b)


def sign(a: Array) -> Array:
    """1 for positive elements, -1 for negative ones, and `a` itself for zeros of both signs and for NaN."""
    return where(a > 0, 1, where(a < 0, -1, a))


def namespace(array: Array) -> Any:
    """The module with the functions for arrays of this type. Whoever has such an array has imported it."""
    package = type(array).__module__.partition(".")[0]
    return sys.modules["jax.numpy" if package in ("jax", "jaxlib") else package]
