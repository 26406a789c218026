"""Atomic writes, which leave no damaged file if the process is killed, and strict JSON, which any program can read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from revgen.errors import OptionError

LINE_SEPARATORS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""The separators that ``str.splitlines`` knows and JSON need not escape, with their escape sequences."""


def is_rank_zero() -> bool:
    """Return whether this process should save and print; under ``torchrun``, only rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ``~`` replaced by the home directory. Raises OptionError if there is none."""
    text = os.fspath(path)
    expanded = os.path.expanduser(text)  # noqa: PTH111  Path.expanduser raises for an unknown user
    if text.startswith("~") and Path(text).parts[0] == "~" and (expanded == text or os.environ.get("HOME") == ""):
        raise OptionError(f"{text}: there is no home directory to replace ~ by; set HOME, or give another path")
    return Path(expanded)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file next to ``path``, flush it to disk and rename it to ``path``.

    The temporary file always has the same name, so that killed processes leave at most one.
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
    """A file that stays readable after its directory is moved or removed, or the working directory changes.

    The file is kept open, so its content takes no memory until it is read. Pickling stores the content.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path.absolute()
        self._content = content
        self._descriptor: int | None = None
        if content is None:
            with contextlib.suppress(OSError):  # too many open files, or no permission: read_bytes uses the path
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
        """Return the content of the file. Safe to call from several threads and processes at once. Raises OSError."""
        if self._content is not None:
            return self._content
        if self._descriptor is None or not hasattr(os, "pread"):
            return self.path.read_bytes()
        offset, chunks = 0, []
        while chunk := os.pread(self._descriptor, 1 << 30, offset):
            chunks.append(chunk)
            offset += len(chunk)
        return b"".join(chunks)


def to_json(value: Any, **options: Any) -> str:
    """Return ``value`` as strict JSON; ``options`` are passed to ``json.dumps``.

    NumPy scalars and arrays become numbers and lists, sets become sorted lists, and other iterables become lists.
    Infinity and NaN, which JSON does not have, become null; an object with an infinite number also gets
    ``"infinite": true``. Raises TypeError for a value that JSON cannot represent.
    """
    from revgen.options import to_builtins  # here, because it imports NumPy, which would slow `revgen --help` down

    def to_list(collection: Any) -> Any:
        if not isinstance(collection, Iterable):
            raise TypeError(f"a value of type {type(collection).__name__} is not JSON serializable")
        return _replace_non_finite(to_builtins(list(collection)))

    return json.dumps(_replace_non_finite(to_builtins(value)), allow_nan=False, **({"default": to_list} | options))


def to_readable_json(value: Any, encoding: str = "utf-8", **options: Any) -> str:
    """Return ``value`` as JSON whose characters are not escaped, unless ``encoding`` cannot represent one of them.

    The line separators of Unicode are always escaped, so that every reader of JSON lines finds the same lines.
    """
    text = to_json(value, ensure_ascii=False, **options)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # also a lone surrogate
        return to_json(value, **options)
    return text.translate(LINE_SEPARATORS)


def _replace_non_finite(value: Any) -> Any:
    """Return ``value`` with None for each infinity and NaN, and with sets as sorted lists."""
    if isinstance(value, dict):
        has_infinity = any(isinstance(item, float) and math.isinf(item) for item in value.values())
        finite = {key: _replace_non_finite(item) for key, item in value.items()}
        return finite | {"infinite": True} if has_infinity else finite
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_replace_non_finite, value), key=str)
    return None if isinstance(value, float) and not math.isfinite(value) else value
