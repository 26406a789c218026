"""Sources: the files that a path, a glob, a directory, an archive or a stream refers to."""

from __future__ import annotations

import errno
import glob
import io
import lzma
import os
import sys
import tempfile
import time
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import IO, Any, cast

from revgen.corpus.disk import GzipStream, check_free_space, warn_about_unpacking
from revgen.display.formatting import pluralize
from revgen.errors import CorpusError
from revgen.files import NO_WAIT, OPEN_FLAGS, POLL_SECONDS

FORMATS = (".txt", ".md", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
ARCHIVE_FORMAT = ".zip"
STDIN_PATHS = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
STDIN_NAME = "standard input"
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, UnicodeError)
"""The exceptions raised by reading a file whose compression or encoding is damaged or unknown."""
COPY_SIZE = 1 << 20  # bytes or characters
PIPE_SECONDS = 1.0
"""How long to wait for a process that writes to a pipe."""
MAX_SHOWN_SUFFIXES = 5
MAX_PATTERN_LENGTH = 1000  # characters: a longer string is a text

PathLike = str | Path


class Spool:
    """A stream that can be read only once. It is copied to a temporary file when it is first read."""

    def __init__(self, stream: IO[Any] | Path) -> None:
        self._stream = stream
        self._copy: Path | None = None

    def path(self) -> Path:
        """Return the path of the copy. Strings are copied as UTF-8. Raises CorpusError for an unreadable stream."""
        if self._copy is None:
            stream = self._stream
            pieces = (
                read_pipe(stream) if isinstance(stream, Path) else iter(lambda: stream.read(COPY_SIZE) or None, None)
            )
            with tempfile.NamedTemporaryFile(prefix="revgen-stream-", delete=False) as copy:
                weakref.finalize(self, _remove, copy.name, os.getpid())
                try:
                    for piece in pieces:
                        check_free_space(tempfile.gettempdir(), len(piece))
                        copy.write(piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece)
                except ValueError as error:  # closed, opened only for writing, or opened with the wrong encoding
                    raise CorpusError(f"the open file cannot be read: {error}") from None
                self._copy = Path(copy.name)
        return self._copy


def read_pipe(path: Path) -> Iterator[bytes]:
    """Yield the content of a pipe. Raises OSError if no process opens it for writing within a second."""
    deadline = time.monotonic() + PIPE_SECONDS
    with open(os.open(path, os.O_RDONLY | OPEN_FLAGS | NO_WAIT), "rb", buffering=0) as pipe:  # noqa: PTH123
        while (piece := pipe.read(COPY_SIZE)) == b"":  # None if there is a process that has not written anything yet
            if time.monotonic() > deadline:
                raise OSError(errno.EPIPE, "it is a pipe to which no process writes", str(path))
            time.sleep(POLL_SECONDS)
        os.set_blocking(pipe.fileno(), True)
        while piece != b"":
            yield piece or b""
            piece = pipe.read(COPY_SIZE)


def _remove(name: str, process: int) -> None:
    if os.getpid() == process:  # a forked process must not remove the file of its parent
        with suppress(OSError):
            Path(name).unlink()


@dataclass(frozen=True)
class Source:
    """A file to read: on disk, a member of an archive, or a spooled stream."""

    path: Path
    member: str | None = None
    spool: Spool | None = field(default=None, compare=False)
    is_text: bool = False
    """Whether the stream returned strings, so that its copy is UTF-8."""

    @property
    def name(self) -> Path:
        """The name for messages, which also determines the format."""
        return self.path if self.member is None else self.path / self.member

    @property
    def is_plain(self) -> bool:
        """Whether the source is a file on disk, neither a member of an archive nor a stream."""
        return self.member is None and self.spool is None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for reading. Content compressed with gzip stays compressed."""
        with ExitStack() as stack:
            if self.spool is not None:
                yield stack.enter_context(self.spool.path().open("rb"))
            elif self.member is not None:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                info = archive.getinfo(self.member)
                warn_about_unpacking(self.name, info.compress_size, info.file_size)
                member = stack.enter_context(archive.open(info))
                yield io.BufferedReader(cast(io.RawIOBase, member))  # its own readline with a limit is slow
            else:
                yield stack.enter_context(self.path.open("rb"))

    def decompress(self, file: IO[bytes]) -> IO[bytes]:
        """Return the opened file, decompressed if it is gzip: by its name, or by the first bytes of a stream."""
        is_gzip = self.name.suffix.lower() == ".gz"
        if self.spool is not None:
            is_gzip = not self.is_text and file.read(2) == b"\x1f\x8b"
            file.seek(0)
        return io.BufferedReader(GzipStream(file, self.name), COPY_SIZE) if is_gzip else file

    def read_head(self, size: int) -> bytes:
        """Return the first ``size`` bytes of the decompressed file, or fewer if the rest cannot be read."""
        head = b""
        with suppress(*READ_ERRORS), self.open() as opened, self.decompress(opened) as file:
            while len(head) < size and (piece := cast(Any, file).read1(size - len(head))):
                head += piece
        return head


@dataclass
class Sources:
    """The files of a corpus, and the number of skipped files for each suffix."""

    items: list[Source] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> list[Path]:
        """The files on disk. An archive is listed once for all its members, a stream not at all."""
        files: list[Path] = []
        archive, member = Path(), ""
        for source in self.items:
            is_same_archive = source.member is not None and source.path == archive and source.member > member
            if source.spool is None and not is_same_archive:
                files.append(source.path)
            archive, member = (source.path, source.member) if source.member is not None else (Path(), "")
        return files

    def __str__(self) -> str:
        num_stdin = sum(source.spool is not None and str(source.path) == STDIN_NAME for source in self.items)
        num_files = len(self.items) - num_stdin
        parts = [pluralize(num_files, "file")] if num_files else []
        parts += [STDIN_NAME] if num_stdin else []
        if self.skipped:
            suffixes = [suffix or "without a suffix" for suffix, _ in self.skipped.most_common()]
            shown = ", ".join(suffixes[:MAX_SHOWN_SUFFIXES]) + (", …" if len(suffixes) > MAX_SHOWN_SUFFIXES else "")
            parts.append(f"{pluralize(self.skipped.total(), 'file')} skipped ({shown})")
        return "; ".join(parts)

    def add(self, path: PathLike, hint: str = "") -> None:
        """Add the files of a path or glob. Raises CorpusError, with ``hint``, if nothing is found or readable."""
        try:
            self._add(path, hint)
        except OSError as error:
            raise CorpusError(f"cannot be read: {error}", str(path)) from None

    def _add(self, path: PathLike, hint: str) -> None:
        if str(path) in STDIN_PATHS:
            if sys.stdin is None:
                raise CorpusError("there is no standard input", str(path))
            self.items.append(Source(Path(STDIN_NAME), spool=_spool_stdin(sys.stdin)))
            return
        try:
            expanded = Path(path).expanduser()
        except RuntimeError:  # an unknown user
            expanded = Path(path)
        if str(path) and _exists(expanded):
            self._add_path(expanded)
        else:
            self._add_matches(path, expanded, hint)

    def _add_matches(self, path: PathLike, expanded: Path, hint: str) -> None:
        """Add the files and directories that match a glob: those in a supported format if there are any, else all."""
        matches = _expand_glob(expanded)
        if "**" in str(path):  # it matches the files in each directory too
            matches = [match for match in matches if not match.is_dir()]
        if not matches:
            glob_hint = "; no file matches this pattern" if glob.has_magic(str(path)) and not hint else ""
            raise CorpusError(f"there is no such file or directory{hint or glob_hint}", str(path)[:200])
        readable = [match for match in matches if match.is_dir() or _is_readable(match)]
        num_before = len(self.items)
        for match in readable or matches:
            self._add_path(match, is_required=False)
        self.skipped.update(_suffix(match) for match in matches if readable and match not in readable)
        if len(self.items) == num_before:
            raise CorpusError(f"no match has a supported format ({_list_formats()})", str(path))

    def add_stream(self, stream: IO[Any]) -> None:
        """Add an open file. Its name indicates its format; without a name, it is text."""
        if stream in (sys.stdin, getattr(sys.stdin, "buffer", None)):
            self.add("-")
            return
        name = getattr(stream, "name", None)
        path = Path(name) if isinstance(name, str) and name else Path("the open file")
        if file_format(path) == ARCHIVE_FORMAT:
            raise CorpusError("an open .zip file cannot be read: give its path", path)
        is_text = isinstance(cast(Any, stream), io.TextIOBase) or "b" not in str(getattr(stream, "mode", "b"))
        if path.suffix.lower() == ".gz":  # its content may be decompressed already, so its first bytes decide
            path = path.with_suffix("")
        self.items.append(Source(path, spool=Spool(stream), is_text=is_text))

    def _add_path(self, path: Path, is_required: bool = True) -> None:
        if path.is_dir():
            self._add_directory(path, is_required)
        elif not path.is_file():  # a pipe
            if path.is_char_device() or path.is_block_device():
                raise CorpusError("is a device, not a file", path)
            self.items.append(Source(path, spool=Spool(path)))
        elif file_format(path) == ARCHIVE_FORMAT:
            self._add_archive(path, is_required)
        else:
            self.items.append(Source(path))

    def _add_directory(self, path: Path, is_required: bool) -> None:
        num_before, skipped = len(self.items), Counter[str]()
        files = (file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)) and file.is_file())
        for file in sorted(files):
            if _is_readable(file):
                self._add_path(file, is_required=False)
            else:
                skipped[_suffix(file)] += 1
        self.skipped.update(skipped)
        if is_required and len(self.items) == num_before:
            message = f"the directory has no file in a supported format ({_list_formats()})"
            for suffix, _ in skipped.most_common(1):
                message += f"; a glob such as {path / '**' / f'*{suffix}'} reads other files as text"
            raise CorpusError(message, path)

    def _add_archive(self, path: Path, is_required: bool) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(archive.infolist(), key=lambda member: member.filename)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise CorpusError(f"cannot be read as a .zip file: {error}", path) from None
        num_before = len(self.items)
        for member in members:
            name = PurePath(member.filename)
            if member.is_dir() or _is_hidden(name):
                continue
            if _suffix(name) not in FORMATS:
                self.skipped[_suffix(name)] += 1
            elif member.flag_bits & 1:
                raise CorpusError("is encrypted: unpack the archive with its password first", path / name)
            else:
                self.items.append(Source(path, member.filename))
        if is_required and len(self.items) == num_before:
            raise CorpusError(f"the archive has no file in a supported format ({', '.join(FORMATS)})", path)


@lru_cache(maxsize=1)
def _spool_stdin(stream: Any) -> Spool:
    """Return the spool of standard input, always the same one because the stream can be read only once."""
    return Spool(getattr(stream, "buffer", stream))


def find_sources(source: Any, paths: Any) -> Sources:
    """Return the files of ``source`` or ``paths``, none if ``source`` holds texts. Raises CorpusError."""
    sources = Sources()
    if paths is not None:
        _add_paths(sources, paths)
    elif isinstance(source, PathLike):
        sources.add(source, "; to train on the text itself, put it in a list" if isinstance(source, str) else "")
    elif isinstance(source, list | tuple) and any(isinstance(item, Path) for item in source):
        other = next((number for number, item in enumerate(source, 1) if not isinstance(item, Path)), None)
        if other is not None:
            raise CorpusError(
                f"a list holds either texts (str) or paths (Path), not both: item {other} is of type "
                f"{type(source[other - 1]).__name__}; give paths of either type as paths=[…]"
            )
        for path in source:
            sources.add(path)
    elif not isinstance(source, type) and callable(getattr(source, "read", None)) and hasattr(source, "readline"):
        sources.add_stream(source)
    return sources


def _add_paths(sources: Sources, paths: Any) -> None:
    """Add the files of the parameter ``paths`` of ``read``: a path or an iterable of paths."""
    if isinstance(paths, PathLike):
        paths = [paths]
    if not isinstance(paths, Iterable):
        raise CorpusError(f"paths must be a path or a list of paths, not a value of type {type(paths).__name__}")
    for number, path in enumerate(paths, 1):
        if not isinstance(path, PathLike):
            raise CorpusError(f"path {number} is of type {type(path).__name__}, not str or Path")
        sources.add(path)
    if not sources.items:
        raise CorpusError("paths is an empty list: name at least one file")


def are_file_names(texts: Any) -> bool:
    """Return whether all texts of a list look like the names of existing files."""
    return bool(texts) and all(
        isinstance(text, str) and _is_readable(PurePath(text)) and _exists(Path(text)) for text in texts
    )


def file_format(path: PurePath) -> str:
    """Return the format of a file by its suffix, such as ``.csv`` for ``a.csv.gz``; ``.txt`` for unknown suffixes."""
    return _suffix(path) if _is_readable(path) else ".txt"


def stat(path: Path) -> os.stat_result:
    """Return the status of a file. Raises CorpusError."""
    try:
        return path.stat()
    except OSError as error:
        raise CorpusError(f"cannot be read: {error}", path) from None


def _suffix(path: PurePath) -> str:
    """Return the suffix of a path in lower case, without ``.gz``."""
    suffix = path.suffix.lower()
    return PurePath(path.name[: -len(suffix)]).suffix.lower() if suffix == ".gz" else suffix


def _is_readable(path: PurePath) -> bool:
    """Return whether the suffix of a path is one of a supported format."""
    return _suffix(path) in (*FORMATS, ARCHIVE_FORMAT)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text: too long for a name, or with a NUL
        return False


def _expand_glob(pattern: Path) -> list[Path]:
    """Return the files and directories that match a glob, sorted by name."""
    if not glob.has_magic(str(pattern)) or len(str(pattern)) > MAX_PATTERN_LENGTH:
        return []
    try:
        matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - Path.glob rejects absolute patterns
        return sorted(path for path in map(Path, matches) if "__MACOSX" not in path.parts)
    except (OSError, ValueError, RecursionError):
        return []


def _list_formats() -> str:
    return ", ".join((*FORMATS, ARCHIVE_FORMAT))
