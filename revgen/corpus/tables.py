"""Tables: documents from the rows of delimited text, JSON and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any

from revgen.corpus.quoting import Dialect, Rows, detect_dialect
from revgen.corpus.sources import Source
from revgen.corpus.text import Block, ReadContext, read_lines, read_pieces, read_text
from revgen.errors import CorpusError, MissingExtraError

Reader = Callable[[Source, ReadContext], Iterator[Block]]

EXTRA_FIELDS_HINT = "quote the text, or give delimiter= or quoting="
MAX_NAMES_LENGTH = 300  # characters of column names in a message


def _delimited_reader(delimiter: str) -> Reader:
    """Return a reader of tables whose default delimiter is ``delimiter``."""

    def read_rows(source: Source, context: ReadContext) -> Iterator[Block]:
        csv.field_size_limit(1 << 30)
        skipped = context.skipped
        dialect, lines = detect_dialect(read_lines(source, context), delimiter, context)
        rows = Rows(lines, dialect)
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


def _check_names(names: list[str], source: Source, context: ReadContext) -> None:
    """Raise CorpusError unless the first line names each column that is read, and no name occurs twice."""
    if not names:
        raise CorpusError(f"no column {context.field!r}: the file is empty", source.name, 1)
    for field in context.fields:
        if field not in names:
            raise CorpusError(f"no column {field!r}; it has {', '.join(names)[:MAX_NAMES_LENGTH]}", source.name, 1)
    for name in names:
        if name and names.count(name) > 1:
            raise CorpusError(f"the first line names the column {name!r} more than once", source.name, 1)


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
    if str(error) == "unexpected end of data":
        return (
            "it opens a quote that is never closed, so the rest of the file belongs to it; "
            "quoting='none' reads quotes as ordinary characters"
        )
    return f"{error}; double the quotes within a quoted text, or use quoting='none' to read quotes as characters"


def _read_jsonl(source: Source, context: ReadContext) -> Iterator[Block]:
    rows = (
        (number, "the object", lambda line=line: json.loads(line))
        for number, line in read_lines(source, context)
        if line.strip()
    )
    yield from _read_json_values(rows, source, context)


def _read_json(source: Source, context: ReadContext) -> Iterator[Block]:
    text = "".join(read_pieces(source, context))
    if not text.strip():
        return
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several values: JSON lines in a .json file
            yield from _read_jsonl(source, context)
        else:
            context.report_error(f"not valid JSON: {error}", source, error.lineno)
        return
    except (ValueError, RecursionError) as error:
        context.report_error(f"not valid JSON: {error}", source)
        return
    if isinstance(content, dict) and context.field in content:
        content = [content]
    if not isinstance(content, list):
        raise CorpusError("must hold an array of strings, or of objects with the text in a field", source.name)
    if context.label_field is not None and any(isinstance(item, str) for item in content):
        raise CorpusError(f"strings have no field {context.label_field!r} with labels", source.name)
    items = ((None, f"item {number}", lambda item=item: item) for number, item in enumerate(content, 1))
    yield from _read_json_values(items, source, context)


def _read_json_values(
    rows: Iterator[tuple[int | None, str, Callable[[], Any]]], source: Source, context: ReadContext
) -> Iterator[Block]:
    """Yield the documents in JSON values, given as (line or None, name in messages, function that parses the value)."""
    for number, name, get_value in rows:
        try:
            row = get_value()
            text = row if isinstance(row, str) and number is None else _get_text(row, context)
        except (ValueError, RecursionError) as error:
            context.report_error(f"not valid JSON: {error}", source, number)
        except KeyError as error:
            context.report_error(f"{name} has no field {error}", source, number)
        except TypeError as error:
            context.report_error(f"{name} has no text in the field {context.field!r}: {error}", source, number)
        else:
            yield from context.make_document(text, row if isinstance(row, dict) else {}, source, number)


def _get_text(row: Any, context: ReadContext) -> str:
    """Return the text of a JSON object. Raises KeyError if the field is missing, and TypeError for a wrong type."""
    if not isinstance(row, dict):
        raise TypeError(f"it is a value of type {type(row).__name__}, not an object")
    text = row[context.field]
    if not isinstance(text, str):
        raise TypeError(f"it is a value of type {type(text).__name__}, not a string")
    return text


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
                raise CorpusError(f"no column {field!r}; it has {', '.join(names)[:MAX_NAMES_LENGTH]}", source.name)
            if names.count(field) > 1:
                raise CorpusError(f"it has the column {field!r} more than once", source.name)
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=context.fields):
            for row in batch.to_pylist():
                text = row[context.field]
                number += 1
                if not isinstance(text, str):
                    context.report_error(f"the column {context.field!r} has no string in this row", source, number)
                else:
                    yield from context.make_document(text, row, source, number)


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".csv": _delimited_reader(","),
    ".tsv": _delimited_reader("\t"),
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
