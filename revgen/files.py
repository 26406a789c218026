"""Writing files so that a process killed at any moment leaves the last good one, and JSON that any program reads."""

from __future__ import annotations

import contextlib
import json
import math
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def is_rank_zero() -> bool:
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


class FileHandle:
    """A file that can still be read after its directory was moved or removed, and after a change of the present one.

    It is held open, so that its content takes no memory before it is read. A pickle holds the content.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path.absolute()
        self._content = content
        self._descriptor: int | None = None
        if content is None:
            with contextlib.suppress(OSError):  # too many open files, or one that cannot be read: see ``read_bytes``
                self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                weakref.finalize(self, os.close, self._descriptor)

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileHandle, (self.path, self.read_bytes())

    def __copy__(self) -> FileHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FileHandle:
        return self

    def read_bytes(self) -> bytes:
        """Read the file as a whole; several threads and processes may do so at once. Raises OSError."""
        if self._content is not None:
            return self._content
        if self._descriptor is None or not hasattr(os, "pread"):
            return self.path.read_bytes()
        size, parts = 0, []
        while part := os.pread(self._descriptor, 1 << 30, size):
            parts.append(part)
            size += len(part)
        return b"".join(parts)


def to_json(value: Any, **options: Any) -> str:
    """Return ``value`` as JSON; ``options`` are those of ``json.dumps``.

    NumPy's numbers and arrays are written as plain ones, sets as sorted lists, other collections as lists. JSON has no
    infinity and no NaN: each is null, and an object with an infinite number has ``"infinite": true`` too. Raises
    TypeError for a value that JSON has nothing for.
    """
    from revgen.options import to_builtins  # with it comes NumPy, which the help of the command line does without

    def listed(collection: Any) -> Any:
        if not isinstance(collection, Iterable):
            raise TypeError(f"a value of the type {type(collection).__name__} is not JSON serializable")
        return _replace_non_finite(to_builtins(list(collection)))

    return json.dumps(_replace_non_finite(to_builtins(value)), allow_nan=False, **({"default": listed} | options))


def _replace_non_finite(value: Any) -> Any:
    """The same plain value with None in place of each number that is not finite."""
    if isinstance(value, dict):
        infinite = any(isinstance(item, float) and math.isinf(item) for item in value.values())
        return {key: _replace_non_finite(item) for key, item in value.items()} | (
            {"infinite": True} if infinite else {}
        )
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_replace_non_finite, value), key=str)
    return None if isinstance(value, float) and not math.isfinite(value) else value
