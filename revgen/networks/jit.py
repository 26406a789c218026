"""Helpers for ``networks.kernels``: caching of compiled code, and reading float16. Needs Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.extending import intrinsic

FAST: Any = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""Compiler options: no checks for division by zero, fused multiply-add, and sums in any order. Infinities and NaN keep
their meaning."""

INTERNAL: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **FAST}
"""Compiler options of functions that only compiled code calls. Compiling the code that converts arguments of Python can
take longer than compiling the function."""


def _cpu_features() -> dict[str, bool]:
    """Return the features of the processor; none if LLVM does not know them."""
    try:
        return dict(get_host_cpu_features())
    except RuntimeError:
        return {}


FEATURES = _cpu_features()
HAS_BFLOAT16 = bool(FEATURES.get("avx512bf16"))
"""True if the processor rounds to bfloat16 and multiplies such numbers, as AVX512-BF16 does."""


def cached(function: Callable[..., Any], compiler: Callable[..., Any] = njit) -> Any:
    """Compile a function and cache its machine code on disk, or only in this process if no directory is writable."""
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache directory is writable
        return compiler()(function)


def _bitcast(target: Any) -> Any:
    """Return an intrinsic that reads the bits of a number of 32 bits as another type."""

    def reinterpret(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(x), generate

    return intrinsic(reinterpret)


as_float32: Any = _bitcast(types.float32)
as_uint32: Any = _bitcast(types.uint32)
"""The number that has the same 32 bits."""


def _as_pointer(typing: Any, address: Any) -> Any:
    """Return an address as a pointer, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


as_pointer: Any = intrinsic(_as_pointer)


def _call(typing: Any, address: Any) -> Any:
    """Call the C function ``int f(void)`` at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), [])
        return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [])

    return types.int32(types.int64), generate


call: Any = intrinsic(_call)


class BFloat16(ir.Type):
    """The type ``bfloat`` of LLVM, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat16)

    def __hash__(self) -> int:
        return hash(BFloat16)


@njit
def from_bfloat16(x: Any) -> Any:
    """Convert the bits of a bfloat16 number, a uint16, to float32."""
    return as_float32(np.uint32(np.uint32(x) << np.uint32(16)))


def _round_to_bfloat16(typing: Any, x: Any) -> Any:
    """Round a float32 number to bfloat16 and return its bits, a uint16, with an instruction for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], BFloat16()), ir.IntType(16))

    return types.uint16(types.float32), generate


@njit
def to_bfloat16_by_integers(x: Any) -> Any:
    """Round a float32 number to bfloat16 and return its bits, a uint16, on any processor."""
    bits = as_uint32(x)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded if x == x else np.uint32(0x7FC0))


to_bfloat16: Any = intrinsic(_round_to_bfloat16) if HAS_BFLOAT16 else to_bfloat16_by_integers
"""Round a float32 number to bfloat16 and return its bits, a uint16."""


ROUNDED_AT_ONCE = 16
"""The number of elements that one instruction rounds, in a vector of 64 bytes."""


def _round_vector(typing: Any, x: Any, i: Any, out: Any, j: Any) -> Any:
    """Round some elements of ``x`` from index i on to bfloat16, and write their bits to ``out`` from index j on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = []
        for position, element in ((0, ir.FloatType()), (2, ir.IntType(16))):
            array = context.make_array(signature.args[position])(context, builder, arguments[position])
            pointer = builder.gep(array.data, [arguments[position + 1]])
            pointers.append(builder.bitcast(pointer, ir.VectorType(element, ROUNDED_AT_ONCE).as_pointer()))
        rounded = builder.fptrunc(builder.load(pointers[0], align=4), ir.VectorType(BFloat16(), ROUNDED_AT_ONCE))
        builder.store(builder.bitcast(rounded, ir.VectorType(ir.IntType(16), ROUNDED_AT_ONCE)), pointers[1], align=2)
        return context.get_dummy_value()

    return types.void(x, types.int64, out, types.int64), generate


_round_vector_intrinsic: Any = intrinsic(_round_vector)


@njit
def round_row(x: Any, i: Any, out: Any, j: Any, size: Any) -> None:
    """Round ``size`` elements of ``x`` from index i on to bfloat16, and write their bits to ``out`` from index j on.

    LLVM would use shorter vectors for a loop that rounds, and for everything else that is computed in it.
    """
    count = size // ROUNDED_AT_ONCE * ROUNDED_AT_ONCE if HAS_BFLOAT16 else 0
    if HAS_BFLOAT16:
        for k in range(0, count, ROUNDED_AT_ONCE):
            _round_vector_intrinsic(x, i + k, out, j + k)
    for k in range(count, size):
        out[j + k] = to_bfloat16(x[i + k])


def _to_float32(typing: Any, x: Any) -> Any:
    """Convert a number to float32. The bits of a float16 are passed as uint16: Numba has no float16 on CPUs."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        return builder.fpext(builder.bitcast(value, ir.HalfType()), ir.FloatType()) if x == types.uint16 else value

    return types.float32(x), convert


to_float32: Any = intrinsic(_to_float32)
