"""Products of a few rows agree with NumPy's, for all shapes, types and layouts."""

from __future__ import annotations

import numpy as np
import pytest
from fused_layers import from_bfloat16, multiply_in_python, to_bfloat16
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from revgen.networks.fused import matmul_kernels
from revgen.networks.fused.matmul_kernels import pack, packed_shape
from revgen.networks.jit import HAS_BFLOAT16, round_row

SIZES = st.integers(1, 70)
DTYPES = ["float32", "float64", *(["bfloat16"] if HAS_BFLOAT16 else [])]


def multiply(a: NDArray[np.float64], b: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """Return the product that the kernel computes."""
    number = np.float64 if dtype == "float64" else np.float32
    packed = pack(b.astype(number), dtype)
    panels, rows, width, pair = packed_shape(b.shape[0], b.shape[1], dtype)
    operand = np.zeros((len(a), rows * pair), number)
    operand[:, : a.shape[1]] = a
    if dtype == "bfloat16":
        operand = to_bfloat16(operand).reshape(operand.shape)
    c = np.full((len(a), panels * width), np.nan, number)
    getattr(matmul_kernels, f"multiply_{dtype}")(operand, packed, c)
    return c[:, : b.shape[1]].astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=SIZES, inputs=SIZES, outputs=SIZES, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_product_agrees_with_double_precision(dtype: str, rows: int, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, inputs)), rng.normal(size=(inputs, outputs))
    if dtype == "bfloat16":  # the inputs are rounded, but the sums are not
        a, b = (from_bfloat16(to_bfloat16(x)).reshape(x.shape).astype(np.float64) for x in (a, b))

    tolerance = 1e-13 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(multiply(a, b, dtype), a @ b, atol=tolerance * inputs, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_affect_each_other(dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(21, 33)), rng.normal(size=(33, 17))
    whole = multiply(a, b, dtype)
    a[4] = np.nan

    with_nan = multiply(a, b, dtype)

    assert np.isnan(with_nan[4]).all()
    np.testing.assert_array_equal(np.delete(with_nan, 4, 0), np.delete(whole, 4, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_nan_are_kept(dtype: str) -> None:
    a = np.array([[np.inf, 1.0], [np.nan, 0.0], [-np.inf, np.inf]])

    product = multiply(a, np.eye(2) + 1, dtype)

    assert product[0].tolist() == [np.inf, np.inf]
    assert np.isnan(product[1:]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_may_be_a_part_of_a_larger_array(dtype: str) -> None:
    rng = np.random.default_rng(0)
    array, b = rng.normal(size=(3, 20, 40)).astype(dtype), rng.normal(size=(40, 12)).astype(dtype)
    packed = pack(b, dtype)
    panels, _, width, _ = packed_shape(40, 12, dtype)
    c = np.full((3, 20, panels * width), 7, dtype)

    getattr(matmul_kernels, f"multiply_{dtype}")(array[1][3:16], packed, c[2][3:16])

    np.testing.assert_allclose(c[2, 3:16, :12], array[1, 3:16] @ b, rtol=1e-5, atol=1e-5)
    assert (c[:2] == 7).all() and (c[2, :3] == 7).all() and (c[2, 16:] == 7).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_packed_matrix_is_padded_with_zeros(dtype: str, order: str) -> None:
    rng = np.random.default_rng(0)
    number = np.float64 if dtype == "float64" else np.float32
    matrix = np.asarray(rng.normal(size=(7, 5)).astype(number), order=order)  # type: ignore[call-overload]

    packed = pack(matrix, dtype)

    panels, rows, width, pair = packed_shape(7, 5, dtype)
    unit = np.eye(rows * pair, dtype=number)
    if dtype == "bfloat16":
        unit = to_bfloat16(unit).reshape(unit.shape)
        matrix = from_bfloat16(to_bfloat16(matrix)).reshape(7, 5)
    unpacked = np.empty((rows * pair, panels * width), number)
    multiply_in_python(unit, packed, unpacked)
    np.testing.assert_array_equal(unpacked[:7, :5], matrix)
    assert not unpacked[7:].any() and not unpacked[:, 5:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 7, 2), (40, 9, 33, 70), (2, 300, 16, 64)])
def test_transposed_products_add_up_all_time_steps(dtype: str, sizes: tuple[int, int, int, int]) -> None:
    time, batch, inputs, outputs = sizes
    rng = np.random.default_rng(0)
    number = np.float64 if dtype == "float64" else np.float32
    a, b = rng.normal(size=(time, batch, inputs)).astype(number), rng.normal(size=(time, batch, outputs)).astype(number)
    if dtype == "bfloat16":
        a, b = (to_bfloat16(x).reshape(x.shape) for x in (a, b))
    width = matmul_kernels.panel_width(dtype)
    c = np.zeros(
        (-(-inputs // matmul_kernels.TILE_ROWS) * matmul_kernels.TILE_ROWS, -(-outputs // width) * width), number
    )

    add = getattr(matmul_kernels, f"add_transposed_{dtype}")
    add(a, b, c, 0, batch // 2)  # by two threads
    add(a, b, c, batch // 2, batch)

    if dtype == "bfloat16":
        a, b = (from_bfloat16(x).reshape(x.shape) for x in (a, b))
    expected = np.einsum("tbi,tbo->io", a.astype(np.float64), b.astype(np.float64))
    tolerance = 1e-13 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(c[:inputs, :outputs], expected, atol=tolerance * time * batch, rtol=0)


def test_rows_are_rounded_as_single_numbers_are() -> None:
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    for size in (1, 15, 16, 53):
        out = np.zeros(100, np.uint16)

        round_row(x, 7, out, 3, size)

        np.testing.assert_array_equal(out[3 : 3 + size], to_bfloat16(x[7 : 7 + size]))
        assert not out[:3].any() and not out[3 + size :].any()
