"""Writing files so that a process killed at any moment leaves the last good one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks, of several under ``torchrun``; one alone is."""
    return os.environ.get("RANK", "0") == "0"


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home directory in place of a ``~`` at its beginning."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  unlike Path, it leaves the ``~`` of a user that there is not


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return plain values, and numbers and arrays of NumPy, as JSON.

    JSON has no infinity and no NaN: each is null, and an object with an infinite number has ``"infinite": true`` too.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        infinite = any(isinstance(part, float) and math.isinf(part) for part in value.values())
        return {key: _finite(part) for key, part in value.items()} | ({"infinite": True} if infinite else {})
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: written beside it, flushed to the disk, then renamed over it.

    The temporary file has one name, so that what killed processes leave does not pile up.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
