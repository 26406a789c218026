"""Limits of reading a corpus: free disk space and memory, and files that unpack to far more than their size."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from revgen.display.formatting import format_size

MAX_RESERVE = 1 << 28
"""Bytes that stay free on the disk, or 5 % of it if that is less."""
MAX_UNPACKING_RATIO = 100
MIN_WARNING_SIZE = 1 << 20
"""Unpacked bytes from which a file can cause a warning."""


def check_free_space(directory: str | Path, size: int) -> None:
    """Raise OSError unless ``size`` bytes and a reserve are free on the disk of a directory."""
    usage = shutil.disk_usage(directory)
    free = usage.free - min(MAX_RESERVE, usage.total // 20)
    if size > free:
        raise OSError(
            errno.ENOSPC,
            f"about {format_size(size)} more are needed, and {format_size(max(free, 0))} of the disk can be used",
        )


def free_memory() -> int | None:
    """Return the bytes of memory that a process can take without swapping, or None if the system does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


def warn_about_unpacking(name: object, packed: int, unpacked: int) -> bool:
    """Warn if a file unpacks to more than 100 times its size; return whether it does. Sizes are in bytes."""
    if unpacked < MIN_WARNING_SIZE or unpacked <= MAX_UNPACKING_RATIO * packed:
        return False
    warnings.warn(
        f"{name} unpacks to more than {MAX_UNPACKING_RATIO} times its size: if you do not trust its source, check that "
        "it is not made to fill the disk",
        stacklevel=2,
    )
    return True


class GzipStream(io.RawIOBase):
    """The content of a gzip file. Warns when it is far larger than the file."""

    def __init__(self, file: Any, name: object) -> None:
        self._content = gzip.GzipFile(fileobj=file)
        self._name = name
        self._packed_size = os.fstat(file.fileno()).st_size if _has_descriptor(file) else None
        self._size = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._content.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._content.read1(len(buffer))
        buffer[: len(data)] = data
        self._size += len(data)
        if self._packed_size is not None and warn_about_unpacking(self._name, self._packed_size, self._size):
            self._packed_size = None  # one warning is enough
        return len(data)


def _has_descriptor(file: Any) -> bool:
    try:
        file.fileno()
    except (OSError, AttributeError):  # a member of an archive
        return False
    return True
