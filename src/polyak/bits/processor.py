"""Whether this processor can multiply and add with one rounding, on which the contract rests."""

import platform

from llvmlite import binding

# Where it is an option of the architecture, what LLVM calls it. Others (ARM of 64 bits) always have it.
_FLAGS = {"x86_64": "fma", "amd64": "fma"}


def missing_flag() -> str | None:
    """The flag of the processor without which XLA and Numba round a product before its sum; None if it is there."""
    flag = _FLAGS.get(platform.machine().lower())
    return flag if flag and not binding.get_host_cpu_features().get(flag, False) else None
