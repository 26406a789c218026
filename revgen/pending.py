"""Replaces the files of a model directory in one step, even if the process is killed or the power fails.

The new files are written under pending names, ``config.json.new`` last. From then on, the new model is the valid one:
the writer renames its files, or the next writer does if this one was killed. Readers take no lock and change nothing.
They find each file under either name by its hash, and read again if a writer has replaced the model meanwhile.
"""

from __future__ import annotations

import errno
import glob
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from revgen import schema
from revgen.errors import CheckpointError
from revgen.files import delete_abandoned, hash_file, read_file, sync_directory, write_atomically

CONFIG, WEIGHTS, INDEX, CARD = "config.json", "model.safetensors", "index.safetensors", "README.md"
GENERATION_CONFIG = "generation_config.json"
UNHASHED = CARD, GENERATION_CONFIG
"""Files that config.json does not describe, so that they can be edited. A save replaces them before config.json."""
PENDING_SUFFIX = ".new"
FILE_NAMES = frozenset({CONFIG, GENERATION_CONFIG, WEIGHTS, INDEX, CARD, "vocabulary.json", "tokenizer.model"})
"""The names whose pending and temporary files are deleted after an interrupted save."""
MAX_READS = 100
"""How often a directory is read again because another process replaces the model meanwhile."""
NO_REGULAR_FILE = errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG

T = TypeVar("T")
ConfigReader = Callable[[Path], dict[str, Any] | None]
"""A function that returns the content of a config.json, or None if there is none."""


def pending(path: Path) -> Path:
    """Return the path of a new file until it replaces ``path``."""
    return path.with_name(f"{path.name}{PENDING_SUFFIX}")


# Writing


def replace_model(directory: Path, files: Mapping[str, bytes], config: bytes) -> None:
    """Replace the model in a directory, which the caller has locked, by files by name and their config.json.

    The files are those that config.json describes, and perhaps those in ``UNHASHED``. Raises OSError if it fails. The
    directory then has the old or the new model.
    """
    settle(directory, files)
    previous = {entry["file"] for entry in file_entries(read_if_valid(directory / CONFIG) or {})}
    try:
        for name, content in files.items():
            write_atomically(pending(directory / name), content, sync_name=False)
        sync_directory(directory)
        write_atomically(pending(directory / CONFIG), config)
        _rename(directory, files)
    except BaseException:
        with suppress(OSError):
            settle(directory, files)
        raise
    for name in previous - files.keys() - {CONFIG, CARD}:
        (directory / name).unlink(missing_ok=True)


def settle(directory: Path, names: Iterable[str] = ()) -> None:
    """Finish a save that was interrupted after it wrote all files; otherwise delete the files that it wrote.

    ``names`` are files that it may have written, besides ``FILE_NAMES``. The caller has locked the directory. Raises
    OSError.
    """
    entries = file_entries(read_if_valid(pending(directory / CONFIG)) or {})
    if entries and is_complete(directory, entries):
        hashed = [e["file"] for e in entries if _has_hash(pending(directory / e["file"]), e["sha256"])]
        _rename(directory, [*hashed, *(name for name in UNHASHED if pending(directory / name).is_file())])
    for name in {*FILE_NAMES, *names, *(entry["file"] for entry in entries)}:
        with suppress(IsADirectoryError, PermissionError):
            pending(directory / name).unlink(missing_ok=True)
        delete_abandoned(directory, f".{glob.escape(name)}.*part")


def _rename(directory: Path, names: Iterable[str]) -> None:
    """Rename pending files, ``config.json`` last."""
    for name in names:
        pending(directory / name).replace(directory / name)
    sync_directory(directory)
    pending(directory / CONFIG).replace(directory / CONFIG)


# Reading


def file_entries(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the entries of config.json that describe files: each has the name and the SHA-256 of one."""
    return [content[name] for name in ("weights", "tokenizer", "index") if name in content]


def find_config(directory: Path, read: ConfigReader) -> tuple[Path, dict[str, Any] | None]:
    """Return the path of the valid config.json in a directory, and what ``read`` returns for it.

    Once a save has written all files, the pending one is valid. Raises OSError.
    """
    path = directory / CONFIG
    content = read(pending(path))
    if content is not None and is_complete(directory, file_entries(content)):
        return pending(path), content
    return path, read(path)


def read_if_valid(path: Path) -> dict[str, Any] | None:
    """Return the content of a config.json; None if it is missing or damaged. Raises OSError."""
    try:
        content = schema.parse_json(read_file(path, schema.MAX_CONFIG_BYTES), path)
        schema.check_config(content, path)
    except CheckpointError:
        return None
    except OSError as error:
        if error.errno in (*NO_REGULAR_FILE, errno.EFBIG):
            return None
        raise
    return content


def is_complete(directory: Path, entries: Iterable[Mapping[str, str]]) -> bool:
    """Return whether a directory has each of these files, pending or not. Raises OSError."""
    paths = ((directory / entry["file"], entry["sha256"]) for entry in entries)
    return all(_has_hash(pending(path), sha256) or _has_hash(path, sha256) for path, sha256 in paths)


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        return hash_file(path) == sha256
    except OSError as error:
        if error.errno in NO_REGULAR_FILE:
            return False
        raise


def read_consistently(directory: Path, read: Callable[[], T]) -> T:
    """Return ``read()``; call it again if it fails because another process has replaced the model meanwhile."""
    for _ in range(MAX_READS):
        before = model_stamp(directory)
        try:
            return read()
        except CheckpointError:
            if model_stamp(directory) == before:
                raise
    return read()


def model_stamp(directory: Path) -> list[tuple[int, ...]]:
    """Return numbers that change when a process replaces the model in a directory."""
    stamps: list[tuple[int, ...]] = []
    for path in (pending(directory / GENERATION_CONFIG), pending(directory / CONFIG), directory / CONFIG):
        with suppress(OSError, ValueError):
            status = path.stat()
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return stamps
