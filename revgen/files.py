"""Writing files so that a process killed at any moment leaves the last good one, and JSON that any program reads."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from revgen.options import plain


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks, of several under ``torchrun``; one alone is."""
    return os.environ.get("RANK", "0") == "0"


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


def to_json(value: Any, **options: Any) -> str:
    """Return ``value`` as JSON; ``options`` are those of ``json.dumps``.

    NumPy's numbers and arrays are written as plain ones. JSON has no infinity and no NaN: they become null.
    """
    return json.dumps(_finite(plain(value)), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    """The same plain value with None in place of each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
