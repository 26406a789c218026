"""Delimiters and quotes of tables in text: which a file uses, and its rows."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from revgen.corpus.text import ReadContext
from revgen.errors import OptionError

QUOTINGS = ("minimal", "none")
QUOTING_SAMPLE_SIZE = 1 << 20  # characters that tell whether a file quotes its fields
MAX_FIELD_LINES = 500  # lines that a quoted field in the sample may take

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_NAMED_DELIMITERS = {"\\t": "\t", "tab": "\t"}

NumberedLines = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Dialect:
    """How a file writes its rows; in one of a single column, a delimiter is text."""

    delimiter: str
    has_quotes: bool = True
    is_lenient: bool = False
    has_one_column: bool = False

    def split_literally(self, line: str) -> list[str]:
        """Return the fields of a line in which quotes are plain characters, but for those that are doubled."""
        fields = [line] if self.has_one_column else line.split(self.delimiter)
        return [_unquote(field) for field in fields] if self.is_lenient and '""' in line else fields


def check_table_options(delimiter: str | None, quoting: str | None) -> str | None:
    """Return the delimiter. Raises OptionError where an option is none that there can be."""
    if quoting is not None and quoting not in QUOTINGS:
        raise OptionError(f"quoting must be {' or '.join(map(repr, QUOTINGS))}, not {quoting!r}")
    if not isinstance(delimiter, str):
        if delimiter is not None:
            raise OptionError(f"delimiter must be one character, not {delimiter!r}")
        return None
    delimiter = _NAMED_DELIMITERS.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0\ufeff':
        raise OptionError(f"delimiter must be one character, no quote and no line end, not {delimiter!r}")
    return delimiter


def detect_dialect(lines: NumberedLines, usual: str, context: ReadContext) -> tuple[Dialect, NumberedLines]:
    """Return how a file writes its rows, with its lines from the first that is not blank on."""
    header = next(((number, line) for number, line in lines if line.strip()), None)
    if header is None:
        return Dialect(usual), iter(())
    delimiter = context.delimiter or _detect_delimiter(header[1], usual, context.fields)
    is_single = delimiter not in header[1]
    if context.quoting is not None:
        return Dialect(delimiter, context.quoting == "minimal", False, is_single), chain([header], lines)
    names = header[1].removesuffix("\n").split(delimiter)
    if usual == "," or all(_QUOTED.fullmatch(name) for name in names):
        return Dialect(delimiter, True, is_single, is_single), chain([header], lines)
    sample, size = [header], 0
    while size < QUOTING_SAMPLE_SIZE and (line := next(lines, None)) is not None:
        sample.append(line)
        size += len(line[1])
    quotes = _follows_csv_rules([line for _, line in sample], delimiter)
    return Dialect(delimiter, quotes, True, is_single), chain(sample, lines)


class Rows(Iterator[list[str]]):
    """The rows of a table that are not blank. Raises csv.Error for one with wrong quotes; the next one can be read.

    ``number`` is that of the last line read, ``last_good`` that of the last line before the present row.
    """

    def __init__(self, lines: NumberedLines, dialect: Dialect) -> None:
        self.line_number = self.row_start = 0
        self._lines, self._dialect = lines, dialect
        self._is_literal = not dialect.has_quotes
        self._pushed_back: deque[tuple[int, str]] = deque()  # lines to read once more, as rows of their own
        self._row_lines: list[tuple[int, str]] = []  # the lines of the present row
        self._num_delimiters: int | None = None  # how many delimiters the first line has
        self._csv_rows = self._make_reader()

    def __next__(self) -> list[str]:
        while True:
            self.row_start, self._row_lines = self.line_number, []
            row = self._read_row()
            if row:
                if self._num_delimiters is None:
                    self._num_delimiters = len(row) - 1
                return row

    def _read_row(self) -> list[str]:
        if self._is_literal:
            line = next(self._next_lines()).removesuffix("\n")
            return self._dialect.split_literally(line) if line else []
        try:
            row = next(self._csv_rows)
        except csv.Error:
            if not self._dialect.is_lenient or any("\r" in line for _, line in self._row_lines):
                raise
        else:
            if not self._spans_whole_rows():
                return row
        # The quote that the row opens is a character of the text, and the lines after the first are rows.
        self._is_literal = not self._dialect.has_one_column
        (self.line_number, line), *rest = self._row_lines
        self._pushed_back.extendleft(reversed(rest))
        self._csv_rows = self._make_reader()
        return self._dialect.split_literally(line.removesuffix("\n"))

    def _spans_whole_rows(self) -> bool:
        """Return whether a field that is quoted over several lines takes in what look like whole rows."""
        if not self._dialect.is_lenient or len(self._row_lines) < 2 or not self._num_delimiters:
            return False
        return all(line.count(self._dialect.delimiter) == self._num_delimiters for _, line in self._row_lines)

    def _make_reader(self) -> Iterator[list[str]]:
        # No text has a NUL as its delimiter: a row of a single column is one field.
        delimiter = "\0" if self._dialect.has_one_column else self._dialect.delimiter
        return csv.reader(self._next_lines(), delimiter=delimiter, strict=True)

    def _next_lines(self) -> Iterator[str]:
        while line := self._pushed_back.popleft() if self._pushed_back else next(self._lines, None):
            self.line_number = line[0]
            self._row_lines.append(line)
            yield line[1]


def _detect_delimiter(header: str, usual: str, fields: list[str]) -> str:
    """Return the delimiter of the first line: another than usual where only that one gives the columns wanted."""
    if usual != ",":
        return usual

    def names(delimiter: str) -> list[str]:
        try:
            return next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a carriage return within a line: the reader of the rows comes to it again, and tells
            return []

    others = [other for other in (";", "\t") if other in header]
    if set(fields) <= set(names(usual)):
        return usual
    fitting = [other for other in others if set(fields) <= set(names(other))]
    if not fitting and usual not in header:
        fitting = others  # so that an error names the columns that there are
    return fitting[0] if len(fitting) == 1 else usual


def _follows_csv_rules(sample: list[str], delimiter: str) -> bool:
    """Return whether a file quotes its fields by the rules of CSV, as no file does that writes quotes as text."""
    field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{re.escape(delimiter)}]*)'
    row = re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*\n?")
    width = sample[0].count(delimiter)
    rest = iter(sample)
    for line in rest:
        if '"' not in line:
            continue
        text, inner = line, 0
        while not row.fullmatch(text):
            more = next(rest, None)
            inner += 1
            # A quote that is open over lines which look like whole rows is a character of the text.
            if more is None or inner > MAX_FIELD_LINES or (0 < width == line.count(delimiter) == more.count(delimiter)):
                return False
            text += more
    return True


def _unquote(field: str) -> str:
    """Return the content of a field that is quoted, with quotes inside that are doubled; others stay as they are."""
    match = _QUOTED.fullmatch(field)
    return match[1].replace('""', '"') if match and '""' in match[1] else field
