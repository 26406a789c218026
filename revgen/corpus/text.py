"""Plain text: lines with their numbers and documents, in blocks, so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import IO, Any, Protocol

from revgen.corpus.decoding import HEAD, as_utf8, skip, suggest_encoding
from revgen.corpus.sources import DAMAGES, Source
from revgen.errors import CorpusError

Block = tuple[str, bool]
"""A piece of a document, and whether it is the last one."""

BLOCK = 1 << 20  # characters
LINE = 1 << 20  # bytes: a longer line is read in pieces
SAMPLE = 1 << 15  # bytes before and after a bad one that tell the encoding


class Reading(Protocol):
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

    def open(self, source: Source, *damages: type[Exception]) -> AbstractContextManager[IO[bytes]]: ...

    def bad(self, message: str, source: Source, line: int | None = None) -> None: ...

    def document(self, text: str, row: Mapping[str, Any], source: Source, number: int | None) -> Iterator[Block]: ...


def lines(source: Source, reading: Reading) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers and ends. A line that cannot be decoded is an error."""
    return _pieces_of_lines(source, reading, -1, 0, 1, 0)


def _pieces_of_lines(
    source: Source, reading: Reading, longest: int, offset: int, number: int, size: int
) -> Iterator[tuple[int, str]]:
    """Yield the lines from byte ``offset`` on, which is byte ``size`` of line ``number``; one of more than ``longest``
    bytes comes in pieces."""
    bad = False  # whether the rest of the line is skipped
    decoder = codecs.getincrementaldecoder("utf-8")()
    with reading.open(source) as opened:
        file, encoding = as_utf8(opened, source.head(HEAD), _encoding(source, reading))
        skip(file, offset)
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
                _undecodable(source, reading, encoding, where, offset - left, number)
                bad = True
            if ends:
                number, size, bad = number + 1, 0, False
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            _undecodable(source, reading, encoding, error.reason, offset, number)


def _encoding(source: Source, reading: Reading) -> str | None:
    return "utf-8" if source.is_text else reading.encoding


def _undecodable(source: Source, reading: Reading, encoding: str, where: str, offset: int, number: int) -> None:
    """Tell of a line that is not in the encoding of its file, and which one that may be."""
    hint = ""
    if encoding != "UTF-8":
        where, hint = "some bytes stand for no character", "; encoding= can name another"
    elif not reading.first_skipped:
        hint = suggest_encoding(_sample(source, offset))
    reading.bad(f"not valid {encoding}: {where}{hint}", source, number)


def _sample(source: Source, offset: int) -> bytes:
    """Return what is around a byte of a file, as far as it can be read."""
    begin = max(0, offset - SAMPLE)
    with suppress(*DAMAGES), source.open() as opened, source.unpacked(opened) as file:
        skip(file, begin)
        return file.read(offset - begin + SAMPLE)
    return b""


def whole(source: Source, reading: Reading) -> Iterator[str]:
    """Yield the text of a file in large pieces, which is several times as fast as lines.

    From what cannot be decoded on, it comes line by line.
    """
    offset, number, size = 0, 1, 0  # what was read: bytes, the line that it ends in, bytes of that line
    decoder = codecs.getincrementaldecoder("utf-8")()
    with reading.open(source) as opened:
        file: Any = as_utf8(opened, source.head(HEAD), _encoding(source, reading))[0]
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
            rest = _pieces_of_lines(source, reading, LINE, offset - waiting, number, size - waiting)
            yield from (line for _, line in rest)


def read_text(source: Source, reading: Reading) -> Iterator[Block]:
    """Yield a text file as one document, or each line or each paragraph as one."""
    if reading.label_field is not None:
        raise CorpusError(f"a file of text has no field {reading.label_field!r} with labels", source.name)
    if reading.documents == "line":
        for _, line in lines(source, reading):
            if line.strip():
                yield line.rstrip("\n"), True
    elif reading.documents == "blank":
        yield from _paragraphs(line for _, line in lines(source, reading))
    else:
        yield from _blocks(whole(source, reading))


def _paragraphs(lines: Iterator[str]) -> Iterator[Block]:
    """Yield documents that blank lines separate."""
    for blank, paragraph in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            for block, last in _blocks(paragraph):
                yield block.removesuffix("\n") if last else block, last


def _blocks(pieces: Iterator[str]) -> Iterator[Block]:
    """Yield a document of ``pieces`` in blocks; nothing where all of them are empty."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK:
            block, rest = _cut("".join(waiting))
            yield block, False
            waiting, size = [rest], len(rest)
    if rest := "".join(waiting):
        yield rest, True


def _cut(text: str) -> tuple[str, str]:
    """Return a block cut before the white space of its last word, and the rest, so that tokens stay whole."""
    start = max(len(text) - BLOCK // 8, 0)
    space = max(text.rfind(" ", start), text.rfind("\n", start))
    at = len(text[:space].rstrip(" \n")) if space > start else 0
    at = at if at > start else len(text) - 1
    return text[:at], text[at:]
