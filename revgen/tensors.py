"""Safetensors files from untrusted sources: a check of the header, before the file takes memory, and the arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import CheckpointError

DTYPES = {"BF16": "<u2", "BOOL": "?"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8) if kind + str(size) != "F1"
}
"""The NumPy type for each type of safetensors. NumPy has no bfloat16, so its bits are read as integers."""


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
