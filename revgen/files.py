"""Reads and writes of files that survive crashes and hostile neighbors, locks, and strict JSON.

A write goes to a new file with a random name, which is flushed to disk and then renamed. A read accepts only regular
files, up to a limit of bytes. A lock belongs to a file or a directory itself, so it leaves no file, and the system
releases it when its process ends.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import secrets
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from revgen.errors import OptionError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

OPEN_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Flags with which ``os.open`` does not wait for the other end of a pipe."""
HEAD_SIZE = 16 << 20
"""The bytes at the start of a file that are checked before all of it is read."""
POLL_SECONDS = 0.005
"""How long to wait before a lock is tried again."""
LOCKED = "another process is writing to it"

JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
"""The control characters and line separators that JSON need not escape, with their escape sequences."""

Check = Callable[[bytes, int], None]


def num_processes() -> int:
    """Return how many processes ``torchrun`` has started, 1 without it."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() and "RANK" in os.environ else 1


def is_rank_zero() -> bool:
    """Return whether this process should save and print; of several processes under ``torchrun``, only rank 0 does."""
    return num_processes() == 1 or os.environ.get("RANK", "0") == "0"


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ``~`` replaced by the home directory. Raises OptionError if there is none."""
    text = os.fspath(path)
    expanded = os.path.expanduser(text)  # noqa: PTH111  Path.expanduser raises for an unknown user
    if text.startswith("~") and Path(text).parts[0] == "~" and (expanded == text or os.environ.get("HOME") == ""):
        raise OptionError(f"{text}: there is no home directory to replace ~ by; set HOME, or give another path")
    return Path(expanded)


# Reading


def open_file(path: Path, *, own: bool = False) -> BufferedReader:
    """Open a regular file for reading. Raises OSError for a pipe, a device or a directory, without waiting for it.

    With ``own``, a symbolic link and a file of another user are errors too.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # to open a device may change it
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS | NO_WAIT | (NO_FOLLOW if own else 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if own and not is_own(status):
            raise OSError(errno.EPERM, "it belongs to another user", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_own(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process."""
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def read_file(path: Path, max_bytes: int | None = None, check: Check | None = None) -> bytes:
    """Return the content of a regular file.

    Raises OSError if it has more than ``max_bytes``, or more than the memory has room for. Before the content takes
    memory, ``check`` gets the first bytes, at most ``HEAD_SIZE``, and the size of the file; it may raise ValueError.
    """
    with open_file(path) as file:
        return read_open_file(file.fileno(), max_bytes, check)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a regular file. Raises OSError."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_open_file(descriptor: int, max_bytes: int | None = None, check: Check | None = None) -> bytes:
    """Return the content of an open file, as ``read_file`` does. Several threads and processes may do so at once."""
    size = os.fstat(descriptor).st_size
    if max_bytes is not None and size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {max_bytes:,}")
    if check is not None:
        check(_read_at(descriptor, min(size, HEAD_SIZE), 0), size)
    chunks, offset = [], 0
    try:
        while offset < size and (chunk := _read_at(descriptor, min(size - offset, 1 << 30), offset)):
            chunks.append(chunk)
            offset += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except MemoryError:
        raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit into memory") from None


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


class FileHandle:
    """A file that stays readable after its directory is moved or removed, or the working directory changes.

    The file is kept open, so its content takes no memory until it is read. Pickling stores the content.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path.absolute()
        self._content = content
        self._file: IO[bytes] | None = None
        if content is None:
            with suppress(OSError):  # too many open files, or no permission: read_bytes uses the path
                self._file = open_file(path)
                weakref.finalize(self, self._file.close)

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileHandle, (self.path, self.read_bytes())

    def __copy__(self) -> FileHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FileHandle:
        return self

    def read_bytes(self, check: Check | None = None) -> bytes:
        """Return the content of the file, as ``read_file`` does, also from several threads and processes at once."""
        if self._content is not None:
            return self._content
        if self._file is None or not hasattr(os, "pread"):
            return read_file(self.path, check=check)
        return read_open_file(self._file.fileno(), check=check)


# Writing


def write_atomically(path: Path, data: bytes, *, sync_name: bool = True) -> None:
    """Write ``data`` to a new file, flush it to disk and rename it to ``path``.

    Without ``sync_name``, the caller flushes the directory.
    """
    with replace_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if sync_name:
        sync_directory(path.parent)


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file, which replaces ``path`` when the block ends and is deleted if it raises.

    Also deletes the temporary files of ``path`` that killed processes left. Raises OSError, also for a device.
    """
    if not path.name:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.is_symlink() and (path.is_char_device() or path.is_block_device()):
        raise OSError(errno.EINVAL, "a device cannot be replaced by a file", str(path))
    delete_abandoned(path.parent, f".{glob.escape(path.name)}.*part")
    temporary, file = _create_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            if fcntl is not None:
                temporary.replace(path)  # before the file is closed, which ends its lock
        if fcntl is None:
            temporary.replace(path)  # Windows cannot rename an open file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a file next to ``path`` with a random name, locked for as long as it is open."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | OPEN_FLAGS, 0o666)
        file = os.fdopen(descriptor, "w+b")
        _try_lock(descriptor)
        if fcntl is None or os.fstat(descriptor).st_nlink:
            return temporary, file
        file.close()  # another process has deleted it before it was locked


def delete_abandoned(directory: Path, pattern: str) -> None:
    """Delete the temporary files in a directory that match a glob pattern and that no process is writing."""
    for path in directory.glob(pattern):
        with suppress(OSError):
            if fcntl is None:
                path.unlink()  # fails if it is open
                continue
            with open_file(path, own=True) as file:
                if _try_lock(file.fileno()):
                    path.unlink()


def make_directory(path: Path) -> None:
    """Create a directory with its parents, unless it exists, and flush its name to disk."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to disk, so that a power loss does not undo a rename."""
    if fcntl is None:  # Windows cannot open a directory
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except PermissionError:  # a directory that only allows writing
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # this file system syncs no directories
            raise
    finally:
        os.close(descriptor)


# Locks


_held: dict[tuple[int, int], tuple[int | None, int]] = {}
"""For each file that this process has locked, by device and inode: its descriptor, and the thread that locked it."""


@contextmanager
def lock(path: Path, seconds: float = 0.0) -> Iterator[None]:
    """Lock a file or a directory during the block. The thread that has locked it may lock it again.

    Raises BlockingIOError if another process or thread still has the lock after ``seconds``. Does nothing on a file
    system without locks.
    """
    status, thread, process = path.stat(), threading.get_ident(), os.getpid()
    key = status.st_dev, status.st_ino
    if key in _held and _held[key][1] == thread:
        yield
        return
    with (_lock_descriptor if fcntl is not None else _lock_file)(path, seconds) as descriptor:
        _held[key] = descriptor, thread
        try:
            yield
        finally:
            if os.getpid() == process:
                del _held[key]


@contextmanager
def _lock_descriptor(path: Path, seconds: float) -> Iterator[int]:
    """Lock a file or a directory itself, which leaves no file. The system unlocks it when the process ends."""
    process, deadline = os.getpid(), time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS | NO_WAIT)
    try:
        while _try_lock(descriptor) is False:
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EAGAIN, LOCKED, str(path))
            time.sleep(POLL_SECONDS)
        yield descriptor
    finally:
        if os.getpid() == process:  # a forked process has closed it
            os.close(descriptor)


@contextmanager
def _lock_file(path: Path, seconds: float) -> Iterator[None]:
    """Lock a file in the directory for temporary files that is named after ``path``; for Windows."""
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogatepass")).hexdigest()
    try:
        with FileLock(Path(tempfile.gettempdir(), f"revgen-{name}.lock"), seconds):
            yield
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, LOCKED, str(path)) from None


def _try_lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed. Return False if it is locked already, None if locks are not supported."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


def _release_in_child() -> None:
    """Close the locked files in a forked process: otherwise they stay locked when only the parent ends."""
    for descriptor, _ in _held.values():
        if descriptor is not None:
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


# JSON


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

    Control characters and the line separators of Unicode are always escaped, so that a terminal can show the text and
    every reader of JSON lines finds the same lines.
    """
    text = to_json(value, ensure_ascii=False, **options)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # also a lone surrogate
        return to_json(value, **options)
    return text.translate(JSON_ESCAPES)


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
