"""Tables: documents from the rows of delimited text and Parquet; and the reader of each format."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator

from revgen.corpus.json_reader import read_json, read_jsonl
from revgen.corpus.quoting import UNCLOSED_QUOTE, Dialect, Rows, detect_dialect
from revgen.corpus.sources import Source
from revgen.corpus.text import Block, ReadContext, read_lines, read_text, too_large
from revgen.errors import CorpusError, MissingExtraError
from revgen.options import safe_repr

Reader = Callable[[Source, ReadContext], Iterator[Block]]

EXTRA_FIELDS_HINT = "quote the text, or give delimiter= or quoting="
PARQUET_BATCH_SIZE = 256  # rows
MAX_NAMES_LENGTH = 300  # characters of column names in a message


def _delimited_reader(delimiter: str) -> Reader:
    """Return a reader of tables whose default delimiter is ``delimiter``."""

    def read_rows(source: Source, context: ReadContext) -> Iterator[Block]:
        csv.field_size_limit(1 << 30)
        skipped = context.skipped
        dialect, lines = detect_dialect(read_lines(source, context), delimiter, context)
        rows = Rows(lines, dialect, context.max_document_bytes)
        try:
            names = next(rows, [])
        except csv.Error as error:
            raise CorpusError(f"the names of the columns cannot be read: {error}", source.name, 1) from None
        if not names and context.skipped > skipped:
            return  # the file is damaged from its start
        while names and not names[-1].strip():  # a delimiter at the end of the first line
            names.pop()
        _check_names(names, source, context)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                message = f"the row after line {rows.previous_line}: {_explain(error)}"
                context.report_error(message, source, rows.line_number)
                continue
            if row is None:
                return
            yield from _row_document(row, names, dialect, source, context, rows.line_number)

    return read_rows


def _missing_column(field: str, names: list[str], context: ReadContext) -> str:
    """Return the message for a table without a column."""
    hint = ": choose one with field (on the command line, --field)" if field == context.field else ""
    return f"no column {field!r}; it has {', '.join(names)[:MAX_NAMES_LENGTH]}{hint}"


def _check_names(names: list[str], source: Source, context: ReadContext) -> None:
    """Raise CorpusError unless the first line names each column that is read, and no name occurs twice."""
    if not names:
        raise CorpusError(f"no column {context.field!r}: the file is empty", source.name, 1)
    for field in context.fields:
        if field not in names:
            raise CorpusError(_missing_column(field, names, context), source.name, 1)
    for name, count in Counter(names).items():
        if name and count > 1:
            raise CorpusError(f"the first line names the column {safe_repr(name)} more than once", source.name, 1)


def _row_document(
    row: list[str], names: list[str], dialect: Dialect, source: Source, context: ReadContext, line: int
) -> Iterator[Block]:
    """Yield the document in a row, or report a row with too many or too few fields."""
    while len(row) > len(names) and not row[-1].strip():
        row.pop()
    if len(row) > len(names):
        message = f"the row has {len(row)} fields, but the first line names {len(names)}, separated by"
        context.report_error(f"{message} {dialect.delimiter!r}: {EXTRA_FIELDS_HINT}", source, line)
    elif len(row) <= names.index(context.field):
        context.report_error(f"the row has no column {context.field!r}: too few fields", source, line)
    else:
        values = dict(zip(names, row, strict=False))
        yield from context.make_document(values[context.field], values, source, line)


def _explain(error: csv.Error) -> str:
    """Return the message of an error in the quotes of a row, and what to do about it."""
    if str(error) == UNCLOSED_QUOTE:
        return (
            "it opens a quote that is never closed, so the rest of the file belongs to it; "
            "quoting='none' reads quotes as ordinary characters"
        )
    if "max_document_bytes" in str(error):
        return str(error)
    return f"{error}; double the quotes within a quoted text, or use quoting='none' to read quotes as characters"


def _read_parquet(source: Source, context: ReadContext) -> Iterator[Block]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError("reading .parquet needs pyarrow: pip install 'revgen[parquet]'") from None
    with context.open_source(source, ArrowException) as file:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        for field in context.fields:
            if field not in names:
                raise CorpusError(_missing_column(field, names, context), source.name)
            if names.count(field) > 1:
                raise CorpusError(f"it has the column {field!r} more than once", source.name)
        number = 0
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_SIZE, columns=context.fields):
            for i in range(batch.num_rows):
                number += 1
                try:
                    row = {field: batch.column(field)[i].as_py() for field in context.fields}
                except UnicodeDecodeError as error:
                    context.report_error(f"not valid UTF-8: {error.reason}", source, number)
                    continue
                text = row[context.field]
                if not isinstance(text, str):
                    context.report_error(f"the column {context.field!r} has no string in this row", source, number)
                elif len(text) > context.max_document_bytes:
                    context.report_error(too_large("the row", context.max_document_bytes), source, number)
                else:
                    yield from context.make_document(text, row, source, number)


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".csv": _delimited_reader(","),
    ".tsv": _delimited_reader("\t"),
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": _read_parquet,
}
