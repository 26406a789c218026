"""A cache on disk for the vocabularies and token ids of large files, named by the content they were made from.

An entry is written to a temporary file, which is then renamed, so neither a killed process nor two processes at once
can damage it. It ends with a checksum of its content. The directory is ``$REVGEN_CACHE`` or, if that is not set,
``revgen/tokens`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Everything in it may be deleted at any time.
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

READ_SIZE = 1 << 22  # bytes
CHECKSUM_SIZE = 4  # bytes
KEY_VERSION = 2
"""Increase it if the same text and options lead to different entries within one version of the package."""
MAX_PART_AGE = 24 * 60 * 60
"""Seconds after which a temporary file is regarded as left over from a killed process, and is deleted."""

FileStamp = tuple[tuple[Path, int, int, int], ...]
"""For each file: path, size in bytes, and the times at which its content and its metadata last changed."""


def cache_directory() -> Path:
    """Return the directory of the entries. Raises OSError if it needs a home directory, and the user has none."""
    if directory := os.environ.get("REVGEN_CACHE"):
        return Path(directory)
    try:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise OSError("there is no home directory") from None
    return Path(parent, "revgen", "tokens")


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


@contextmanager
def create_entry(name: str) -> Iterator[IO[bytes]]:
    """Open a file that becomes the entry ``name`` when the block ends without an error.

    Also deletes old temporary files. Raises OSError if the file cannot be written.
    """
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.part"):
        with suppress(OSError):  # another process has deleted it
            if time.time() - path.stat().st_mtime > MAX_PART_AGE:
                path.unlink()
    file = tempfile.NamedTemporaryFile(dir=directory, prefix=name, suffix=".part", delete=False)  # noqa: SIM115
    try:
        with file:
            yield file
        Path(file.name).replace(directory / name)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


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
        return level.train(corpus.pieces(), **options)
    stamp = file_stamp(corpus)
    name = entry_name(corpus, level.level, options)
    with suppress(OSError, CheckpointError), (cache_directory() / name).open("rb") as file:
        if has_valid_checksum(file):
            file.seek(0)
            return level.from_bytes(file.read()[:-CHECKSUM_SIZE])
    tokenizer = level.train(with_progress(corpus.pieces(), corpus, "vocabulary", progress), **options)
    if file_stamp(corpus) == stamp:
        try:
            with create_entry(name) as file:
                file.write(tokenizer.to_bytes())
                write_checksum(file)
        except OSError as error:
            warn_unusable(str(error))
    return tokenizer
