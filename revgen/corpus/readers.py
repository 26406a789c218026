"""Readers: documents from files of several formats, directories, or any iterable of strings.

A document is read in blocks, so the memory that is needed does not grow with the size of a file.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, Unpack, cast, get_type_hints

from revgen.arguments import check_type, validate_call
from revgen.corpus.decoding import check_encoding
from revgen.corpus.disk import check_free_space
from revgen.corpus.labels import Label, parse_label, sorted_labels
from revgen.corpus.preview import preview_html
from revgen.corpus.quoting import check_table_options
from revgen.corpus.sources import READ_ERRORS, Source, are_file_names, file_format, find_sources, stat
from revgen.corpus.tables import READERS
from revgen.corpus.text import Block, too_large
from revgen.errors import CorpusError, OptionError
from revgen.options import ReadOptions, check_at_least, safe_repr
from revgen.registry import unknown_name_message

Item = TypeVar("Item")

LARGE_CORPUS_SIZE = 32 << 20
"""Bytes of files from which a progress bar and the cache are used."""

DEFAULT_OPTIONS: ReadOptions = {
    "field": "text",
    "documents": "file",
    "errors": "raise",
    "encoding": None,
    "delimiter": None,
    "quoting": None,
    "max_document_bytes": 256 << 20,
}
ALLOWED_VALUES = {"documents": ("file", "line", "blank"), "errors": ("raise", "skip")}


class Corpus:
    """Documents that can be read any number of times. Iteration yields each document as a string.

    ``files`` lists the files on disk; it is empty if the texts are in memory. With ``errors="skip"``, ``skipped`` is
    the number of errors during the last reading, and ``first_skipped`` is the message of the first. ``label`` is the
    label of the document that is being read, or None.
    """

    def __init__(
        self, source: Any = None, *, paths: Any = None, labels: Any = None, **options: Unpack[ReadOptions]
    ) -> None:
        if paths is not None and source is not None:
            raise OptionError("give either texts or paths=, not both")
        values = _resolve_options(options)
        self.field: str = values["field"]
        self.documents: str = values["documents"]
        self.errors: str = values["errors"]
        self.encoding: str | None = values["encoding"]
        self.delimiter: str | None = values["delimiter"]
        self.quoting: str | None = values["quoting"]
        self.max_document_bytes: int = values["max_document_bytes"]
        self.skipped = 0
        self.first_skipped = ""
        self.label: Label | None = None
        self._sources = find_sources(source, paths)
        self.files = self._sources.files
        self._current_source: Source | None = None
        self._current_file: IO[bytes] | None = None
        self._bytes_finished = 0  # in the files before the current one
        self._texts = None if self._sources.items else _as_texts(source, self.field)
        self._spool: IO[str] | None = None
        self._source = source
        self._labels: str | list[Label | None] | None = None
        if labels is not None:
            self._set_labels(labels)

    def __iter__(self) -> Iterator[str]:
        limit = self.max_document_bytes if self._texts is None else math.inf
        parts: list[str] = []
        number, size = 1, 0
        for block, is_last in self.blocks():
            is_too_large, size = size > limit, size + len(block)
            if size <= limit:
                parts.append(block)
            elif not is_too_large:
                parts.clear()
                self.report_error(too_large(f"document {number}", self.max_document_bytes), self._current_source)
            if is_last:
                if size <= limit:
                    yield "".join(parts)
                parts, number, size = [], number + 1, 0

    def blocks(self) -> Iterator[Block]:
        """Yield the documents in blocks, ``(text, is_last)``. Empty documents are left out."""
        self.skipped, self.first_skipped = 0, ""
        self.label = None
        self._bytes_finished = 0
        if self._texts is not None:
            yield from self._blocks_from_memory()
        else:
            for source in self._attach_labels(self._sources.items):
                self._current_source = source
                yield from READERS[file_format(source.name)](source, self)
                self._current_file = None
                self._bytes_finished += stat(source.path).st_size if source.is_plain else 0

    def pieces(self) -> Iterator[str]:
        """Yield the text of each block, without the boundaries of the documents."""
        return (text for text, _ in self.blocks())

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``read`` with their values."""
        return {name: getattr(self, name) for name in DEFAULT_OPTIONS}

    @property
    def sources(self) -> str:
        """The numbers of files read and skipped, such as "3 files; 2 files skipped (.png)"; "" for texts in memory."""
        return str(self._sources) if self._texts is None else ""

    @property
    def size(self) -> int:
        """The size of the files on disk in bytes; 0 if the texts are in memory."""
        return sum(stat(path).st_size for path in self.files)

    @property
    def only_file(self) -> Path | None:
        """The file that has all texts; None if they are in several files or in memory."""
        return self.files[0] if len(self.files) == 1 else None

    @property
    def is_large(self) -> bool:
        """Whether reading takes long enough for a progress bar and the cache. A corpus with streams is never large."""
        return self.size >= LARGE_CORPUS_SIZE and not self._is_streamed

    @property
    def _is_streamed(self) -> bool:
        """Whether the first reading consumes a stream or an iterator, and copies it."""
        return isinstance(self._texts, Iterator) or any(source.spool is not None for source in self._sources.items)

    def __repr__(self) -> str:
        return f"<revgen corpus: {self.sources or 'texts in memory'}>"

    def _repr_html_(self) -> str:
        # A copy is read, because reading changes the counts of errors. A stream is left for whoever trains on it.
        blocks = iter(()) if self._is_streamed else copy(self).blocks()
        return preview_html(self.sources, self.size, self.labels, blocks)

    @property
    def bytes_read(self) -> int:
        """The bytes of the files, out of ``size``, that the current reading has consumed."""
        if self._current_file is None:
            return self._bytes_finished
        file = self._current_file
        return self._bytes_finished + (stat(Path(file.name)).st_size if file.closed else file.tell())

    @property
    def labels(self) -> str | list[Label | None] | None:
        """The label of each text or file, or the name of the field with the labels."""
        return self._labels

    @property
    def label_field(self) -> str | None:
        """The column or JSON field with the label."""
        return self._labels if isinstance(self._labels, str) else None

    @property
    def fields(self) -> list[str]:
        """The columns or JSON fields that are read."""
        return list(dict.fromkeys([self.field, self.label_field or self.field]))

    def with_labels(self, labels: Any) -> Corpus:
        """Return a corpus of the same documents with the parameter ``labels`` of ``read``."""
        corpus = copy(self)
        corpus._set_labels(labels)
        return corpus

    def label_names(self) -> list[Label]:
        """Read the corpus, and return its distinct labels in order."""
        if self._labels is None:
            return []
        return sorted_labels(self.label for _, is_last in self.blocks() if is_last and self.label is not None)

    # Methods for the readers of a file format, see ``ReadContext``

    @contextmanager
    def open_source(self, source: Source, *errors: type[Exception]) -> Iterator[IO[bytes]]:
        """Open and decompress a file. Damage, which includes ``errors``, is reported and ends the file."""
        read_errors: tuple[type[Exception], ...] = (*READ_ERRORS, *errors)
        try:
            with ExitStack() as stack:
                file = stack.enter_context(source.open())
                self._current_file = file if source.is_plain else None
                yield stack.enter_context(source.decompress(file))
        except MemoryError:
            raise CorpusError("cannot be read: there is not enough memory", source.name) from None
        except read_errors as error:
            if getattr(error, "errno", None) is not None:  # an error of the system, not of the content
                raise CorpusError(f"cannot be read: {error}", source.name) from None
            self.report_error(f"the rest cannot be read, because the file is damaged: {error}", source)

    def report_error(self, message: str, source: Source | None = None, line: int | None = None) -> None:
        """Raise a CorpusError, or count it if errors are skipped."""
        error = CorpusError(message, None if source is None else source.name, line)
        if self.errors == "raise":
            raise error
        self.skipped += 1
        self.first_skipped = self.first_skipped or str(error)

    def make_document(self, text: str, row: Mapping[str, Any], source: Source, line: int | None) -> Iterator[Block]:
        """Yield the text of a row and set its label, or report a missing label. An empty text is left out."""
        if not text:
            return
        if self.label_field is not None:
            self.label = parse_label(row.get(self.label_field))
            if self.label is None:
                self.report_error(f"the row has no label in {self.label_field!r}", source, line)
                return
        yield text, True

    def _blocks_from_memory(self) -> Iterator[Block]:
        for number, text in enumerate(self._attach_labels(self._replay()), 1):
            if isinstance(text, _NonString):
                self.report_error(f"text {number} is of type {text.type_name}, not a string{text.hint}")
            elif text:
                yield text, True

    def _set_labels(self, labels: Any) -> None:
        if isinstance(labels, str) and self._texts is not None:
            labels = _as_texts(self._source, labels) if _column_names(self._source) is not None else None
        if isinstance(labels, str):
            self._labels = labels
        elif isinstance(labels, Iterable):
            self._labels = list(map(parse_label, labels))
        else:
            raise OptionError("labels must have one label for each text or file, or name the field with the labels")

    def _attach_labels(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the texts or files, and set ``label`` for each if labels were given as a list."""
        if not isinstance(self._labels, list):
            yield from items
            return
        missing: Any = object()
        for number, (item, label) in enumerate(zip_longest(items, self._labels, fillvalue=missing), 1):
            if item is missing or label is missing:
                raise OptionError(f"labels must have one label for each text or file, but has {len(self._labels)}")
            if label is None:
                text = safe_repr(str(item))
                raise OptionError(f"labels has no label for item {number}, {text}: add a label, or remove the item")
            self.label = label
            yield item

    def _replay(self) -> Iterator[Any]:
        """Yield the texts. An iterator is first copied to a temporary file, because it can be read only once."""
        if isinstance(self._texts, Iterator) and self._spool is None:
            spool = cast(IO[str], tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
            for text in self._texts:
                line = json.dumps(text if isinstance(text, str) else [_NonString.of(text).type_name]) + "\n"
                try:
                    check_free_space(tempfile.gettempdir(), len(line))
                    spool.write(line)
                except OSError as error:
                    raise CorpusError(f"the texts cannot be copied to {tempfile.gettempdir()}: {error}") from None
            self._spool = spool
        if self._spool is None:
            for text in cast(Iterable[Any], self._texts):
                yield text if isinstance(text, str) else _NonString.of(text)
        else:
            self._spool.seek(0)
            for line in self._spool:
                text = json.loads(line)
                yield text if isinstance(text, str) else _NonString(*text)


class _NonString(NamedTuple):
    """An item of a list or iterator of texts that is not a string."""

    type_name: str

    @classmethod
    def of(cls, value: Any) -> _NonString:
        return cls("Path" if isinstance(value, Path) else type(value).__name__)

    @property
    def hint(self) -> str:
        """The end of the error message, with advice."""
        return {
            "Path": "; give paths as paths=",
            "bytes": "; decode it first",
            "dict": "; give the strings of one field",
        }.get(self.type_name, "")


@validate_call
def read(source: Any = None, *, paths: Any = None, labels: Any = None, **options: Unpack[ReadOptions]) -> Corpus:
    """Return a corpus: the documents in files or strings, which can be read any number of times.

    ``source`` is one of these:

    - A ``Path``, a list of them, or a single string that names an existing file. The formats are ``.txt``, ``.md``,
      ``.csv``, ``.tsv``, ``.json`` (an array), ``.jsonl``, ``.ndjson``, ``.parquet`` (with the extra ``parquet``), each
      also as ``.gz``, and ``.zip``. A file with another suffix is read as text.
    - A directory: all files in these formats are read, sorted by name, except hidden ones.
    - A glob, such as ``"corpus/*.txt"``, or ``"-"`` for standard input.
    - An open file, in the format that its name indicates.
    - A list or iterator of strings, or a column or table of pandas, polars or ``datasets``: one document each. Strings
      in a list are always texts.

    ``paths`` is a path, glob or directory, or a list of them, each a string or a ``Path``.

    ``field`` is the column or the JSON field with the text. ``documents`` says what a document is in a text file: the
    ``"file"``, each ``"line"``, or each paragraph between ``"blank"`` lines. ``errors="skip"`` skips and counts lines
    that cannot be read, and the rest of a damaged file. If ``encoding`` is None, UTF-8, UTF-16 and
    UTF-32 are detected. ``delimiter`` separates the fields of ``.csv`` and ``.tsv``. ``quoting`` is ``"minimal"`` if
    quotes may enclose a field, and ``"none"`` if quotes are ordinary characters. A line, a row or a JSON value of more
    than ``max_document_bytes`` bytes is an error, and so is a longer text when the corpus is iterated. ``fit`` and
    ``evaluate`` read a text file of any size in blocks.

    ``labels`` is a list with one label for each text or file, or the name of the column or field with the label of each
    document. A label is a string or an integer. A missing label is an error.

    Raises CorpusError with the file and the line, and OptionError.
    """
    if isinstance(source, Corpus) and paths is None:
        _resolve_options(options)
        return source if labels is None else source.with_labels(labels)
    if isinstance(source, list | tuple) and are_file_names(source):
        warnings.warn(
            "the strings in the list are read as texts, although each is the name of a file; "
            "to read the files, use paths=[…]",
            stacklevel=2,
        )
    return Corpus(source, paths=paths, labels=labels, **options)


def _resolve_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of ``read`` with their values. Raises OptionError for an unknown option or invalid value."""
    unknown = next((name for name in options if name not in DEFAULT_OPTIONS), None)
    if unknown is not None:
        raise OptionError(unknown_name_message("option of read", unknown, [*DEFAULT_OPTIONS, "paths", "labels"]))
    hints = get_type_hints(ReadOptions)
    given = {name: check_type(name, value, hints[name]) for name, value in options.items()}
    values: dict[str, Any] = DEFAULT_OPTIONS | given
    for name, allowed in ALLOWED_VALUES.items():
        if values[name] not in allowed:
            raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, not {safe_repr(values[name])}")
    check_at_least("max_document_bytes", values["max_document_bytes"], 1)
    values["encoding"] = check_encoding(values["encoding"])
    values["delimiter"] = check_table_options(values["delimiter"], values["quoting"])
    return values


def _as_texts(source: Any, field: str) -> Iterable[Any]:
    """Return an iterable of texts, given one or a table with the column ``field``. Raises CorpusError."""
    if hasattr(source, "collect") and hasattr(source, "lazy"):
        raise CorpusError(f"cannot read text from a {type(source).__name__}: call its collect() first")
    columns = _column_names(source)
    if columns is not None:
        if field not in columns:
            raise CorpusError(f"the table has no column {field!r}; it has {', '.join(map(str, columns))}")
        if list(columns).count(field) > 1:
            raise CorpusError(f"the table has the column {field!r} more than once: rename or drop the others")
        source = source[field]
    if not isinstance(source, Iterable) or isinstance(source, bytes | bytearray | memoryview | dict):
        raise CorpusError(f"cannot read text from a value of type {type(source).__name__}")
    return source


def _column_names(source: Any) -> Any:
    """Return the column names of a table of pandas, polars or ``datasets``, and None for anything else."""
    return None if isinstance(source, list) else getattr(source, "column_names", getattr(source, "columns", None))
