"""Plain text: lines with their numbers and documents, in blocks, so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import IO, Any, Protocol

from revgen.corpus.decoding import HEAD_SIZE, open_as_utf8, skip_bytes, suggest_encoding
from revgen.corpus.sources import READ_ERRORS, Source
from revgen.errors import CorpusError

Block = tuple[str, bool]
"""A piece of a document, and whether it is the last one."""

BLOCK_SIZE = 1 << 20  # characters
LINE_PIECE_SIZE = 1 << 20  # bytes: a longer line is read in pieces
ENCODING_SAMPLE_SIZE = 1 << 15  # bytes before and after a bad one that tell the encoding


class ReadContext(Protocol):
    """What a reader of a file knows and calls: the options, and what is to be done with errors and labels."""

    field: str
    documents: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None
    skipped: int
    first_skipped: str

    @property
    def label_field(self) -> str | None: ...

    @property
    def fields(self) -> list[str]: ...

    def open_source(self, source: Source, *damages: type[Exception]) -> AbstractContextManager[IO[bytes]]: ...

    def report_error(self, message: str, source: Source, line: int | None = None) -> None: ...

    def make_document(
        self, text: str, row: Mapping[str, Any], source: Source, number: int | None
    ) -> Iterator[Block]: ...


def read_lines(source: Source, context: ReadContext) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers and ends. A line that cannot be decoded is an error."""
    return _read_line_pieces(source, context, -1, 0, 1, 0)


def _read_line_pieces(
    source: Source, context: ReadContext, longest: int, offset: int, number: int, size: int
) -> Iterator[tuple[int, str]]:
    """Yield the lines from byte ``offset`` on, which is byte ``size`` of line ``number``; one of more than ``longest``
    bytes comes in pieces."""
    bad = False  # whether the rest of the line is skipped
    decoder = codecs.getincrementaldecoder("utf-8")()
    with context.open_source(source) as opened:
        file, encoding = open_as_utf8(opened, source.read_head(HEAD_SIZE), _assumed_encoding(source, context))
        skip_bytes(file, offset)
        while raw := file.readline(longest):
            while raw.endswith(b"\r") and (more := file.readline(1)):
                raw += more
            ends = raw.endswith(b"\n")
            size += len(raw)
            offset += len(raw)
            try:
                if not bad:
                    line = decoder.decode(raw, final=ends)
                    if number == 1 and size == len(raw):
                        line = line.removeprefix("\ufeff")
                    yield number, line.replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                decoder.reset()
                left = len(error.object) - error.start
                where = f"{error.reason} at byte {size - left + 1} of the line"
                _report_undecodable(source, context, encoding, where, offset - left, number)
                bad = True
            if ends:
                number, size, bad = number + 1, 0, False
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            _report_undecodable(source, context, encoding, error.reason, offset, number)


def _assumed_encoding(source: Source, context: ReadContext) -> str | None:
    return "utf-8" if source.is_text else context.encoding


def _report_undecodable(
    source: Source, context: ReadContext, encoding: str, where: str, offset: int, number: int
) -> None:
    """Tell of a line that is not in the encoding of its file, and which one that may be."""
    hint = ""
    if encoding != "UTF-8":
        where, hint = "some bytes stand for no character", "; encoding= can name another"
    elif not context.first_skipped:
        hint = suggest_encoding(_read_around(source, offset))
    context.report_error(f"not valid {encoding}: {where}{hint}", source, number)


def _read_around(source: Source, offset: int) -> bytes:
    """Return what is around a byte of a file, as far as it can be read."""
    begin = max(0, offset - ENCODING_SAMPLE_SIZE)
    with suppress(*READ_ERRORS), source.open() as opened, source.decompress(opened) as file:
        skip_bytes(file, begin)
        return file.read(offset - begin + ENCODING_SAMPLE_SIZE)
    return b""


def read_pieces(source: Source, context: ReadContext) -> Iterator[str]:
    """Yield the text of a file in large pieces, which is several times as fast as lines.

    From what cannot be decoded on, it comes line by line.
    """
    offset, number, size = 0, 1, 0  # what was read: bytes, the line that it ends in, bytes of that line
    decoder = codecs.getincrementaldecoder("utf-8")()
    with context.open_source(source) as opened:
        file: Any = open_as_utf8(opened, source.read_head(HEAD_SIZE), _assumed_encoding(source, context))[0]
        good = True
        while good and (raw := file.read1(BLOCK_SIZE)):
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
            rest = _read_line_pieces(source, context, LINE_PIECE_SIZE, offset - waiting, number, size - waiting)
            yield from (line for _, line in rest)


def read_text(source: Source, context: ReadContext) -> Iterator[Block]:
    """Yield a text file as one document, or each line or each paragraph as one."""
    if context.label_field is not None:
        raise CorpusError(f"a file of text has no field {context.label_field!r} with labels", source.name)
    if context.documents == "line":
        for _, line in read_lines(source, context):
            if line.strip():
                yield line.rstrip("\n"), True
    elif context.documents == "blank":
        yield from _split_paragraphs(line for _, line in read_lines(source, context))
    else:
        yield from _join_blocks(read_pieces(source, context))


def _split_paragraphs(lines: Iterator[str]) -> Iterator[Block]:
    """Yield documents that blank lines separate."""
    for blank, paragraph in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            for block, last in _join_blocks(paragraph):
                yield block.removesuffix("\n") if last else block, last


def _join_blocks(pieces: Iterator[str]) -> Iterator[Block]:
    """Yield a document of ``pieces`` in blocks; nothing where all of them are empty."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK_SIZE:
            block, rest = _cut_block("".join(waiting))
            yield block, False
            waiting, size = [rest], len(rest)
    if rest := "".join(waiting):
        yield rest, True


def _cut_block(text: str) -> tuple[str, str]:
    """Return a block cut before the white space of its last word, and the rest, so that tokens stay whole."""
    start = max(len(text) - BLOCK_SIZE // 8, 0)
    space = max(text.rfind(" ", start), text.rfind("\n", start))
    at = len(text[:space].rstrip(" \n")) if space > start else 0
    at = at if at > start else len(text) - 1
    return text[:at], text[at:]
