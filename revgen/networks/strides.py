"""Arithmetic with the shapes and strides of arrays, for generated code."""

from __future__ import annotations

from math import prod


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the axes of size 1."""
    return tuple(size for size in shape if size > 1)


def row_major_strides(shape: tuple[int, ...]) -> list[int]:
    """Return the strides of an array in row-major order, in elements."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def broadcast_strides(shape: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """Return the strides of an array that is broadcast to a larger shape."""
    strides = [0 if size == 1 else stride for size, stride in zip(shape, row_major_strides(shape), strict=True)]
    return [0] * (len(target) - len(shape)) + strides


def split_at(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Return the number of elements before, along and after an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
