"""Writing files so that a process killed at any moment leaves the last good one."""

from __future__ import annotations

import os
from pathlib import Path


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks, of several under ``torchrun``; one alone is."""
    return os.environ.get("RANK", "0") == "0"


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home directory in place of a ``~`` at its beginning."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  unlike Path, it leaves the ``~`` of a user that there is not


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
