"""Plain text: numbered lines and documents, read in blocks so that memory does not grow with the file."""

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
"""A piece of a document, and whether it is the last piece."""

BLOCK_SIZE = 1 << 20  # characters
LINE_PIECE_SIZE = 1 << 20  # bytes: a longer line is read in pieces
ENCODING_SAMPLE_SIZE = 1 << 15  # bytes before and after an invalid byte


class ReadContext(Protocol):
    """The part of a corpus that the readers of a file format use: its options, and methods to report errors."""

    field: str
    documents: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None
    max_document_bytes: int
    skipped: int
    first_skipped: str

    @property
    def label_field(self) -> str | None: ...

    @property
    def fields(self) -> list[str]: ...

    def open_source(self, source: Source, *errors: type[Exception]) -> AbstractContextManager[IO[bytes]]: ...

    def report_error(self, message: str, source: Source, line: int | None = None) -> None: ...

    def make_document(self, text: str, row: Mapping[str, Any], source: Source, line: int | None) -> Iterator[Block]: ...


def read_text(source: Source, context: ReadContext) -> Iterator[Block]:
    """Yield the documents of a text file: the file, each line, or each paragraph."""
    if context.label_field is not None:
        raise CorpusError(f"a text file has no field {context.label_field!r} with labels", source.name)
    if context.documents == "line":
        for _, line in read_lines(source, context):
            if line.strip():
                yield line.rstrip("\n"), True
    elif context.documents == "blank":
        yield from _split_paragraphs(line for _, line in read_lines(source, context))
    else:
        yield from _join_blocks(read_pieces(source, context))


def read_lines(source: Source, context: ReadContext) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, from 1 on, and the line with its end.

    An undecodable line is reported, and so is a line of more than ``max_document_bytes`` bytes.
    """
    return _read_line_pieces(source, context, offset=0, number=1, size=0, is_whole=True)


def read_pieces(source: Source, context: ReadContext) -> Iterator[str]:
    """Yield the text of a file in large pieces, which is several times as fast as reading lines.

    After the first undecodable byte, the rest is read line by line, so that each error is reported with its line.
    """
    offset, number, size = 0, 1, 0  # bytes read so far, the current line, and bytes of it that were read
    decoder = codecs.getincrementaldecoder("utf-8")()
    with context.open_source(source) as opened:
        file: Any = open_as_utf8(opened, source.read_head(HEAD_SIZE), _declared_encoding(source, context))[0]
        is_valid, pending = True, b""
        while is_valid and (raw := pending + (piece := file.read1(BLOCK_SIZE))):
            raw, pending = _split_return(raw, is_last=not piece)
            try:
                text = decoder.decode(raw)
            except UnicodeDecodeError:
                is_valid = False
            else:
                yield (text if offset else text.removeprefix("\ufeff")).replace("\r\n", "\n")
                offset += len(raw)
                number += raw.count(b"\n")
                size = len(raw) - raw.rfind(b"\n") - 1 + (0 if b"\n" in raw else size)
        incomplete = len(decoder.getstate()[0])  # bytes of a character that is cut off
        if incomplete or not is_valid:
            rest = _read_line_pieces(source, context, offset - incomplete, number, size - incomplete, is_whole=False)
            yield from (line for _, line in rest)


def _read_line_pieces(
    source: Source, context: ReadContext, offset: int, number: int, size: int, *, is_whole: bool
) -> Iterator[tuple[int, str]]:
    """Yield the lines from byte ``offset`` on, which is byte ``size`` of line ``number``.

    With ``is_whole``, each line is one item, and a longer line than ``max_document_bytes`` is reported. Otherwise, a
    line is yielded in pieces of ``LINE_PIECE_SIZE``.
    """
    limit = context.max_document_bytes
    skips_line = False  # the current line has an error, and the rest of it is skipped
    decoder = codecs.getincrementaldecoder("utf-8")()
    with context.open_source(source) as opened:
        file, encoding = open_as_utf8(opened, source.read_head(HEAD_SIZE), _declared_encoding(source, context))
        skip_bytes(file, offset)
        max_size, pending = limit + 2 if is_whole else LINE_PIECE_SIZE, b""  # a line with its end
        while raw := pending + (piece := file.readline(LINE_PIECE_SIZE if skips_line else max_size)):
            raw, pending = _split_return(raw, is_last=is_whole or not piece)
            is_end = raw.endswith(b"\n")
            size += len(raw)
            offset += len(raw)
            if is_whole and not skips_line and size > limit and len(raw.rstrip(b"\r\n")) > limit:
                context.report_error(too_large("the line", limit), source, number)
                skips_line = True
            try:
                if not skips_line:
                    line = decoder.decode(raw, final=is_end)
                    if number == 1 and size == len(raw):
                        line = line.removeprefix("\ufeff")
                    raw = piece = b""  # a line may be large
                    yield number, line.replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                decoder.reset()
                remaining = len(error.object) - error.start
                reason = f"{error.reason} at byte {size - remaining + 1} of the line"
                _report_undecodable(source, context, encoding, reason, offset - remaining, number)
                skips_line = True
            if is_end:
                number, size, skips_line = number + 1, 0, False
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            _report_undecodable(source, context, encoding, error.reason, offset, number)


def _split_return(raw: bytes, is_last: bool) -> tuple[bytes, bytes]:
    r"""Split off a carriage return at the end, which may be the first half of ``\r\n``, unless no byte follows."""
    return (raw[:-1], b"\r") if raw.endswith(b"\r") and not is_last else (raw, b"")


def too_large(name: str, limit: int) -> str:
    """Return the message for a part of a file that is larger than ``max_document_bytes``."""
    return (
        f"{name} has more than {limit:,} bytes: check that the file has the right format, or raise max_document_bytes"
    )


def _declared_encoding(source: Source, context: ReadContext) -> str | None:
    """Return the encoding of a file if it is known: a stream of strings was copied as UTF-8."""
    return "utf-8" if source.is_text else context.encoding


def _report_undecodable(
    source: Source, context: ReadContext, encoding: str, reason: str, offset: int, number: int
) -> None:
    """Report a line that is not valid in the encoding of its file, and suggest another encoding for the first one."""
    hint = ""
    if encoding != "UTF-8":
        reason, hint = "some bytes do not encode a character", "; name another encoding with encoding="
    elif not context.first_skipped:
        hint = suggest_encoding(_read_around(source, offset))
    context.report_error(f"not valid {encoding}: {reason}{hint}", source, number)


def _read_around(source: Source, offset: int) -> bytes:
    """Return the bytes around a position in a file, as far as they can be read."""
    start = max(0, offset - ENCODING_SAMPLE_SIZE)
    with suppress(*READ_ERRORS), source.open() as opened, source.decompress(opened) as file:
        skip_bytes(file, start)
        return file.read(offset - start + ENCODING_SAMPLE_SIZE)
    return b""


def _split_paragraphs(lines: Iterator[str]) -> Iterator[Block]:
    """Yield the documents between blank lines."""
    for is_blank, paragraph in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not is_blank:
            for block, is_last in _join_blocks(paragraph):
                yield block.removesuffix("\n") if is_last else block, is_last


def _join_blocks(pieces: Iterator[str]) -> Iterator[Block]:
    """Yield one document, given in ``pieces``, in blocks of about ``BLOCK_SIZE``; nothing if all pieces are empty."""
    pending: list[str] = []
    size = 0
    for piece in pieces:
        pending.append(piece)
        size += len(piece)
        if size >= BLOCK_SIZE:
            block, rest = _cut_block("".join(pending))
            yield block, False
            pending, size = [rest], len(rest)
    if rest := "".join(pending):
        yield rest, True


def _cut_block(text: str) -> tuple[str, str]:
    """Return a block and the rest, cut before the white space of the last word so that tokens are not split."""
    start = max(len(text) - BLOCK_SIZE // 8, 0)
    space = max(text.rfind(" ", start), text.rfind("\n", start))
    end = len(text[:space].rstrip(" \n")) if space > start else 0
    end = end if end > start else len(text) - 1
    return text[:end], text[end:]
