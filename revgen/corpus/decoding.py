"""Decoding: files of any encoding and line end as UTF-8, in blocks."""

from __future__ import annotations

import codecs
import io
from collections import Counter
from typing import Any, BinaryIO, cast

from revgen.errors import OptionError

HEAD_SIZE = 1 << 16
"""How many bytes at the start of a file tell its encoding and its line ends."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN_CHARS = set("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿœŒ¡¿«»‘’“”„–—…€£§°·")
MIN_GUESS_CHARS = 32  # characters
UNDECODABLE_HANDLER = "revgen.undecodable"

# A lone surrogate is no valid UTF-8, so that the reader of lines finds it, and tells the line.
codecs.register_error(UNDECODABLE_HANDLER, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


def check_encoding(encoding: str | None) -> str | None:
    """Return an encoding that was asked for under the name that Python knows it by. Raises OptionError."""
    if encoding is None:
        return None
    try:
        codec = codecs.lookup(encoding)
        " ".encode(encoding)  # refuses codecs of bytes, such as "hex"
        codecs.getincrementaldecoder(encoding)(UNDECODABLE_HANDLER).decode(b"", final=True)
    except (LookupError, TypeError, ValueError):
        raise OptionError(f"there is no encoding {encoding!r}; common ones are 'utf-8' and 'cp1252'") from None
    return codec.name


def open_as_utf8(file: Any, head: bytes, encoding: str | None) -> tuple[BinaryIO, str]:
    """Return a file as UTF-8 with ``\\n`` or ``\\r\\n`` as line ends, and the name of the encoding that it has.

    ``head`` is its first bytes, up to ``HEAD``. A byte order mark overrules ``encoding``; without either, UTF-16 and
    UTF-32 are recognized by their NULs. What cannot be decoded becomes bytes that are no valid UTF-8.
    """
    encoding = next(
        (name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), encoding or _detect_by_nuls(head) or "utf-8"
    )
    is_utf8 = encoding.replace("_", "-") in ("utf-8", "utf-8-sig")
    text = head.decode("latin-1" if is_utf8 else encoding, "replace")
    # The last carriage return of a longer file may be the first half of a line end.
    only_returns = "\r" in (text[:-1] if len(head) == HEAD_SIZE else text) and "\n" not in text
    if is_utf8 and not only_returns:
        return file, "UTF-8"
    # The line ends of UTF-8 are bytes, which Latin-1 gives and takes as they are.
    decoder: Any = codecs.getincrementaldecoder("latin-1" if is_utf8 else encoding)(UNDECODABLE_HANDLER)
    if only_returns:
        decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    transcoder = _Transcoder(file, decoder, "latin-1" if is_utf8 else "utf-8")
    return cast(BinaryIO, io.BufferedReader(transcoder, HEAD_SIZE)), "UTF-8" if is_utf8 else encoding


def skip_bytes(file: Any, size: int) -> None:
    """Move forward by some bytes from the start of a file."""
    if file.seekable():
        file.seek(size)
    while not file.seekable() and size and (piece := file.read(min(size, HEAD_SIZE))):
        size -= len(piece)


def suggest_encoding(sample: bytes) -> str:
    """Return a hint on the encoding of a file in which ``sample`` is not valid UTF-8."""
    text = sample.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    if sum(char > "\x7f" for char in text) - damaged >= damaged:  # UTF-8 all the same
        return "; errors='skip' passes over the line"
    unknown = "; if the file has another encoding, name it, such as encoding='cp1252'"
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return unknown
    best = None if _is_western(sample) else from_bytes(sample).best()
    names = ["cp1252"] if _is_western(sample) else [] if best is None else [best.encoding, *best.could_be_from_charset]
    if not names:
        return unknown
    return f"; the file may have encoding={'cp1252' if 'cp1252' in names else names[0]!r}"


def _is_western(sample: bytes) -> bool:
    """Return whether a sample has a few characters beyond ASCII, too few to guess by, which make sense in cp1252."""
    beyond = [char for char in sample.decode("cp1252", "replace") if char > "\x7f"]
    return len(beyond) < MIN_GUESS_CHARS and set(beyond) <= WESTERN_CHARS


class _Transcoder(io.RawIOBase):
    """The bytes of a file, decoded and encoded again."""

    def __init__(self, file: Any, decoder: Any, encoding: str) -> None:
        self._file, self._decoder, self._encoding = file, decoder, encoding
        self._ready, self._start, self._ended = b"", 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._start == len(self._ready) and not self._ended:
            raw = self._file.read1(HEAD_SIZE)
            self._ended = not raw
            text = self._decoder.decode(raw, final=self._ended)
            self._ready, self._start = text.encode(self._encoding, "surrogatepass"), 0
        piece = self._ready[self._start : self._start + len(buffer)]
        buffer[: len(piece)] = piece
        self._start += len(piece)
        return len(piece)


def _detect_by_nuls(head: bytes) -> str | None:
    """Return the encoding of a text without a byte order mark in which NULs come in a regular pattern."""
    nuls = head.count(0)
    if not nuls or nuls == len(head) or (len(head) < 16 and len(head) % 2):
        return None
    for encoding in ("utf-32-le", "utf-32-be"):
        if nuls > 0.4 * len(head) and _is_decodable(head[: len(head) // 4 * 4], encoding):
            return encoding
    even, odd = head[::2], head[1::2]
    nuls_even, nuls_odd = even.count(0), odd.count(0)
    if min(nuls_even, nuls_odd) > 0.1 * max(nuls_even, nuls_odd):
        return None
    encoding, high, low = ("utf-16-be", even, odd) if nuls_even > nuls_odd else ("utf-16-le", odd, even)
    # The high bytes are all zero, or of one alphabet with zeros for the spaces; or the text is Chinese or alike, with
    # zeros in its line ends perhaps, and low bytes of all values.
    alphabet = sum(count for _, count in Counter(high).most_common(2))
    letters = sum(0x20 <= byte < 0x7F for byte in low)
    most = 2 * max(nuls_even, nuls_odd) > len(high) or alphabet > 0.9 * len(high)
    if not most and (letters > 0.7 * len(low) or _is_decodable(head[:-4], "utf-8")):
        return None
    return encoding if _is_decodable(head[: len(head) // 2 * 2], encoding) else None


def _is_decodable(sample: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return bool(text.strip("\0"))
