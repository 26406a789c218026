"""Decoding: read files of any encoding and line ending as UTF-8, in blocks."""

from __future__ import annotations

import codecs
import io
from collections import Counter
from typing import Any, BinaryIO, cast

from revgen.errors import OptionError

HEAD_SIZE = 1 << 16
"""Bytes at the start of a file from which its encoding and line endings are detected."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, because it starts with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN_CHARS = set("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿœŒ¡¿«»‘’“”„–—…€£§°·")
MIN_DETECTION_CHARS = 32
"""Non-ASCII characters from which an encoding can be detected. With fewer, only cp1252 is suggested."""
UNDECODABLE_HANDLER = "revgen.undecodable"

# Replace undecodable bytes by a lone surrogate. It is not valid UTF-8, so the reader of lines reports its line.
codecs.register_error(UNDECODABLE_HANDLER, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


def check_encoding(encoding: str | None) -> str | None:
    """Return Python's canonical name of an encoding. Raises OptionError if it is unknown."""
    if encoding is None:
        return None
    try:
        codec = codecs.lookup(encoding)
        " ".encode(encoding)  # rejects codecs that do not encode text, such as "hex"
        codecs.getincrementaldecoder(encoding)(UNDECODABLE_HANDLER).decode(b"", final=True)
    except (LookupError, TypeError, ValueError):
        raise OptionError(f"unknown encoding {encoding!r}; common ones are 'utf-8' and 'cp1252'") from None
    return codec.name


def open_as_utf8(file: Any, head: bytes, encoding: str | None) -> tuple[BinaryIO, str]:
    """Return a file as UTF-8 with the line endings ``\\n`` or ``\\r\\n``, and the name of its original encoding.

    ``head`` holds its first bytes, up to ``HEAD_SIZE``. A byte order mark overrides ``encoding``. Without either,
    UTF-16 and UTF-32 are detected by their NULs. Undecodable bytes become invalid UTF-8. Raises UnicodeError if all of
    ``head`` are NULs, as in a file that a crash of the system has damaged.
    """
    if head and not head.strip(b"\0"):
        raise UnicodeError(f"its first {len(head):,} bytes are NUL")
    by_mark = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), None)
    encoding = by_mark or encoding or _detect_by_nuls(head) or "utf-8"
    is_utf8 = encoding.replace("_", "-") in ("utf-8", "utf-8-sig")
    text = head.decode("latin-1" if is_utf8 else encoding, "replace")
    # In a longer file, a carriage return at the end of the head may be the first half of "\r\n".
    has_only_returns = "\r" in (text[:-1] if len(head) == HEAD_SIZE else text) and "\n" not in text
    if is_utf8 and not has_only_returns:
        return file, "UTF-8"
    # The line endings of UTF-8 are single bytes. Latin-1 keeps all other bytes as they are.
    decoder: Any = codecs.getincrementaldecoder("latin-1" if is_utf8 else encoding)(UNDECODABLE_HANDLER)
    if has_only_returns:
        decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    transcoder = _Transcoder(file, decoder, "latin-1" if is_utf8 else "utf-8")
    return cast(BinaryIO, io.BufferedReader(transcoder, HEAD_SIZE)), "UTF-8" if is_utf8 else encoding


def skip_bytes(file: Any, size: int) -> None:
    """Skip the first ``size`` bytes of a file that was just opened."""
    if file.seekable():
        file.seek(size)
    while not file.seekable() and size and (piece := file.read(min(size, HEAD_SIZE))):
        size -= len(piece)


def suggest_encoding(sample: bytes) -> str:
    """Return a hint on how to read a file in which ``sample`` is not valid UTF-8."""
    text = sample.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    if sum(char > "\x7f" for char in text) - damaged >= damaged:  # mostly valid UTF-8
        return "; errors='skip' skips the line"
    hint = "; if the file has another encoding, name it, such as encoding='cp1252'"
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return hint
    if _is_western(sample):
        names = ["cp1252"]
    else:
        best = from_bytes(sample).best()
        names = [] if best is None else [best.encoding, *best.could_be_from_charset]
    if not names:
        return hint
    return f"; the file may have encoding={'cp1252' if 'cp1252' in names else names[0]!r}"


def _is_western(sample: bytes) -> bool:
    """Return whether a sample has few non-ASCII characters, and all are common ones of cp1252."""
    non_ascii = [char for char in sample.decode("cp1252", "replace") if char > "\x7f"]
    return len(non_ascii) < MIN_DETECTION_CHARS and set(non_ascii) <= WESTERN_CHARS


class _Transcoder(io.RawIOBase):
    """The bytes of a file, decoded and encoded again."""

    def __init__(self, file: Any, decoder: Any, encoding: str) -> None:
        self._file, self._decoder, self._encoding = file, decoder, encoding
        self._buffer, self._position, self._at_end = b"", 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._position == len(self._buffer) and not self._at_end:
            raw = self._file.read1(HEAD_SIZE)
            self._at_end = not raw
            text = self._decoder.decode(raw, final=self._at_end)
            self._buffer, self._position = text.encode(self._encoding, "surrogatepass"), 0
        piece = self._buffer[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _detect_by_nuls(head: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 encoding of a text without a byte order mark, detected by its NULs, or None."""
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
    # In a text of one alphabet, the high bytes have one or two values: NUL for ASCII, and the block of the alphabet. In
    # Chinese and similar texts, only line endings may have NULs, and the low bytes have all values.
    most_common = sum(count for _, count in Counter(high).most_common(2))
    has_one_alphabet = 2 * max(nuls_even, nuls_odd) > len(high) or most_common > 0.9 * len(high)
    letters = sum(0x20 <= byte < 0x7F for byte in low)
    if not has_one_alphabet and (letters > 0.7 * len(low) or _is_decodable(head[:-4], "utf-8")):
        return None
    return encoding if _is_decodable(head[: len(head) // 2 * 2], encoding) else None


def _is_decodable(sample: bytes, encoding: str) -> bool:
    """Return whether a sample can be decoded to a text that is more than NULs."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return bool(text.strip("\0"))
