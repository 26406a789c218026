"""Sources: the files that a path, a glob, a directory, an archive or a stream stands for."""

from __future__ import annotations

import glob
import gzip
import io
import lzma
import os
import sys
import tempfile
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

from revgen.errors import CorpusError
from revgen.formatting import pluralize

FORMATS = (".txt", ".md", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
ARCHIVE_FORMAT = ".zip"
STDIN_PATHS = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, UnicodeError)
"""What reading a file raises whose compression or encoding is damaged, or unknown."""
COPY_SIZE = 1 << 20  # bytes or characters that are copied at once
MAX_SHOWN_SUFFIXES = 5
MAX_PATTERN_LENGTH = 1000  # characters: more is a text

PathLike = str | Path


class Spool:
    """A stream that can be read only once; the first reading copies it to a temporary file."""

    def __init__(self, stream: IO[Any] | Path) -> None:
        self._stream = stream
        self._copy: Path | None = None

    def path(self) -> Path:
        """Return the path of the copy. Text is copied as UTF-8. Raises CorpusError for a stream that cannot be read."""
        if self._copy is None:
            with ExitStack() as stack:
                stream: Any = self._stream
                if isinstance(stream, Path):
                    stream = stack.enter_context(stream.open("rb"))
                copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="revgen-stream-", delete=False))
                weakref.finalize(self, _remove, copy.name, os.getpid())
                try:
                    while piece := stream.read(COPY_SIZE):
                        copy.write(piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece)
                except ValueError as error:  # closed, only for writing, or not in the encoding that it was opened with
                    raise CorpusError(f"the open file cannot be read: {error}") from None
                self._copy = Path(copy.name)
        return self._copy


def _remove(name: str, process: int) -> None:
    if os.getpid() == process:  # not in a process that was forked
        with suppress(OSError):
            Path(name).unlink()


@dataclass(frozen=True)
class Source:
    """One file to read: on the disk, a member of an archive, or a spooled stream. ``is_text``: that gives strings."""

    path: Path
    member: str | None = None
    spool: Spool | None = field(default=None, compare=False)
    is_text: bool = False

    @property
    def name(self) -> Path:
        """The name for messages and for the kind of the file."""
        return self.path if self.member is None else self.path / self.member

    @property
    def is_plain(self) -> bool:
        """Whether the file itself lies on the disk."""
        return self.member is None and self.spool is None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for reading; gzip is not unpacked."""
        with ExitStack() as stack:
            if self.spool is not None:
                yield stack.enter_context(self.spool.path().open("rb"))
            elif self.member is not None:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                yield stack.enter_context(archive.open(self.member))
            else:
                yield stack.enter_context(self.path.open("rb"))

    def decompress(self, file: IO[bytes]) -> IO[bytes]:
        """Unpack what was opened where it is gzip: its name says so, or how a stream begins."""
        packed = self.name.suffix.lower() == ".gz"
        if self.spool is not None:
            packed = not self.is_text and file.read(2) == b"\x1f\x8b"
            file.seek(0)
        return cast(IO[bytes], gzip.open(file)) if packed else file

    def read_head(self, size: int) -> bytes:
        """Return the unpacked start of the file, or as much of it as can be read."""
        head = b""
        with suppress(*READ_ERRORS), self.open() as opened, self.decompress(opened) as file:
            while len(head) < size and (piece := cast(Any, file).read1(size - len(head))):
                head += piece
        return head


@dataclass
class Sources:
    """The files of a corpus, and how many others were skipped, by suffix."""

    items: list[Source] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> list[Path]:
        """The files on the disk, each archive once for all its members, and none for a stream."""
        files: list[Path] = []
        archive, member = Path(), ""
        for source in self.items:
            goes_on = source.member is not None and source.path == archive and source.member > member
            if source.spool is None and not goes_on:
                files.append(source.path)
            archive, member = (source.path, source.member) if source.member is not None else (Path(), "")
        return files

    def __str__(self) -> str:
        streams = sum(source.spool is not None and str(source.path) == STDIN_NAME for source in self.items)
        named = len(self.items) - streams
        counts = [pluralize(named, "file")] if named else []
        counts += ["standard input"] if streams else []
        if self.skipped:
            suffixes = [suffix or "without a suffix" for suffix, _ in self.skipped.most_common()]
            more = ", …" if len(suffixes) > MAX_SHOWN_SUFFIXES else ""
            counts.append(
                f"{pluralize(self.skipped.total(), 'file')} skipped ({', '.join(suffixes[:MAX_SHOWN_SUFFIXES])}{more})",
            )
        return "; ".join(counts)

    def add(self, path: PathLike, hint: str = "") -> None:
        """Add what a path or a glob stands for. Raises CorpusError where there is nothing, or it cannot be read."""
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
        except RuntimeError:  # no such user
            expanded = Path(path)
        if str(path) and _exists(expanded):
            self._add_path(expanded)
            return
        matches = _expand_glob(expanded)
        if "**" in str(path):  # which matches what is in a directory, too
            matches = [match for match in matches if not match.is_dir()]
        if not matches:
            glob_hint = "; no file matches this pattern" if glob.has_magic(str(path)) and not hint else ""
            raise CorpusError(f"there is no such file or directory{hint or glob_hint}", str(path)[:200])
        readable = [match for match in matches if match.is_dir() or _is_readable(match)]
        before = len(self.items)
        for match in readable or matches:
            self._add_path(match, required=False)
        self.skipped.update(_suffix(match) for match in matches if readable and match not in readable)
        if len(self.items) == before:
            raise CorpusError(f"nothing that matches has one of the kinds {_list_formats()}", str(path))

    def add_stream(self, stream: IO[Any]) -> None:
        """Add an open file; its name, where it has one, tells its kind."""
        if stream in (sys.stdin, getattr(sys.stdin, "buffer", None)):
            self.add("-")
            return
        name = getattr(stream, "name", None)
        path = Path(name) if isinstance(name, str) and name else Path("the open file")
        if file_format(path) == ARCHIVE_FORMAT:
            raise CorpusError("an open .zip file cannot be read: give its path", path)
        is_text = isinstance(cast(Any, stream), io.TextIOBase) or "b" not in str(getattr(stream, "mode", "b"))
        if path.suffix.lower() == ".gz":  # the content may be unpacked already: how it begins tells
            path = path.with_suffix("")
        self.items.append(Source(path, spool=Spool(stream), is_text=is_text))

    def _add_path(self, path: Path, required: bool = True) -> None:
        if path.is_dir():
            self._add_directory(path, required)
        elif not path.is_file():  # a pipe or a device
            self.items.append(Source(path, spool=Spool(path)))
        elif file_format(path) == ARCHIVE_FORMAT:
            self._add_archive(path, required)
        else:
            self.items.append(Source(path))

    def _add_directory(self, path: Path, required: bool) -> None:
        before = len(self.items)
        inside = (file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)) and file.is_file())
        for file in sorted(inside):
            if _is_readable(file):
                self._add_path(file, required=False)
            else:
                self.skipped[_suffix(file)] += 1
        if required and len(self.items) == before:
            raise CorpusError(f"the directory has no file of the kinds {_list_formats()}", path)

    def _add_archive(self, path: Path, required: bool) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(archive.infolist(), key=lambda member: member.filename)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise CorpusError(f"cannot be read as a .zip file: {error}", path) from None
        before = len(self.items)
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
        if required and len(self.items) == before:
            raise CorpusError(f"the archive has no file of the kinds {', '.join(FORMATS)}", path)


STDIN_NAME = "standard input"


@lru_cache(maxsize=1)
def _spool_stdin(stream: Any) -> Spool:
    """Return the one copy of standard input: it can be read only once in a process."""
    return Spool(getattr(stream, "buffer", stream))


def find_sources(source: Any, paths: Any) -> Sources:
    """Return the files that a source or ``paths`` names; none where the source holds texts."""
    found = Sources()
    if paths is not None:
        listed = [paths] if isinstance(paths, PathLike) else paths
        if not isinstance(listed, Iterable):
            raise CorpusError(f"paths must be a path or a list of paths, not of the type {type(paths).__name__}")
        for number, path in enumerate(listed, 1):
            if not isinstance(path, PathLike):
                raise CorpusError(f"path number {number} is of the type {type(path).__name__}, not str or Path")
            found.add(path)
        if not found.items:
            raise CorpusError("paths is an empty list: name at least one file")
    elif isinstance(source, PathLike):
        found.add(source, "; to learn from a text itself, put it in a list" if isinstance(source, str) else "")
    elif isinstance(source, list | tuple) and any(isinstance(item, Path) for item in source):
        other = next((number for number, item in enumerate(source, 1) if not isinstance(item, Path)), None)
        if other is not None:
            raise CorpusError(
                f"a list holds either texts (str) or paths (Path), not both: item number {other} is of the type "
                f"{type(source[other - 1]).__name__}; give paths of either type as paths=[…]"
            )
        for path in source:
            found.add(path)
    elif not isinstance(source, type) and callable(getattr(source, "read", None)) and hasattr(source, "readline"):
        found.add_stream(source)
    return found


def are_file_names(texts: Any) -> bool:
    """Return whether all texts of a list look like paths of files that exist."""
    return bool(texts) and all(
        isinstance(text, str) and _suffix(PurePath(text)) in (*FORMATS, ARCHIVE_FORMAT) and _exists(Path(text))
        for text in texts
    )


def file_format(path: PurePath) -> str:
    """Return the kind of a file by its name; what has no other one is text."""
    return _suffix(path) if _suffix(path) in (*FORMATS, ARCHIVE_FORMAT) else ".txt"


def stat(path: Path) -> os.stat_result:
    """Return what the system knows of a file. Raises CorpusError."""
    try:
        return path.stat()
    except OSError as error:
        raise CorpusError(f"cannot be read: {error}", path) from None


def _suffix(path: PurePath) -> str:
    suffix = path.suffix.lower()
    return PurePath(path.name[: -len(suffix)]).suffix.lower() if suffix == ".gz" else suffix


def _is_readable(path: Path) -> bool:
    return _suffix(path) in (*FORMATS, ARCHIVE_FORMAT)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL: a text
        return False


def _expand_glob(pattern: Path) -> list[Path]:
    """Return the files and directories that match a glob, in the order of their names."""
    if not glob.has_magic(str(pattern)) or len(str(pattern)) > MAX_PATTERN_LENGTH:
        return []
    try:
        found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 - of absolute patterns too
        return sorted(path for path in map(Path, found) if "__MACOSX" not in path.parts)
    except (OSError, ValueError, RecursionError):
        return []


def _list_formats() -> str:
    return ", ".join((*FORMATS, ARCHIVE_FORMAT))
