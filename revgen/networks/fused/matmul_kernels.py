"""Matrix products that compiled loops call: C = A B for a few rows of A, as in one time step. Needs Numba.

A product of a few rows takes less time than a call of a BLAS library from Python, and a library uses threads that would
wait for each other at every time step. B is packed into panels of ``panel_width`` columns, so that it is read in the
order of memory. A tile of 8 rows and one panel of C stays in registers while the rows of B are added to it (Goto & van
de Geijn 2008, *Anatomy of high-performance matrix multiplication*).

In bfloat16, A and B hold pairs of consecutive values in 32 bits, and one instruction multiplies and adds both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from revgen.networks.fused import parallel
from revgen.networks.fused.parallel import HEADER_SIZE, rows
from revgen.networks.jit import FEATURES, BFloat16, cached, to_bfloat16

VECTOR_BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx2") else 16
VECTORS_PER_PANEL = 2
TILE_ROWS = 4 if VECTOR_BYTES == 32 else 8  # AVX2 has 16 registers, the others have 32

PACKED_ROWS, PACKED_COLUMNS = 128, 32
"""The number of rows of A and B, or of pairs of rows, that are packed at a time to compute A' B, and the number of
columns in a packed panel of A."""
BYTE_SIZES = {"bfloat16": 4, "float32": 4, "float64": 8}
"""The size of one element of A or B: a number, or a pair of bfloat16 numbers."""


def panel_width(dtype: str) -> int:
    """Return the number of columns of a panel."""
    return VECTORS_PER_PANEL * VECTOR_BYTES // BYTE_SIZES[dtype]


def packed_shape(inputs: int, outputs: int, dtype: str) -> tuple[int, int, int, int]:
    """Return the shape of a packed matrix: (panels, rows, width, numbers in a row and column)."""
    pair = 2 if dtype == "bfloat16" else 1
    width = panel_width(dtype)
    return -(-outputs // width), -(-inputs // pair), width, pair


def _tile(dtype: str, rows: int, accumulates: bool = False) -> Any:
    """Return an intrinsic that computes a tile of C, ``rows`` rows and one panel, or adds to it if it ``accumulates``.

    Its arguments are the address of A, the bytes from row to row and from column to column, the address of the panel of
    B, the address of C and the bytes from row to row, and the number of rows of B.
    """
    size = BYTE_SIZES[dtype]
    lanes = VECTOR_BYTES // size
    number = ir.DoubleType() if dtype == "float64" else ir.FloatType()
    element = ir.IntType(32) if dtype == "bfloat16" else number
    accumulator, operand = ir.VectorType(number, lanes), ir.VectorType(element, lanes)
    int32, int64 = ir.IntType(32), ir.IntType(64)

    def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
        if dtype == "bfloat16":
            pairs = ir.VectorType(BFloat16(), 2 * lanes)
            kind = ir.FunctionType(accumulator, [accumulator, pairs, pairs])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
            return builder.call(function, [c, builder.bitcast(a, pairs), builder.bitcast(b, pairs)])
        kind = ir.FunctionType(accumulator, [accumulator] * 3)
        name = f"llvm.fma.v{lanes}f{8 * size}"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_stride, a_step, b, c, c_stride, count = arguments

        def pointer(base: Any, *offsets: Any) -> Any:
            for offset in offsets:
                base = builder.add(base, ir.Constant(int64, offset) if isinstance(offset, int) else offset)
            return base

        def as_pointer(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def row(base: Any, stride: Any, i: int) -> Any:
            return pointer(base, builder.mul(stride, ir.Constant(int64, i)))

        sums = [[cgutils.alloca_once(builder, accumulator) for _ in range(VECTORS_PER_PANEL)] for _ in range(rows)]
        targets = [
            [as_pointer(pointer(row(c, c_stride, i), v * VECTOR_BYTES), accumulator) for v in range(VECTORS_PER_PANEL)]
            for i in range(rows)
        ]
        for x, target in zip(chain(*sums), chain(*targets), strict=True):
            first = builder.load(target, align=size) if accumulates else ir.Constant(accumulator, [0.0] * lanes)
            builder.store(first, x)
        zeros = ir.Constant(ir.VectorType(int32, lanes), [0] * lanes)
        undefined = ir.Constant(operand, ir.Undefined)
        with cgutils.for_range(builder, count) as loop:
            begin = pointer(b, builder.mul(loop.index, ir.Constant(int64, VECTORS_PER_PANEL * VECTOR_BYTES)))
            columns = [
                builder.load(as_pointer(pointer(begin, v * VECTOR_BYTES), operand), align=size)
                for v in range(VECTORS_PER_PANEL)
            ]
            offset = builder.mul(loop.index, a_step)
            for i in range(rows):
                value = builder.load(as_pointer(pointer(row(a, a_stride, i), offset), element))
                first = builder.insert_element(undefined, value, ir.Constant(int32, 0))
                values = builder.shuffle_vector(first, undefined, zeros)
                for v in range(VECTORS_PER_PANEL):
                    x = sums[i][v]
                    builder.store(multiply_add(builder, values, columns[v], builder.load(x)), x)
        for x, target in zip(chain(*sums), chain(*targets), strict=True):
            builder.store(builder.load(x), target, align=size)
        return context.get_dummy_value()

    def tile(typing: Any, a: Any, a_stride: Any, a_step: Any, b: Any, c: Any, c_stride: Any, count: Any) -> Any:
        return types.void(*[types.int64] * 7), generate

    return intrinsic(tile)


def _multiply(dtype: str) -> Callable[..., None]:
    """Return a compiled function that computes C = A B: A (rows, inputs), B packed, and C (rows, panels * width)."""
    tile, row_tile = _tile(dtype, TILE_ROWS), _tile(dtype, 1)
    width, step = VECTORS_PER_PANEL * VECTOR_BYTES, BYTE_SIZES[dtype]

    @njit(nogil=True)
    def multiply(a: Any, b: Any, c: Any) -> None:
        rows, a_stride, c_stride = len(a), a.strides[0], c.strides[0]
        count = b.shape[1]
        for panel in range(len(b)):
            begin, columns = b[panel].ctypes.data, c.ctypes.data + panel * width
            i = 0
            while i + TILE_ROWS <= rows:
                tile(a.ctypes.data + i * a_stride, a_stride, step, begin, columns + i * c_stride, c_stride, count)
                i += TILE_ROWS
            while i < rows:
                row_tile(a.ctypes.data + i * a_stride, a_stride, step, begin, columns + i * c_stride, c_stride, count)
                i += 1

    return multiply


multiply_float32, multiply_float64 = _multiply("float32"), _multiply("float64")
multiply_bfloat16 = _multiply("bfloat16")


def _add_transposed(dtype: str) -> Callable[..., None]:
    """Return a compiled function that adds A' B to C, for the rows from ``begin`` to ``end`` at all time steps.

    A is (time, batch, inputs) and B (time, batch, outputs), in bfloat16 their bits. The rows and columns of C fill
    tiles. Some rows of A and B are packed at a time, so that they stay in the cache.
    """
    tile = _tile(dtype, TILE_ROWS, accumulates=True)
    width, size, pair = panel_width(dtype), BYTE_SIZES[dtype], 2 if dtype == "bfloat16" else 1
    kind = {"bfloat16": np.uint32, "float32": np.float32, "float64": np.float64}[dtype]
    pack_inputs, pack_outputs = _pack_transposed(PACKED_COLUMNS, pair), _pack_transposed(width, pair)

    @njit(nogil=True)
    def add_transposed(a: Any, b: Any, c: Any, begin: int, end: int) -> None:
        num_rows = -(-(end - begin) // pair)  # of each time step, when packed
        steps = max(1, PACKED_ROWS // max(num_rows, 1))
        inputs = np.zeros((-(-len(c) // PACKED_COLUMNS), steps * num_rows, PACKED_COLUMNS), kind)
        outputs = np.zeros((c.shape[1] // width, steps * num_rows, width), kind)
        for first in range(0, len(a), steps):
            count = 0
            for t in range(first, min(first + steps, len(a))):
                pack_inputs(a[t][begin:end], inputs, count)
                pack_outputs(b[t][begin:end], outputs, count)
                count += num_rows
            for panel in range(len(outputs)):
                source, columns = outputs[panel].ctypes.data, c.ctypes.data + panel * width * size
                for row in range(0, len(c), TILE_ROWS):
                    values = inputs[row // PACKED_COLUMNS].ctypes.data + row % PACKED_COLUMNS * size
                    target = columns + row * c.strides[0]
                    tile(values, size, PACKED_COLUMNS * size, source, target, c.strides[0], count)

    return add_transposed


def _pack_transposed(width: int, pair: int) -> Callable[..., None]:
    """Return a compiled function that copies a matrix to panels (panels, rows, width), from the row ``begin``.

    In bfloat16, the numbers of two rows become a pair.
    """

    @njit(inline="always")
    def element(matrix: Any, i: int, column: int) -> Any:
        j = np.uint64(column)  # which cannot be negative
        if pair == 1:
            return matrix[i, j]
        return np.uint32(matrix[2 * i, j]) | (np.uint32(matrix[2 * i + 1, j]) << np.uint32(16))

    @rows
    def pack_transposed(matrix: Any, panels: Any, begin: int) -> None:
        count, columns = len(matrix) // pair, matrix.shape[1]
        for i in range(count):
            for panel in range(len(panels)):
                for j in range(min(width, columns - panel * width)):
                    panels[panel, begin + i, j] = element(matrix, i, panel * width + j)
        if count * pair < len(matrix):
            for j in range(min(columns, len(panels) * width)):
                panels[j // width, begin + count, j % width] = matrix[count * pair, j]

    return pack_transposed  # type: ignore[no-any-return]


add_transposed_float32, add_transposed_float64 = _add_transposed("float32"), _add_transposed("float64")
add_transposed_bfloat16 = _add_transposed("bfloat16")


PRODUCTS_SOURCE = '''\
"""Generated to compute the gradients of matrices."""

import numpy as np
from numba import carray

from revgen.networks.fused.matmul_kernels import add_transposed_{dtype} as add_transposed
from revgen.networks.fused.parallel import compiled, thread_rows
from revgen.networks.jit import as_pointer


@compiled
def run(table):
    """Add A' B to C for each six numbers in the table: the addresses and widths of A, B and C."""
    begin, end, thread = thread_rows(table)
    threads, batch, time = table[1], table[2], table[3]
    for i in range({first} + 1, {first} + 1 + 6 * table[{first}], 6):
        inputs, outputs, columns = table[i + 3], table[i + 4], table[i + 5]
        a = carray(as_pointer(table[i]), (time, batch, inputs), {kind})
        b = carray(as_pointer(table[i + 1]), (time, batch, outputs), {kind})
        c = carray(as_pointer(table[i + 2]), (threads, -(-inputs // {rows}) * {rows}, columns), {number})
        add_transposed(a, b, c[thread], begin, end)
'''


def products_source(dtype: str) -> str:
    """Return the source of a module whose function ``run`` computes products with transposed matrices."""
    number = "np.float64" if dtype == "float64" else "np.float32"
    kind = "np.uint16" if dtype == "bfloat16" else number
    return PRODUCTS_SOURCE.format(dtype=dtype, first=HEADER_SIZE, kind=kind, number=number, rows=TILE_ROWS)


Sequence: TypeAlias = tuple[int, int]
"""A contiguous array (time, batch, size): its address, and its size."""


def transposed_products(
    module: ModuleType, pairs: Iterable[tuple[Sequence, Sequence]], time: int, batch: int, dtype: str
) -> list[Tensor]:
    """Return Σ A' B for each pair of A (time, batch, inputs) and B (time, batch, outputs), with some rows and columns
    more."""
    width, number = panel_width(dtype), torch.float64 if dtype == "float64" else torch.float32
    results, arguments = [], []
    for (a, inputs), (b, outputs) in pairs:
        shape = -(-inputs // TILE_ROWS) * TILE_ROWS, -(-outputs // width) * width
        results.append(torch.zeros(torch.get_num_threads(), *shape, dtype=number))
        arguments += [a, b, results[-1].data_ptr(), inputs, outputs, shape[1]]
    parallel.run(module.run, batch, time, [len(results), *arguments])
    return [result.sum(0) for result in results]


@cached
def _pack_rows(matrix: Any, out: Any) -> None:
    """Copy a matrix (rows, columns) to panels (panels, rows, width)."""
    for panel in range(len(out)):
        begin = panel * out.shape[2]
        for i in range(len(matrix)):
            for j in range(min(out.shape[2], matrix.shape[1] - begin)):
                out[panel, i, j] = matrix[i, begin + j]


@cached
def _pack_columns(matrix: Any, out: Any) -> None:
    """Copy a transposed matrix (columns, rows) to panels (panels, rows, width)."""
    for panel in range(len(out)):
        begin = panel * out.shape[2]
        for j in range(min(out.shape[2], len(matrix) - begin)):
            for i in range(matrix.shape[1]):
                out[panel, i, j] = matrix[begin + j, i]


@njit
def _pair(first: Any, second: Any) -> Any:
    """Return two float32 numbers, rounded to bfloat16, in 32 bits."""
    return np.uint32(np.uint32(to_bfloat16(first)) | (np.uint32(to_bfloat16(second)) << np.uint32(16)))


@cached
def _pack_row_pairs(matrix: Any, out: Any) -> None:
    """Copy the numbers of consecutive rows of a matrix to panels as pairs; the number of rows is even."""
    for panel in range(len(out)):
        begin = panel * out.shape[2]
        for i in range(len(matrix) // 2):
            for j in range(min(out.shape[2], matrix.shape[1] - begin)):
                out[panel, i, j] = _pair(matrix[2 * i, begin + j], matrix[2 * i + 1, begin + j])


@cached
def _pack_column_pairs(matrix: Any, out: Any) -> None:
    """Do the same for a transposed matrix (columns, rows)."""
    for panel in range(len(out)):
        begin = panel * out.shape[2]
        for j in range(min(out.shape[2], len(matrix) - begin)):
            for i in range(matrix.shape[1] // 2):
                out[panel, i, j] = _pair(matrix[begin + j, 2 * i], matrix[begin + j, 2 * i + 1])


def pack(matrix: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Pack a matrix (inputs, outputs) into panels: (panels, rows, width).

    A pair of bfloat16 numbers is stored as 32 bits. Missing columns, and the second half of the last pair, are 0.
    """
    panels, num_rows, width, pair = packed_shape(matrix.shape[0], matrix.shape[1], dtype)
    out = np.zeros((panels, num_rows, width), np.uint32 if pair == 2 else matrix.dtype)
    if len(matrix) % pair:
        matrix = np.pad(matrix, ((0, 1), (0, 0)))
    if matrix.flags.f_contiguous and not matrix.flags.c_contiguous:
        (_pack_column_pairs if pair == 2 else _pack_columns)(matrix.T, out)
    else:
        (_pack_row_pairs if pair == 2 else _pack_rows)(np.ascontiguousarray(matrix), out)
    return out


def to_bits(array: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; bfloat16 numbers become their bits, in uint16."""
    return array.view(torch.int16).numpy().view(np.uint16) if array.dtype == torch.bfloat16 else array.numpy()
