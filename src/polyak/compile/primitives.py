"""What `polyak.ops` means to Numba, and the few things that a kernel needs beside it: arrays by their address, and sums."""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from polyak import ops

# Numba's functions take and return machine types, which Python's type checker knows nothing of.
# ruff: noqa: ARG001, ARG005


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """A function as machine code, with the arithmetic that every kernel has.

    Products may be fused with the sum around them, as XLA fuses them, and nothing else: NaN, infinities, signed zeros and
    denormals behave as IEEE says.
    """
    return numba.njit(fastmath={"contract"}, error_model="numpy", **options)(function)


def _fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """llvm.fma, which no pass may split or fuse otherwise."""
    return a(a, a, a), lambda context, builder, signature, arguments: builder.fma(*arguments)


def _pointer(context: Any, address: Any) -> Any:
    """An address as a pointer."""
    byte = ir.IntType(8).as_pointer()
    return types.voidptr(types.int64), lambda context, builder, signature, arguments: builder.inttoptr(arguments[0], byte)


def _wide_vectors(context: Any) -> Any:
    """Tells LLVM that the function it stands in may use the widest vectors that the processor has.

    For some processors with AVX-512 LLVM takes half that width, in fear of a lower clock. These loops wait for memory: with
    full width a step takes 0.96 of the time, and one with statistics 0.93.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        # LLVM knows this attribute and llvmlite's own `add` does not.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


fma: Any = intrinsic(_fma)
pointer: Any = intrinsic(_pointer)
wide_vectors: Any = intrinsic(_wide_vectors)
carray: Any = numba.carray  # type: ignore[attr-defined]


# Not strict: Numba would take the annotations for a difference between the two signatures.
@overload(ops.fma, strict=False)
def _overload_fma(a: Any, b: Any, c: Any) -> Any:
    return lambda a, b, c: fma(a, b, c)


@overload(ops.one_minus, strict=False)
def _overload_one_minus(a: Any) -> Any:
    kind = a  # the type, which converts
    return lambda a: kind(1) - a


@overload(ops.where, strict=False)
def _overload_where(condition: Any, a: Any, b: Any) -> Any:
    kind = b  # the type, into which a literal is converted
    return lambda condition, a, b: kind(a) if condition else b


@overload(ops.sign, strict=False)
def _overload_sign(a: Any) -> Any:
    kind = a
    return lambda a: kind(1) if a > 0 else kind(-1) if a < 0 else a


@numba.njit
def array_at(address: Any, length: Any, dtype: Any) -> Any:
    """The `length` elements at `address` as an array that owns nothing."""
    return carray(pointer(address), length, dtype)


# A sum may be taken in another order, for without that it runs at the latency of an addition, not at the speed of memory.
# The flag is on this addition alone, and the order depends on the length of a chunk alone, not on the number of threads.
@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")
def add_product(total: Any, a: Any, b: Any) -> Any:
    """Total + a * b, in any order of the additions."""
    return total + a * b
