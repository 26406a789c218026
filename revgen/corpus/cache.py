"""What was made from large files, kept for the next run: a directory whose entries are named by what they were made of.

An entry is written under a temporary name and renamed, so that a process which is killed, or two at once, do no harm,
and it ends with a checksum of all of it. The directory is ``$REVGEN_CACHE``, or ``revgen/tokens`` in
``$XDG_CACHE_HOME`` or ``~/.cache``; all that is in it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

from revgen.corpus.progress import with_progress
from revgen.corpus.readers import Corpus
from revgen.corpus.sources import file_format, stat
from revgen.errors import CheckpointError, CorpusError
from revgen.tokenizers import Tokenizer
from revgen.version import __version__

READ_SIZE = 1 << 22  # bytes that are read at once
CHECKSUM_SIZE = 4  # bytes
KEY_VERSION = 2
"""Changes where the same text and options give other entries, within one version of the package."""
MAX_PART_AGE = 24 * 60 * 60
"""Seconds after which a temporary file is one that a killed process left."""

FileStamp = tuple[tuple[Path, int, int, int], ...]
"""The files of a corpus, with what changes where their content does: bytes, and the times of the last changes."""


def cache_directory() -> Path:
    """Where the entries lie. Raises OSError where that needs a home directory and there is none."""
    if named := os.environ.get("REVGEN_CACHE"):
        return Path(named)
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise OSError("there is no home directory") from None
    return Path(caches, "revgen", "tokens")


def file_stamp(corpus: Corpus) -> FileStamp:
    """What to compare in order to see whether the files have changed meanwhile."""
    states = [(path, stat(path)) for path in corpus.files]
    return tuple((path, now.st_size, now.st_mtime_ns, now.st_ctime_ns) for path, now in states)


def entry_name(corpus: Corpus, *what: Any) -> str:
    """The name of what is made from the content of a corpus, as its options have it read, and from ``what``."""
    read = [corpus.options, corpus.labels]
    kinds = [file_format(path) + path.suffix for path in corpus.files]
    made_of = [__version__, KEY_VERSION, _hash_contents(file_stamp(corpus)), kinds, read, what]
    whole = json.dumps(made_of, default=repr, sort_keys=True)
    return hashlib.blake2b(whole.encode(), digest_size=20).hexdigest()


@lru_cache(maxsize=16)
def _hash_contents(files: FileStamp) -> tuple[str, ...]:
    """A hash of the bytes of each file."""
    hashes = []
    for path, *_ in files:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise CorpusError(f"cannot be read: {error}", path) from None
    return tuple(hashes)


@contextmanager
def create_entry(name: str) -> Iterator[IO[bytes]]:
    """A file that is the entry of that name from the end of the block on. Raises OSError where it cannot be written."""
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.part"):
        with suppress(OSError):  # gone already
            if time.time() - left.stat().st_mtime > MAX_PART_AGE:
                left.unlink()
    file = tempfile.NamedTemporaryFile(dir=folder, prefix=name, suffix=".part", delete=False)  # noqa: SIM115
    try:
        with file:
            yield file
        Path(file.name).replace(folder / name)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def write_checksum(file: IO[bytes]) -> None:
    """End what was written to a file with its checksum."""
    file.flush()
    file.seek(0)
    checksum = _checksum(file, os.fstat(file.fileno()).st_size)
    file.seek(0, os.SEEK_END)
    file.write(checksum)


def has_valid_checksum(file: IO[bytes]) -> bool:
    """Whether a file ends with the checksum of what comes before, and so is as it was written."""
    size = os.fstat(file.fileno()).st_size - CHECKSUM_SIZE
    file.seek(0)
    return size >= 0 and _checksum(file, size) == file.read(CHECKSUM_SIZE)


def _checksum(file: IO[bytes], size: int) -> bytes:
    checksum = 0
    while size and (piece := file.read(min(size, READ_SIZE))):
        checksum = zlib.crc32(piece, checksum)
        size -= len(piece)
    return checksum.to_bytes(CHECKSUM_SIZE, "little")


@cache
def warn_unusable(reason: str) -> None:
    """Warn once that there is no cache."""
    try:
        where = f" in {cache_directory()}"
    except OSError:
        where = ""
    warnings.warn(
        f"the cache of token ids{where} cannot be used, the next run reads the text again: {reason}; "
        "REVGEN_CACHE names another directory",
        stacklevel=2,
    )


def train_or_load(level: type[Tokenizer], corpus: Corpus, options: dict[str, Any], progress: bool) -> Tokenizer:
    """``level.train`` on the text of a corpus; that of large files comes from the cache, or goes there.

    A level from elsewhere learns anew each time: nothing tells when its code has changed.
    """
    if not (corpus.is_large and level.__module__.startswith("revgen.")):
        return level.train(corpus.pieces(), **options)
    before = file_stamp(corpus)
    name = entry_name(corpus, level.level, options)
    with suppress(OSError, CheckpointError), (cache_directory() / name).open("rb") as file:
        if has_valid_checksum(file):
            file.seek(0)
            return level.from_bytes(file.read()[:-CHECKSUM_SIZE])
    tokenizer = level.train(with_progress(corpus.pieces(), corpus, "vocabulary", progress), **options)
    if file_stamp(corpus) == before:
        try:
            with create_entry(name) as file:
                file.write(tokenizer.to_bytes())
                write_checksum(file)
        except OSError as error:
            warn_unusable(str(error))
    return tokenizer
