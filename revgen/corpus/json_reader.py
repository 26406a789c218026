"""JSON: documents from the objects of JSON lines, or from an array that is read item by item."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from revgen.corpus.sources import Source
from revgen.corpus.text import Block, ReadContext, read_lines, read_pieces, too_large
from revgen.errors import CorpusError

TOKEN_SIZE = 64
"""Characters before the end of the text read so far in which an error may be a value that is not complete yet."""

NumberedValues = Iterator[tuple[int | None, str, Callable[[], Any]]]
"""For each value: its line or None, its name in messages, and a function that parses it."""

_skip_space = re.compile(r"[ \t\n\r]*").match


def read_jsonl(source: Source, context: ReadContext) -> Iterator[Block]:
    """Yield the text of the object in each line."""
    rows = (
        (number, "the object", lambda line=line: json.loads(line))
        for number, line in read_lines(source, context)
        if line.strip()
    )
    yield from _read_values(rows, source, context)


def read_json(source: Source, context: ReadContext) -> Iterator[Block]:
    """Yield the documents of a file: an array of strings or objects, one object, or JSON lines."""
    pieces = read_pieces(source, context)
    start = ""
    while not start.strip() and (piece := next(pieces, None)) is not None:
        start = piece
    if not start.strip():
        return
    if start.lstrip().startswith("["):
        reader = ArrayReader(chain([start], pieces), source, context)
        yield from _read_values(reader.values(), source, context)
        return
    limit = context.max_document_bytes
    parts, size = [start], len(start)
    while size <= limit and (piece := next(pieces, None)) is not None:
        parts.append(piece)
        size += len(piece)
    text = "".join(parts)
    try:
        content, end = json.JSONDecoder().raw_decode(text, _skip_space(text, 0).end())  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        if size > limit:
            context.report_error(too_large("the value", limit), source)
        else:
            context.report_error(f"not valid JSON: {error}", source, error.lineno)
    except (ValueError, RecursionError) as error:
        context.report_error(f"not valid JSON: {error}", source)
    else:
        if text[end:].strip() or size > limit:  # several values: JSON lines in a .json file
            yield from read_jsonl(source, context)
        elif isinstance(content, dict) and context.field in content:
            yield from _read_values(iter([(None, "item 1", lambda: content)]), source, context)
        else:
            raise CorpusError("must hold an array of strings, or of objects with the text in a field", source.name)


class ArrayReader:
    """The items of a JSON array, of which only one and the text after it are in memory."""

    def __init__(self, pieces: Iterator[str], source: Source, context: ReadContext) -> None:
        self.pieces, self.source, self.context = pieces, source, context
        self.text, self.position = "", 0
        self.lines = 0  # before the text in memory

    def values(self) -> NumberedValues:
        """Yield the items. Reports an error in the array, which ends it."""
        try:
            self._expect("[")
            if self._peek() == "]":
                self.position += 1
            else:
                yield from self._items()
            if self._peek():
                raise json.JSONDecodeError("Extra data", self.text, self.position)
        except json.JSONDecodeError as error:
            line = self.lines + error.lineno
            self.context.report_error(f"not valid JSON: {error.msg}: column {error.colno}", self.source, line)
        except (ValueError, RecursionError) as error:
            self.context.report_error(f"not valid JSON: {error}", self.source)

    def _items(self) -> NumberedValues:
        number = 1
        while True:
            item, size = self._parse(number)
            if isinstance(item, str) and self.context.label_field is not None:
                raise CorpusError(f"strings have no field {self.context.label_field!r} with labels", self.source.name)
            if size > self.context.max_document_bytes:
                self.context.report_error(too_large(f"item {number}", self.context.max_document_bytes), self.source)
            else:
                yield None, f"item {number}", partial(_identity, item)
            number += 1
            if self._peek() == "]":
                self.position += 1
                return
            self._expect(",")

    def _parse(self, number: int) -> tuple[Any, int]:
        """Parse the item at the position, and return it with its size in characters. Reads more text if needed."""
        decoder, limit = json.JSONDecoder(), self.context.max_document_bytes
        self._peek()
        while True:
            error = None
            try:
                item, end = decoder.raw_decode(self.text, self.position)
                is_complete = end < len(self.text)  # at the end of the text, a number may continue
            except json.JSONDecodeError as caught:
                error, is_complete = caught, False
                if not error.msg.startswith("Unterminated") and error.pos < len(self.text) - TOKEN_SIZE:
                    raise
            if not is_complete and len(self.text) - self.position > limit:
                raise ValueError(too_large(f"item {number}", limit))
            if is_complete or not self._read_more():
                break
        if error is not None:
            raise error
        size, self.position = end - self.position, end
        return item, size

    def _peek(self) -> str:
        """Skip white space, and return the next character, or "" at the end of the file."""
        while True:
            self.position = _skip_space(self.text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._read_more():
                return ""

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise json.JSONDecodeError(f"Expecting {character!r}", self.text, self.position)
        self.position += 1

    def _read_more(self) -> bool:
        """Drop the text before the position, and at least double the rest. Return whether there was more."""
        if (piece := next(self.pieces, None)) is None:
            return False
        self.lines += self.text.count("\n", 0, self.position)
        parts, added = [self.text[self.position :], piece], len(piece)
        while added < len(parts[0]) and (piece := next(self.pieces, None)) is not None:
            parts.append(piece)
            added += len(piece)
        self.text, self.position = "".join(parts), 0
        return True


def _read_values(rows: NumberedValues, source: Source, context: ReadContext) -> Iterator[Block]:
    """Yield the documents in JSON values."""
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
        except MemoryError:
            context.report_error(f"{name} needs more memory than is available", source, number)
        else:
            yield from context.make_document(text, row if isinstance(row, dict) else {}, source, number)


def _identity(item: Any) -> Any:
    return item


def _get_text(row: Any, context: ReadContext) -> str:
    """Return the text of a JSON object. Raises KeyError if the field is missing, and TypeError for a wrong type."""
    if not isinstance(row, dict):
        raise TypeError(f"it is a value of type {type(row).__name__}, not an object")
    text = row[context.field]
    if not isinstance(text, str):
        raise TypeError(f"it is a value of type {type(text).__name__}, not a string")
    return text
