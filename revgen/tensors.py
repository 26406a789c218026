"""Safetensors files from untrusted sources: a check of the header, before the file takes memory, and the arrays.

In a file of the type "int8", a matrix is stored as 8-bit integers, and one scale for each row: value = integer · scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import CheckpointError
from revgen.schema import join_names

DTYPES = {"BF16": "<u2", "BOOL": "?"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8) if kind + str(size) != "F1"
}
"""The NumPy type for each type of safetensors. NumPy has no bfloat16, so its bits are read as integers."""
SCALE_SUFFIX = ".int8_scale"
"""The end of the names of arrays with the scales of the rows of a matrix."""
MAX_FLOAT16 = float(np.finfo(np.float16).max)


def check_header(head: bytes, size: int) -> None:
    """Raise ValueError unless ``head``, the first bytes of a safetensors file, accounts for its ``size`` in bytes."""
    length = int.from_bytes(head[:8], "little")
    if not 8 <= 8 + length <= len(head):
        raise ValueError("its header is cut off or too long")
    try:
        entries = json.loads(head[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        is_complete = size == 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError("its header cannot be read") from None
    if not is_complete:
        raise ValueError(f"its header does not account for its {size:,} bytes")


def parse_arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays in the bytes of a safetensors file; bfloat16, which NumPy lacks, becomes float32.

    Raises CheckpointError, which names ``path``.
    """
    from safetensors import SafetensorError, deserialize

    try:
        arrays: dict[str, NDArray[Any]] = {}
        for name, tensor in deserialize(data):  # type: ignore[no-untyped-call]
            array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
            arrays[name] = (array.astype("<u4") << 16).view("<f4") if tensor["dtype"] == "BF16" else array
        return arrays
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error)[:200]}") from None


def describe_misfit(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return a sentence that says why arrays are not finite numbers of these shapes, or None if they are."""
    missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or extra:
        names = f"missing {join_names(missing)}, unknown {join_names(extra)}"
        return f"the weights do not fit the configuration: {names}"
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return f"the weight {name} has the shape {arrays[name].shape}, not {shape}"
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            return f"the weight {name} has values that are not finite numbers"
    return None


def to_dtype(arrays: Mapping[str, NDArray[Any]], dtype: str) -> dict[str, NDArray[Any]]:
    """Return contiguous arrays for a file of the type "float32", "float16" or "int8". Integers stay what they are.

    With "int8", vectors are stored in float16.
    """
    stored: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        is_matrix = array.dtype.kind == "f" and array.ndim > 1
        if dtype == "int8" and is_matrix and np.abs(array).max(initial=0) <= MAX_FLOAT16:
            stored |= _quantize(name, array)
        else:
            vector_type = "float16" if dtype == "int8" else dtype
            stored[name] = np.ascontiguousarray(array, vector_type if array.dtype.kind == "f" else None)
    return stored


def _quantize(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return a matrix as 8-bit integers, and the scales of its rows, by name."""
    rows = array.astype(np.float32).reshape(len(array), -1)
    scales = np.maximum(np.abs(rows).max(1, initial=0), np.finfo(np.float32).tiny * 127) / np.float32(127)
    integers = np.rint(rows / scales[:, None]).astype(np.int8).reshape(array.shape)
    return {name: integers, name + SCALE_SUFFIX: scales.astype(np.float32)}


def from_dtype(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file in float32, without the scales. Integers stay what they are.

    The values of 8-bit integers are rounded to float16, because pages have weights in float16. Raises ValueError for
    scales that do not fit a matrix.
    """
    with np.errstate(over="ignore"):  # a value that is too large becomes infinite
        floats = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in arrays.items()}
        for name in [name for name in floats if name.endswith(SCALE_SUFFIX)]:
            scales, matrix = floats.pop(name), floats.get(name.removesuffix(SCALE_SUFFIX))
            if matrix is None or matrix.dtype != np.int8 or scales.shape != matrix.shape[:1] or matrix.ndim < 2:
                raise ValueError(f"{name} does not belong to a matrix of 8-bit integers")
            rows = scales.astype(np.float32).reshape(-1, *(1,) * (matrix.ndim - 1))
            floats[name.removesuffix(SCALE_SUFFIX)] = (matrix * rows).astype(np.float16).astype(np.float32)
    return floats
