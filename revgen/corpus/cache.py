"""A cache on disk for the vocabularies and token ids of large files, named by the content they were made from.

An entry is written to a temporary file, which is then renamed, so neither a killed process nor two processes at once
can damage it. It ends with a checksum of its content. Only files of the user are entries. When they have more than
``$REVGEN_CACHE_BYTES`` in total, those that were used last are kept. The directory is ``$REVGEN_CACHE`` or, if that is
not set, ``revgen/tokens`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Everything in it may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from revgen.corpus.progress import with_progress
from revgen.corpus.readers import Corpus
from revgen.corpus.sources import file_format, stat
from revgen.errors import CorpusError, OptionError, RevgenError
from revgen.files import delete_abandoned, expand_user, is_own, open_file, replace_file
from revgen.tokenizers import Tokenizer
from revgen.version import __version__

READ_SIZE = 1 << 22  # bytes
CHECKSUM_SIZE = 4  # bytes
KEY_VERSION = 2
"""Increase it if the same text and options lead to different entries within one version of the package."""
MAX_BYTES = 10 << 30
"""The size of all entries together, unless ``$REVGEN_CACHE_BYTES`` is another number."""
ENTRY_NAME = "[0-9a-f]" * 40
"""A glob pattern for the names of entries, which ``entry_name`` makes."""

FileStamp = tuple[tuple[Path, int, int, int], ...]
"""For each file: path, size in bytes, and the times at which its content and its metadata last changed."""


def cache_directory() -> Path:
    """Return the directory of the entries.

    Raises OSError if it needs a home directory, and the user has none, or if it belongs to another user.
    """
    if directory := os.environ.get("REVGEN_CACHE"):
        path = Path(directory)
    else:
        try:
            parent = Path(os.environ.get("XDG_CACHE_HOME") or expand_user("~/.cache"))
        except OptionError:
            raise OSError("there is no home directory") from None
        if not parent.is_absolute():
            raise OSError(f"{parent} is not an absolute path")
        path = parent / "revgen" / "tokens"
    check_owner(path)
    return path


def check_owner(path: Path) -> None:
    """Raise OSError if a file belongs to another user, who could write entries that harm."""
    with suppress(FileNotFoundError):
        if not is_own(path.stat()):
            raise OSError(errno.EPERM, "it belongs to another user", str(path))


def file_stamp(corpus: Corpus) -> FileStamp:
    """Return the sizes and times of the files of a corpus. A different stamp means that the files have changed."""
    stats = [(path, stat(path)) for path in corpus.files]
    return tuple((path, result.st_size, result.st_mtime_ns, result.st_ctime_ns) for path, result in stats)


def entry_name(corpus: Corpus, *parts: Any) -> str:
    """Return the name of the entry made from the files of a corpus, its options and labels, and ``parts``."""
    formats = [file_format(path) + path.suffix for path in corpus.files]
    contents = _hash_contents(file_stamp(corpus))
    key = [__version__, KEY_VERSION, contents, formats, [corpus.options, corpus.labels], parts]
    return hashlib.blake2b(json.dumps(key, default=repr, sort_keys=True).encode(), digest_size=20).hexdigest()


@lru_cache(maxsize=16)
def _hash_contents(files: FileStamp) -> tuple[str, ...]:
    """Return the SHA-256 of each file. Raises CorpusError."""
    hashes = []
    for path, *_ in files:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise CorpusError(f"cannot be read: {error}", path) from None
    return tuple(hashes)


def open_entry(name: str) -> BufferedReader:
    """Open an entry and note that it was used. Raises OSError for anything but a regular file of the user."""
    path = cache_directory() / name
    file = open_file(path, own=True)
    with suppress(OSError):
        os.utime(path, follow_symlinks=False)
    return file


@contextmanager
def create_entry(name: str) -> Iterator[IO[bytes]]:
    """Open a file that becomes the entry ``name`` when the block ends without an error.

    Also deletes temporary files of killed processes, and old entries. Raises OSError if the file cannot be written.
    """
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.part", ".*.part"):
        delete_abandoned(directory, pattern)
    with suppress(OSError):
        (directory / name).rmdir()  # a directory cannot be replaced by a file
    with replace_file(directory / name) as file:
        yield file
    with suppress(OSError):  # another process has deleted an entry
        _delete_old_entries(directory, name)


def _delete_old_entries(directory: Path, newest: str) -> None:
    """Delete the entries that were not used for longest until the others have the allowed size."""
    limit = os.environ.get("REVGEN_CACHE_BYTES", "")
    free = int(limit) if limit.isdecimal() else MAX_BYTES
    stats = [(path.lstat(), path) for path in directory.glob(ENTRY_NAME)]
    for status, path in sorted(stats, key=lambda item: (item[1].name != newest, -item[0].st_mtime_ns)):
        free -= status.st_size
        if free < 0 and path.name != newest:
            path.unlink()


def prune() -> int:
    """Delete all entries, compiled code and measurements in the cache, and return the number of bytes freed.

    Raises OSError if the directory cannot be used.
    """
    directory, size = cache_directory(), 0
    delete_abandoned(directory, ".*.part")
    for pattern in (
        ENTRY_NAME,
        "*.part",
        "*.json",
        "programs/revgen_program_*",
        "programs/__pycache__/revgen_program_*",
    ):
        for path in directory.glob(pattern):
            with suppress(OSError):
                size_of_path = path.lstat().st_size
                path.unlink()
                size += size_of_path
    return size


def write_checksum(file: IO[bytes]) -> None:
    """Append the checksum of the content to a file."""
    file.flush()
    file.seek(0)
    checksum = _checksum(file, os.fstat(file.fileno()).st_size)
    file.seek(0, os.SEEK_END)
    file.write(checksum)


def has_valid_checksum(file: IO[bytes]) -> bool:
    """Return whether a file ends with the checksum of the bytes before it, and so is complete and undamaged."""
    size = os.fstat(file.fileno()).st_size - CHECKSUM_SIZE
    file.seek(0)
    return size >= 0 and _checksum(file, size) == file.read(CHECKSUM_SIZE)


def _checksum(file: IO[bytes], size: int) -> bytes:
    """Return the CRC-32 of the next ``size`` bytes."""
    checksum = 0
    while size and (piece := file.read(min(size, READ_SIZE))):
        checksum = zlib.crc32(piece, checksum)
        size -= len(piece)
    return checksum.to_bytes(CHECKSUM_SIZE, "little")


@cache
def warn_unusable(reason: str) -> None:
    """Warn, once for each reason, that nothing can be cached."""
    try:
        where = f" in {cache_directory()}"
    except OSError:
        where = ""
    warnings.warn(
        f"the cache of token ids{where} cannot be used, so the next run has to read the text again: {reason}; "
        "set REVGEN_CACHE to another directory",
        stacklevel=2,
    )


def train_or_load(level: type[Tokenizer], corpus: Corpus, options: dict[str, Any], progress: bool) -> Tokenizer:
    """Return ``level.train`` on the text of a corpus. For large files, the tokenizer is loaded from the cache or saved.

    Only tokenizers of this package are cached: their version shows when their code has changed.
    """
    if not (corpus.is_large and level.__module__.startswith("revgen.")):
        return _train(level, corpus, options, progress)
    stamp = file_stamp(corpus)
    name = entry_name(corpus, level.level, options)
    with suppress(OSError, RevgenError), open_entry(name) as file:
        if has_valid_checksum(file):
            file.seek(0)
            return level.from_bytes(file.read()[:-CHECKSUM_SIZE])
    tokenizer = _train(level, corpus, options, progress)
    if file_stamp(corpus) == stamp:
        try:
            with create_entry(name) as file:
                file.write(tokenizer.to_bytes())
                write_checksum(file)
        except OSError as error:
            warn_unusable(str(error))
    return tokenizer


def _train(level: type[Tokenizer], corpus: Corpus, options: dict[str, Any], progress: bool) -> Tokenizer:
    try:
        return level.train(with_progress(corpus.pieces(), corpus, "vocabulary", progress), **options)
    except CorpusError as error:  # a tokenizer reads texts and does not know their files
        raise error if error.path else CorpusError(str(error), corpus.only_file) from None
