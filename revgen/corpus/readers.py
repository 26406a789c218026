"""Readers: documents from files of many kinds, a directory, or anything that yields strings.

A document comes in blocks, so that a file of any length is read in little memory.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from io import BufferedReader
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from revgen.arguments import checked
from revgen.corpus.labels import Label, parse_label, sorted_labels
from revgen.errors import CorpusError, MissingExtraError, OptionError
from revgen.files import expand_user
from revgen.options import shown

Block = tuple[str, bool]
"""A piece of a document, and whether it is the last one."""

Item = TypeVar("Item")

BLOCK = 1 << 20  # characters
LINE = 1 << 20  # bytes: a longer line is read in pieces
LARGE = 32 << 20  # bytes: files of less are read in a moment


class Corpus:
    """Documents that can be read again and again: iterate over it for one string each.

    ``files`` are those to read, none where the texts are in memory. ``skipped`` counts what the last reading passed
    over, where ``errors="skip"``, and ``first_skipped`` says what was first. ``label`` is that of the document which is
    being read, None for one without.
    """

    def __init__(
        self, source: Any, field: str = "text", documents: str = "file", errors: str = "raise", labels: Any = None
    ) -> None:
        for name, value, allowed in (("documents", documents, ("file", "line")), ("errors", errors, ("raise", "skip"))):
            if value not in allowed:
                raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")
        self.field = field
        self.documents = documents
        self.errors = errors
        self.skipped = 0
        self.first_skipped = ""
        self.label: Label | None = None
        self.files = _files(source)
        self._file: BufferedReader | None = None
        self._behind = 0  # bytes of the files that were read before it
        self._texts = None if self.files else _texts(source, field)
        self._spool: IO[str] | None = None
        self._source = source
        self._labels: str | list[Label | None] | None = None
        if labels is not None:
            self._set_labels(labels)

    def __iter__(self) -> Iterator[str]:
        parts: list[str] = []
        for block, last in self.blocks():
            parts.append(block)
            if last:
                yield "".join(parts)
                parts = []

    def blocks(self) -> Iterator[Block]:
        """The documents in pieces: (text, whether the document ends with it). Empty documents are left out."""
        self.skipped, self.first_skipped = 0, ""
        self.label = None
        self._behind = 0
        if self._texts is not None:
            yield from self._from_memory()
        else:
            for path in self._labelled(self.files):
                yield from READERS[kind(path)](path, self)
                self._file = None
                self._behind += state(path).st_size

    def pieces(self) -> Iterator[str]:
        """The text of the blocks: all there is to read where documents do not matter."""
        return (text for text, _ in self.blocks())

    @property
    def sources(self) -> str:
        """How many files are read; empty where the texts are in memory."""
        return f"{len(self.files):,} files" if len(self.files) > 1 else "1 file" if self.files else ""

    @property
    def size(self) -> int:
        """The bytes of the files, as they lie on the disk; 0 where the texts are in memory."""
        return sum(state(path).st_size for path in self.files)

    @property
    def is_large(self) -> bool:
        """Whether reading the files takes so long that a bar and a cache are worth it."""
        return self.size >= LARGE

    @property
    def place(self) -> int:
        """How many of these bytes the present reading has passed."""
        if self._file is None:
            return self._behind
        return self._behind + (state(Path(self._file.name)).st_size if self._file.closed else self._file.tell())

    def labelled(self, labels: Any) -> Corpus:
        """The same documents with labels, as ``read`` takes them."""
        corpus = copy(self)
        corpus._set_labels(labels)
        return corpus

    def label_names(self) -> list[Label]:
        """Return the labels that there are, sorted; the corpus is read for them."""
        if self._labels is None:
            return []
        return sorted_labels(self.label for _, last in self.blocks() if last and self.label is not None)

    @property
    def label_field(self) -> str | None:
        """The column or JSON field with the label."""
        return self._labels if isinstance(self._labels, str) else None

    @property
    def fields(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys([self.field, self.label_field or self.field]))

    def document(self, text: str, row: Mapping[str, Any], path: Path, number: int) -> Iterator[Block]:
        """Yield the document of a row, with its label where that is in a field; a missing label is an error."""
        if not text:
            return
        if self.label_field is not None:
            self.label = parse_label(row.get(self.label_field))
            if self.label is None:
                self.bad(f"the row has no label in {self.label_field!r}", path, number)
                return
        yield text, True

    @property
    def labels(self) -> str | list[Label | None] | None:
        """The labels of the texts or files, or the field that holds them."""
        return self._labels

    @contextmanager
    def open(self, path: Path, *damages: type[Exception]) -> Iterator[BufferedReader]:
        """One of the files for reading, unpacked. What is damaged is an error, or the rest of the file is skipped."""
        caught: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *damages)
        try:
            with ExitStack() as stack:
                file = self._file = stack.enter_context(path.open("rb"))
                packed = path.name.endswith(".gz")
                yield cast(BufferedReader, stack.enter_context(gzip.open(file))) if packed else file
        except caught as error:
            if getattr(error, "errno", None) is not None:  # of the system, not of the content
                raise CorpusError(f"cannot be read: {error}", path) from None
            self.bad(f"cannot be read any further, it is damaged: {error}", path)

    def bad(self, message: str, path: Path | None = None, line: int | None = None) -> None:
        """Raise a CorpusError, or count it where errors are skipped."""
        error = CorpusError(message, path, line)
        if self.errors == "raise":
            raise error
        self.skipped += 1
        self.first_skipped = self.first_skipped or str(error)

    def _from_memory(self) -> Iterator[Block]:
        for number, text in enumerate(self._labelled(self._again()), 1):
            if not isinstance(text, str):
                self.bad(f"text number {number} is of the type {type(text).__name__}, not a string")
            elif text:
                yield text, True

    def _set_labels(self, labels: Any) -> None:
        if isinstance(labels, str) and self._texts is not None:
            labels = _texts(self._source, labels) if _columns(self._source) is not None else None
        if isinstance(labels, str):
            self._labels = labels
        elif isinstance(labels, Iterable):
            self._labels = list(map(parse_label, labels))
        else:
            raise OptionError("labels must be one for each text or file, or name the field that holds them")

    def _labelled(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, texts or files, with ``label`` set to that of each where they have one."""
        if not isinstance(self._labels, list):
            yield from items
            return
        nothing: Any = object()
        for number, (item, label) in enumerate(zip_longest(items, self._labels, fillvalue=nothing), 1):
            if item is nothing or label is nothing:
                raise OptionError(f"labels must be one for each text or file: {len(self._labels)} are not as many")
            if label is None:
                what = shown(str(item))
                raise OptionError(f"labels has none for number {number}, {what}: give it one, or leave it out")
            self.label = label
            yield item

    def _again(self) -> Iterator[Any]:
        """The texts; what can be iterated over only once goes to a temporary file first."""
        if isinstance(self._texts, Iterator) and self._spool is None:
            spool = cast(IO[str], tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
            for text in self._texts:
                spool.write(json.dumps(text if isinstance(text, str) else None) + "\n")
            self._spool = spool
        if self._spool is None:
            yield from cast(Iterable[Any], self._texts)
        else:
            self._spool.seek(0)
            yield from map(json.loads, self._spool)


@checked
def read(
    source: Any, *, field: str = "text", documents: str = "file", errors: str = "raise", labels: Any = None
) -> Corpus:
    """Documents from a path, several, a directory, or from strings.

    - A path, or a list of paths: ``.txt``, ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` (with the extra
      ``parquet``), and ``.gz`` of each; a file of another name is read as text. A directory: all files of these
      kinds in it, in the order of their names. A list of strings is one of paths where they all exist.
    - A list or iterator of strings, or a column of pandas or ``datasets``: one document each.

    ``field`` names the column or the JSON field; ``documents="line"`` makes each line of a text file a
    document of its own, where otherwise the file is one; ``errors="skip"`` passes over lines that cannot be
    read, and over the rest of a damaged file, and counts them. Raises CorpusError with the file and the line otherwise.

    ``labels`` is one for each text or for each file, or the name of the column or field with the label of each
    document. A label is a string or a whole number; a missing one is an error that names the row.
    """
    if isinstance(source, Corpus):
        return source if labels is None else source.labelled(labels)
    return Corpus(source, field, documents, errors, labels)


def _files(source: Any) -> list[Path]:
    """The files that a source names; none where it holds texts."""
    if isinstance(source, str | Path):
        items = [source]
    elif isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        items = list(source)
        if not any(isinstance(item, Path) or _exists(item) for item in items):
            return []
    else:
        return []
    files = []
    for item in items:
        path, there = expand_user(item), _exists(item)
        if there and path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in READERS)
            if not inside:
                raise CorpusError(f"the directory has no file of the kinds {', '.join(READERS)}", path)
            files += inside
        elif there and path.is_file():
            files.append(path)
        else:
            hint = "; to learn from a text itself, put it in a list" if isinstance(source, str) else ""
            raise CorpusError(f"there is no such file or directory{hint}", str(path)[:200])
    return files


def _exists(item: str | Path) -> bool:
    try:
        return item != "" and expand_user(item).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL: a text
        return False


def _texts(source: Any, field: str) -> Iterable[Any]:
    columns = _columns(source)
    if columns is not None:
        if field not in columns:
            raise CorpusError(f"the table has no column {field!r}; it has {', '.join(map(str, columns))}")
        source = source[field]
    if not isinstance(source, Iterable) or isinstance(source, bytes | dict):
        raise CorpusError(f"cannot read text from an object of the type {type(source).__name__}")
    return source


def _columns(source: Any) -> Any:
    """The columns of a whole table of pandas or datasets; None for anything else."""
    return None if isinstance(source, list) else getattr(source, "column_names", getattr(source, "columns", None))


def state(path: Path) -> os.stat_result:
    """What the system knows of a file."""
    try:
        return path.stat()
    except OSError as error:
        raise CorpusError(f"cannot be read: {error}", path) from None


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def kind(path: Path) -> str:
    """The kind of a file by its name; what is of no other one is text."""
    return _suffix(path) if _suffix(path) in READERS else ".txt"


def _lines(path: Path, corpus: Corpus) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers and ends. A line that is not UTF-8 is an error with its number."""
    return _pieces_of_lines(path, corpus, -1, 0, 1, 0)


def _pieces_of_lines(
    path: Path, corpus: Corpus, longest: int, offset: int, number: int, size: int
) -> Iterator[tuple[int, str]]:
    """The lines from byte ``offset`` on, which is byte ``size`` of line ``number``; one of more than ``longest`` bytes
    comes in pieces."""
    bad = False  # whether the rest of the line is skipped
    decoder = codecs.getincrementaldecoder("utf-8")()
    with corpus.open(path) as file:
        file.seek(offset)
        while raw := file.readline(longest):
            while raw.endswith(b"\r") and (more := file.readline(1)):
                raw += more
            ends = raw.endswith(b"\n")
            size += len(raw)
            try:
                if not bad:
                    line = decoder.decode(raw, final=ends)
                    if number == 1 and size == len(raw):
                        line = line.removeprefix("\ufeff")
                    yield number, line.replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                decoder.reset()
                byte = size - len(error.object) + error.start + 1
                corpus.bad(f"not valid UTF-8: {error.reason} at byte {byte} of the line", path, number)
                bad = True
            if ends:
                number, size, bad = number + 1, 0, False
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            corpus.bad(f"not valid UTF-8: {error.reason}", path, number)


def _text(path: Path, corpus: Corpus) -> Iterator[str]:
    """The text of a file in large pieces, which is several times as fast as lines; from a bad one on, line by line."""
    offset, number, size = 0, 1, 0  # what was read: bytes, the line that it ends in, bytes of that line
    decoder = codecs.getincrementaldecoder("utf-8")()
    with corpus.open(path) as file:
        good = True
        while good and (raw := file.read1(BLOCK)):
            while raw.endswith(b"\r") and (more := file.read(1)):
                raw += more
            try:
                text = decoder.decode(raw)
            except UnicodeDecodeError:
                good = False
            else:
                yield (text if offset else text.removeprefix("\ufeff")).replace("\r\n", "\n")
                offset += len(raw)
                number += raw.count(b"\n")
                size = len(raw) - raw.rfind(b"\n") - 1 + (0 if b"\n" in raw else size)
        waiting = len(decoder.getstate()[0])  # bytes of a character whose others did not come
        if waiting or not good:
            lines = _pieces_of_lines(path, corpus, LINE, offset - waiting, number, size - waiting)
            yield from (line for _, line in lines)


def _read_text(path: Path, corpus: Corpus) -> Iterator[Block]:
    if corpus.label_field is not None:
        raise CorpusError(f"a file of text has no field {corpus.label_field!r} with labels", path)
    if corpus.documents == "line":
        for _, line in _lines(path, corpus):
            if line.strip():
                yield line.rstrip("\n"), True
        return
    waiting, size = [], 0
    for text in _text(path, corpus):
        waiting.append(text)
        size += len(text)
        if size >= BLOCK:
            block, rest = _cut("".join(waiting))
            yield block, False
            waiting, size = [rest], len(rest)
    if rest := "".join(waiting):
        yield rest, True


def _cut(text: str) -> tuple[str, str]:
    """A block cut before the white space of its last word, and the rest, so that tokens stay whole."""
    start = max(len(text) - BLOCK // 8, 0)
    space = max(text.rfind(" ", start), text.rfind("\n", start))
    at = len(text[:space].rstrip(" \n")) if space > start else 0
    at = at if at > start else len(text) - 1
    return text[:at], text[at:]


def _read_delimited(delimiter: str) -> Callable[[Path, Corpus], Iterator[Block]]:
    def read_rows(path: Path, corpus: Corpus) -> Iterator[Block]:
        csv.field_size_limit(1 << 30)
        rows = csv.DictReader((line for _, line in _lines(path, corpus)), delimiter=delimiter, strict=True)
        skipped = corpus.skipped
        try:
            names = rows.fieldnames or ()
        except csv.Error as error:
            raise CorpusError(f"the names of the columns cannot be read: {error}", path, 1) from None
        if not names and corpus.skipped > skipped:
            return  # what is damaged from its start on
        for field in corpus.fields:
            if field not in names:
                raise CorpusError(f"no column {field!r}; it has {', '.join(names)}", path, 1)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                what = str(error)
                if what == "unexpected end of data":
                    what = "it opens a quote that is never closed, which takes in all that follows"
                corpus.bad(f"the row behind line {rows.line_num}: {what}", path, rows.reader.line_num)
                continue
            if row[corpus.field] is None:
                corpus.bad(f"the row has no column {corpus.field!r}: too few fields", path, rows.line_num)
            else:
                yield from corpus.document(row[corpus.field], row, path, rows.line_num)

    return read_rows


def _read_jsonl(path: Path, corpus: Corpus) -> Iterator[Block]:
    for number, line in _lines(path, corpus):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row[corpus.field]
            if not isinstance(text, str):
                raise TypeError(f"is of the type {type(text).__name__}, not a string")
        except (ValueError, RecursionError) as error:
            corpus.bad(f"not valid JSON: {error}", path, number)
        except KeyError as error:
            corpus.bad(f"the object has no field {error}", path, number)
        except (TypeError, IndexError) as error:
            corpus.bad(f"no text in the field {corpus.field!r}: {error}", path, number)
        else:
            yield from corpus.document(text, row, path, number)


def _read_parquet(path: Path, corpus: Corpus) -> Iterator[Block]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError("reading .parquet needs pyarrow: pip install 'revgen[parquet]'") from None
    with corpus.open(path, ArrowException) as file:
        table = parquet.ParquetFile(file)
        for field in corpus.fields:
            if field not in table.schema_arrow.names:
                raise CorpusError(f"no column {field!r}; it has {', '.join(table.schema_arrow.names)}", path)
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=corpus.fields):
            for row in batch.to_pylist():
                text = row[corpus.field]
                number += 1
                if not isinstance(text, str):
                    corpus.bad(f"the column {corpus.field!r} has no string in this row", path, number)
                else:
                    yield from corpus.document(text, row, path, number)


READERS: dict[str, Callable[[Path, Corpus], Iterator[Block]]] = {
    ".txt": _read_text,
    ".csv": _read_delimited(","),
    ".tsv": _read_delimited("\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
