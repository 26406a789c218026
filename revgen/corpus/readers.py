"""Readers: documents from files of many kinds, a directory, or anything that yields strings.

A document comes in blocks, so that a file of any length is read in little memory.
"""

from __future__ import annotations

import json
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
from revgen.corpus.labels import Label, parse_label, sorted_labels
from revgen.corpus.quoting import check_table_options
from revgen.corpus.sources import READ_ERRORS, Source, are_file_names, file_format, find_sources, stat
from revgen.corpus.tables import READERS
from revgen.corpus.text import Block
from revgen.errors import CorpusError, OptionError
from revgen.options import ReadOptions, safe_repr
from revgen.registry import unknown_name_message

Item = TypeVar("Item")

LARGE_CORPUS_SIZE = 32 << 20  # bytes: files of less are read in a moment

DEFAULT_OPTIONS: ReadOptions = {
    "field": "text",
    "documents": "file",
    "errors": "raise",
    "encoding": None,
    "delimiter": None,
    "quoting": None,
}
ALLOWED_VALUES = {"documents": ("file", "line", "blank"), "errors": ("raise", "skip")}


class Corpus:
    """Documents that can be read again and again: iterate over it for one string each.

    ``files`` are those to read, none where the texts are in memory. ``skipped`` counts what the last reading passed
    over, where ``errors="skip"``, and ``first_skipped`` says what was first. ``label`` is that of the document which is
    being read, None for one without.
    """

    def __init__(
        self, source: Any = None, *, paths: Any = None, labels: Any = None, **options: Unpack[ReadOptions]
    ) -> None:
        if paths is not None and source is not None:
            raise OptionError("give either texts or paths=, not both")
        chosen = _resolve_options(options)
        self.field: str = chosen["field"]
        self.documents: str = chosen["documents"]
        self.errors: str = chosen["errors"]
        self.encoding: str | None = chosen["encoding"]
        self.delimiter: str | None = chosen["delimiter"]
        self.quoting: str | None = chosen["quoting"]
        self.skipped = 0
        self.first_skipped = ""
        self.label: Label | None = None
        self._sources = find_sources(source, paths)
        self.files = self._sources.files
        self._current_file: IO[bytes] | None = None
        self._bytes_finished = 0  # bytes of the files that were read before it
        self._texts = None if self._sources.items else _as_texts(source, self.field)
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
        self._bytes_finished = 0
        if self._texts is not None:
            yield from self._blocks_from_memory()
        else:
            for item in self._attach_labels(self._sources.items):
                yield from READERS[file_format(item.name)](item, self)
                self._current_file = None
                self._bytes_finished += stat(item.path).st_size if item.is_plain else 0

    def pieces(self) -> Iterator[str]:
        """The text of the blocks: all there is to read where documents do not matter."""
        return (text for text, _ in self.blocks())

    @property
    def options(self) -> dict[str, Any]:
        """The options of reading with their values."""
        return {name: getattr(self, name) for name in DEFAULT_OPTIONS}

    @property
    def sources(self) -> str:
        """How many files are read and how many skipped, such as "3 files; 2 files skipped (.png)"; "" for texts."""
        return str(self._sources) if self._texts is None else ""

    @property
    def size(self) -> int:
        """The bytes of the files, as they lie on the disk; 0 where the texts are in memory."""
        return sum(stat(path).st_size for path in self.files)

    @property
    def is_large(self) -> bool:
        """Whether reading the files takes so long that a bar and a cache are worth it."""
        return self.size >= LARGE_CORPUS_SIZE and all(item.spool is None for item in self._sources.items)

    @property
    def bytes_read(self) -> int:
        """How many of these bytes the present reading has passed."""
        if self._current_file is None:
            return self._bytes_finished
        return self._bytes_finished + (
            stat(Path(self._current_file.name)).st_size if self._current_file.closed else self._current_file.tell()
        )

    def with_labels(self, labels: Any) -> Corpus:
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

    def make_document(self, text: str, row: Mapping[str, Any], source: Source, number: int | None) -> Iterator[Block]:
        """Yield the document of a row, with its label where that is in a field; a missing label is an error."""
        if not text:
            return
        if self.label_field is not None:
            self.label = parse_label(row.get(self.label_field))
            if self.label is None:
                self.report_error(f"the row has no label in {self.label_field!r}", source, number)
                return
        yield text, True

    @property
    def labels(self) -> str | list[Label | None] | None:
        """The labels of the texts or files, or the field that holds them."""
        return self._labels

    @contextmanager
    def open_source(self, source: Source, *damages: type[Exception]) -> Iterator[IO[bytes]]:
        """Open one of the files for reading, unpacked. Damage is an error, or the rest of the file is skipped."""
        caught: tuple[type[Exception], ...] = (*READ_ERRORS, *damages)
        try:
            with ExitStack() as stack:
                file = stack.enter_context(source.open())
                self._current_file = file if source.is_plain else None
                yield stack.enter_context(source.decompress(file))
        except caught as error:
            if getattr(error, "errno", None) is not None:  # of the system, not of the content
                raise CorpusError(f"cannot be read: {error}", source.name) from None
            self.report_error(f"cannot be read any further, it is damaged: {error}", source)

    def report_error(self, message: str, source: Source | None = None, line: int | None = None) -> None:
        """Raise a CorpusError, or count it where errors are skipped."""
        error = CorpusError(message, None if source is None else source.name, line)
        if self.errors == "raise":
            raise error
        self.skipped += 1
        self.first_skipped = self.first_skipped or str(error)

    def _blocks_from_memory(self) -> Iterator[Block]:
        for number, text in enumerate(self._attach_labels(self._replay()), 1):
            if isinstance(text, _NonString):
                self.report_error(f"text number {number} is of the type {text.type_name}, not a string{text.hint}")
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
            raise OptionError("labels must be one for each text or file, or name the field that holds them")

    def _attach_labels(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, texts or files, with ``label`` set to that of each where they have one."""
        if not isinstance(self._labels, list):
            yield from items
            return
        nothing: Any = object()
        for number, (item, label) in enumerate(zip_longest(items, self._labels, fillvalue=nothing), 1):
            if item is nothing or label is nothing:
                raise OptionError(f"labels must be one for each text or file: {len(self._labels)} are not as many")
            if label is None:
                what = safe_repr(str(item))
                raise OptionError(f"labels has none for number {number}, {what}: give it one, or leave it out")
            self.label = label
            yield item

    def _replay(self) -> Iterator[Any]:
        """The texts; what can be iterated over only once goes to a temporary file first."""
        if isinstance(self._texts, Iterator) and self._spool is None:
            spool = cast(IO[str], tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
            for text in self._texts:
                spool.write(json.dumps(text if isinstance(text, str) else [_NonString.of(text).type_name]) + "\n")
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
    """The place of a text in memory that is none, with the name of its type."""

    type_name: str

    @classmethod
    def of(cls, value: Any) -> _NonString:
        return cls("Path" if isinstance(value, Path) else type(value).__name__)

    @property
    def hint(self) -> str:
        """What to do about it."""
        return {
            "Path": "; give paths as paths=",
            "bytes": "; decode it first",
            "dict": "; give the strings of one field",
        }.get(self.type_name, "")


@validate_call
def read(source: Any = None, *, paths: Any = None, labels: Any = None, **options: Unpack[ReadOptions]) -> Corpus:
    """Return the documents of files or of strings, to be read again and again.

    - A ``Path``, a list of them, or a single string that names a file that exists: ``.txt``, ``.md``, ``.csv``,
      ``.tsv``, ``.json`` (an array), ``.jsonl``, ``.ndjson``, ``.parquet`` (with the extra ``parquet``), ``.gz`` of
      each, and ``.zip``; a file of another name is read as text. A directory: all files of these kinds in it, in the
      order of their names, without hidden ones. A glob such as ``"corpus/*.txt"``; ``"-"`` for standard input.
    - ``paths``: one of these or a list, each a string or a ``Path``.
    - A list or iterator of strings, or a column or table of pandas, polars or ``datasets``: one document each. Strings
      in a list are always texts. An open file is read as the kind that its name tells.

    ``field`` names the column or the JSON field. ``documents`` is what one document is in a text file: the ``"file"``,
    each ``"line"``, or what ``"blank"`` lines separate. ``errors="skip"`` passes over lines that cannot be read, and
    over the rest of a damaged file, and counts them. ``encoding`` is UTF-8 where it is None and the file does not tell
    another. ``delimiter`` separates the fields of ``.csv`` and ``.tsv``. ``quoting`` is ``"minimal"`` where quotes
    enclose a field and ``"none"`` where they are plain characters.

    ``labels`` is one for each text or for each file, or the name of the column or field with the label of each
    document. A label is a string or a whole number; a missing one is an error that names the row.

    Raises CorpusError with the file and the line, and OptionError.
    """
    if isinstance(source, Corpus) and paths is None:
        _resolve_options(options)
        return source if labels is None else source.with_labels(labels)
    if isinstance(source, list | tuple) and are_file_names(source):
        warnings.warn(
            "the strings of the list are taken for texts, though each is the name of a file; paths=[…] reads the files",
            stacklevel=2,
        )
    return Corpus(source, paths=paths, labels=labels, **options)


def _resolve_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of reading. Raises OptionError for one that there is not, or a value that it cannot have."""
    strange = next((name for name in options if name not in DEFAULT_OPTIONS), None)
    if strange is not None:
        raise OptionError(unknown_name_message("option of read", strange, [*DEFAULT_OPTIONS, "paths", "labels"]))
    hints = get_type_hints(ReadOptions)
    chosen: dict[str, Any] = DEFAULT_OPTIONS | {
        name: check_type(name, value, hints[name]) for name, value in options.items()
    }
    for name, allowed in ALLOWED_VALUES.items():
        if chosen[name] not in allowed:
            raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}, not {safe_repr(chosen[name])}")
    chosen["encoding"] = check_encoding(chosen["encoding"])
    chosen["delimiter"] = check_table_options(chosen["delimiter"], chosen["quoting"])
    return chosen


def _as_texts(source: Any, field: str) -> Iterable[Any]:
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
        raise CorpusError(f"cannot read text from an object of the type {type(source).__name__}")
    return source


def _column_names(source: Any) -> Any:
    """The columns of a whole table of pandas or datasets; None for anything else."""
    return None if isinstance(source, list) else getattr(source, "column_names", getattr(source, "columns", None))
