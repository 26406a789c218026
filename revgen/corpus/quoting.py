"""Delimiters and quotes of tables in text: detect them, and split lines into rows."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from revgen.corpus.text import ReadContext, too_large
from revgen.errors import OptionError

QUOTINGS = ("minimal", "none")
QUOTING_SAMPLE_SIZE = 1 << 20
"""Characters at the start of a file from which its quoting is detected."""
MAX_FIELD_LINES = 500
"""Lines that one quoted field in this sample may span."""

LINE_OVERHEAD = 100
"""About the bytes that a line takes in memory in addition to its characters."""
UNCLOSED_QUOTE = "unexpected end of data"
"""The message of the module ``csv``."""

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_DECLARED_DELIMITER = re.compile(r'"?sep=([^"\r\n\0])"?\n?')
"""A first line that names the delimiter, as spreadsheet programs write it."""
_NAMED_DELIMITERS = {"\\t": "\t", "tab": "\t"}

NumberedLines = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Dialect:
    """The delimiter and the quoting of a table."""

    delimiter: str
    has_quotes: bool = True
    """Whether quotes may enclose a field. Otherwise they are ordinary characters."""
    is_lenient: bool = False
    """Whether a row with invalid quotes is read with quotes as ordinary characters, instead of being an error."""
    has_one_column: bool = False
    """Whether a row is one field. Delimiters in it are ordinary characters."""
    may_stay_open: bool = False
    """Whether a quote that is never closed is an ordinary character, instead of an error, in a lenient dialect."""

    def split_literally(self, line: str) -> list[str]:
        """Return the fields of a line with quotes as ordinary characters.

        A lenient dialect still removes the quotes of a field that contains doubled quotes.
        """
        fields = [line] if self.has_one_column else line.split(self.delimiter)
        return [_unquote(field) for field in fields] if self.is_lenient and '""' in line else fields


def check_table_options(delimiter: str | None, quoting: str | None) -> str | None:
    """Return the delimiter, with ``tab`` and ``\\\\t`` replaced by a tab. Raises OptionError for an invalid option."""
    if quoting is not None and quoting not in QUOTINGS:
        raise OptionError(f"quoting must be {' or '.join(map(repr, QUOTINGS))}, not {quoting!r}")
    if not isinstance(delimiter, str):
        if delimiter is not None:
            raise OptionError(f"delimiter must be one character, not {delimiter!r}")
        return None
    delimiter = _NAMED_DELIMITERS.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0\ufeff':
        raise OptionError(f"delimiter must be one character other than a quote or line end, not {delimiter!r}")
    return delimiter


def detect_dialect(lines: NumberedLines, default_delimiter: str, context: ReadContext) -> tuple[Dialect, NumberedLines]:
    """Return the dialect of a table, and its lines from the first one that is not blank."""
    delimiter = context.delimiter
    header = next(((number, line) for number, line in lines if line.strip()), None)
    if header is not None and (declared := _DECLARED_DELIMITER.fullmatch(header[1])):
        delimiter = delimiter or declared[1]
        header = next(((number, line) for number, line in lines if line.strip()), None)
    if header is None:
        return Dialect(default_delimiter), iter(())
    delimiter = delimiter or _detect_delimiter(header[1], default_delimiter, context.fields)
    has_one_column = delimiter not in header[1]
    if context.quoting is not None:
        return Dialect(delimiter, context.quoting == "minimal", False, has_one_column), chain([header], lines)
    names = header[1].removesuffix("\n").split(delimiter)
    if default_delimiter == "," or all(_QUOTED.fullmatch(name) for name in names):
        return Dialect(delimiter, True, has_one_column, has_one_column), chain([header], lines)
    sample, size = [header], 0
    while size < QUOTING_SAMPLE_SIZE and (line := next(lines, None)) is not None:
        sample.append(line)
        size += len(line[1])
    has_quotes = _follows_csv_rules([line for _, line in sample], delimiter)
    return Dialect(delimiter, has_quotes, True, has_one_column, True), chain(sample, lines)


class Rows(Iterator[list[str]]):
    """The rows of a table that are not blank.

    Raises csv.Error for a row with invalid quotes, and for one of more than ``max_bytes``; iteration can continue with
    the next row. ``line_number`` is the number of the last line that was read, and ``previous_line`` the number of the
    last line before the current row.
    """

    def __init__(self, lines: NumberedLines, dialect: Dialect, max_bytes: int) -> None:
        self.line_number = self.previous_line = 0
        self._lines, self._dialect = lines, dialect
        self._is_literal = not dialect.has_quotes
        self._pushed_back: deque[tuple[int, str]] = deque()  # lines to read again, as rows of their own
        self._row_lines: list[tuple[int, str]] = []  # the lines of the current row, in a lenient dialect
        self._row_size, self._max_bytes = 0, max_bytes
        self._num_delimiters: int | None = None  # in the first row
        self._csv_rows = self._make_reader()

    def __next__(self) -> list[str]:
        while True:
            self.previous_line, self._row_lines, self._row_size = self.line_number, [], 0
            row = self._read_row()
            if row:
                if self._num_delimiters is None:
                    self._num_delimiters = len(row) - 1
                return row

    def _read_row(self) -> list[str]:
        """Return the next row, empty for a blank line."""
        if self._is_literal:
            line = next(self._next_lines()).removesuffix("\n")
            return self._dialect.split_literally(line) if line else []
        try:
            row = next(self._csv_rows)
        except csv.Error as error:
            is_open = str(error) == UNCLOSED_QUOTE and not self._dialect.may_stay_open
            if not self._row_lines or is_open or any("\r" in line for _, line in self._row_lines):
                self._csv_rows = self._make_reader()
                raise
        else:
            if not self._contains_rows():
                return row
        # The opening quote is an ordinary character: the row is only its first line, and the other lines are rows.
        self._is_literal = not self._dialect.has_one_column
        (self.line_number, line), *rest = self._row_lines
        self._pushed_back.extendleft(reversed(rest))
        self._csv_rows = self._make_reader()
        return self._dialect.split_literally(line.removesuffix("\n"))

    def _contains_rows(self) -> bool:
        """Return whether each line of a row that spans several lines looks like a row itself."""
        if not self._dialect.is_lenient or len(self._row_lines) < 2 or not self._num_delimiters:
            return False
        return all(line.count(self._dialect.delimiter) == self._num_delimiters for _, line in self._row_lines)

    def _make_reader(self) -> Iterator[list[str]]:
        # With NUL as the delimiter, a row of a single column is one field.
        delimiter = "\0" if self._dialect.has_one_column else self._dialect.delimiter
        return csv.reader(self._next_lines(), delimiter=delimiter, strict=True)

    def _next_lines(self) -> Iterator[str]:
        """Yield the lines to read, and record their numbers."""
        while line := self._pushed_back.popleft() if self._pushed_back else next(self._lines, None):
            self.line_number = line[0]
            self._row_size += len(line[1]) - line[1].endswith("\n")
            if self._dialect.is_lenient:
                self._row_size += LINE_OVERHEAD if self._row_lines else 0
                self._row_lines.append(line)
            if self._row_size > self._max_bytes:
                self._row_lines = []
                raise csv.Error(too_large("it", self._max_bytes))
            if len(self._row_lines) > MAX_FIELD_LINES and self._dialect.may_stay_open:
                raise csv.Error(UNCLOSED_QUOTE)
            yield line[1]


def _detect_delimiter(header: str, default: str, fields: list[str]) -> str:
    """Return the delimiter of a table, given its first line.

    It is a semicolon or a tab instead of a comma only if that alone results in columns with the names of ``fields``.
    """
    if default != ",":
        return default

    def split_names(delimiter: str) -> list[str]:
        try:
            return next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:  # a carriage return within a line, which Rows reports later
            return []

    others = [delimiter for delimiter in (";", "\t") if delimiter in header]
    if set(fields) <= set(split_names(default)):
        return default
    matches = [delimiter for delimiter in others if set(fields) <= set(split_names(delimiter))]
    if not matches and default not in header:
        matches = others  # so that the error lists the names of the columns
    return matches[0] if len(matches) == 1 else default


def _follows_csv_rules(sample: list[str], delimiter: str) -> bool:
    """Return whether the quotes in a sample follow the rules of CSV, which quotes in ordinary text violate."""
    field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{re.escape(delimiter)}]*)'
    row = re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*\n?")
    num_delimiters = sample[0].count(delimiter)
    lines = iter(sample)
    for line in lines:
        if '"' not in line:
            continue
        text, num_lines = line, 0
        while not row.fullmatch(text):
            next_line = next(lines, None)
            num_lines += 1
            if next_line is None or num_lines > MAX_FIELD_LINES:
                return False
            # A quoted field that contains lines which look like rows is not quoted: its quote is part of the text.
            if 0 < num_delimiters == line.count(delimiter) == next_line.count(delimiter):
                return False
            text += next_line
    return True


def _unquote(field: str) -> str:
    """Return the content of a quoted field that contains doubled quotes, and any other field unchanged."""
    match = _QUOTED.fullmatch(field)
    return match[1].replace('""', '"') if match and '""' in match[1] else field
