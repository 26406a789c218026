"""A compact index of training text: its words, and hashes of its windows, from which no sentence can be read.

A window has ``WINDOW`` characters and ends where a word begins. A Bloom filter (Bloom 1970) keeps the hashes of all
windows in a byte each. A text that copies a window is therefore recognized as soon as the next word begins. Of the
other windows, the filter takes about one in fifty for a copy.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from revgen.errors import OptionError
from revgen.novelty import SuffixIndex, find_words

WINDOW = 21
MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
"""Odd numbers. Each multiplies the hash of a window and so chooses one bit of it."""
WORD_START = re.compile(r"(?<!\w)\w|[\u3040-\u9fff]|[^\w\s]")
"""The first character of a word; each ideograph and each punctuation mark is a word."""

MAX_WORDS, MAX_FILTERS = 2_000_000, 100
MAX_WORDS_BYTES = 64 << 20
"""The limits of an index, which may come from an untrusted source. Each call of ``add`` needs a filter."""


class CompactIndex:
    """The words of training documents, sorted and case-folded, and Bloom filters of their windows."""

    def __init__(self, words: Iterable[str] = (), filters: Sequence[bytes] = ()) -> None:
        self.words = tuple(sorted(words))
        self.filters = tuple(filters)

    def add(self, documents: Iterable[str]) -> CompactIndex:
        """Return the index of these documents and of those before. Raises OptionError if it has too many parts."""
        words, hashes = set(self.words), set[int]()
        for text in documents:
            words.update(find_words(text))
            hashes.update(hash_window(text[end - WINDOW : end]) for end in word_starts(text) if end >= WINDOW)
        size = sum(len(word.encode()) + 1 for word in words)
        if len(words) > MAX_WORDS or size > MAX_WORDS_BYTES or len(self.filters) == MAX_FILTERS:
            raise OptionError(
                f"a compact index has at most {MAX_WORDS:,} words of {MAX_WORDS_BYTES:,} bytes, and takes texts at "
                f"most {MAX_FILTERS} times: index fewer texts, or all in one call"
            )
        return CompactIndex(words, [*self.filters, bloom_filter(np.array([*hashes], np.uint64))])

    def is_copied(self, text: str, max_chars: int) -> bool:
        """Return whether a text that ends with the first character of a word copies more than ``max_chars`` at its end.

        ``max_chars`` is at least ``WINDOW - 1``. The last windows of the text must all be in the index.
        """
        if len(text) <= max_chars or not self._has_window(text[-WINDOW:]):
            return False
        ends = word_starts(text, len(text) - max_chars - 2 + WINDOW)
        return all(self._has_window(text[end - WINDOW : end]) for end in ends)

    def _has_window(self, window: str) -> bool:
        hashed = hash_window(window)
        return any(has_hash(bits, hashed) for bits in self.filters)

    def to_bytes(self) -> bytes:
        """Return the content of an index file."""
        from safetensors.numpy import save

        words = zlib.compress("\n".join(self.words).encode(), 9)
        arrays = {"words": words} | {f"windows.{i}": bits for i, bits in enumerate(self.filters)}
        return save({name: np.frombuffer(content, np.uint8) for name, content in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read an index from the content of its file. Raises ValueError if it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            filters = [arrays[name].tobytes() for name in arrays if name != "words"]
            decompressor = zlib.decompressobj()
            words = decompressor.decompress(arrays["words"].tobytes(), MAX_WORDS_BYTES).decode()
        except (SafetensorError, KeyError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"not an index of training text: {error}") from None
        if not decompressor.eof or words.count("\n") >= MAX_WORDS:
            raise ValueError("the words in the index are cut off, or too many")
        if not all(filters) or not 0 < len(filters) <= MAX_FILTERS:
            raise ValueError("the windows in the index are missing, or too many")
        return cls(words.split("\n") if words else (), filters)


TextIndex: TypeAlias = SuffixIndex | CompactIndex


def extend_index(index: TextIndex | None, texts: Iterable[str], compact: bool) -> TextIndex:
    """Return an index of these texts and of those in ``index``, which is compact if ``index`` or ``compact`` is."""
    documents = [*(index.documents() if isinstance(index, SuffixIndex) else ()), *texts]
    if isinstance(index, CompactIndex):
        return index.add(documents)
    return CompactIndex().add(documents) if compact else SuffixIndex(documents)


def read_index(data: bytes) -> TextIndex:
    """Read an index of either kind from the content of its file. Raises ValueError if it is damaged."""
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return CompactIndex.from_bytes(data) if b'"words"' in header else SuffixIndex.from_bytes(data)


def word_starts(text: str, first: int = 0) -> Iterator[int]:
    """Yield the position after the first character of each word that begins at the index ``first`` or later."""
    return (match.end() for match in WORD_START.finditer(text, first))


def hash_window(window: str) -> int:
    """Return the hash of a string, 32 bits."""
    return zlib.crc32(window.encode("utf-8", "surrogatepass"))


def bloom_filter(hashes: NDArray[np.uint64]) -> bytes:
    """Return a Bloom filter with a byte for each hash."""
    is_set = np.zeros(8 * max(len(hashes), 1), bool)
    for multiplier in MULTIPLIERS:
        is_set[bit_number(hashes, multiplier, len(is_set))] = True
    return np.packbits(is_set, bitorder="little").tobytes()


def bit_number(hashed: Any, multiplier: int, num_bits: int) -> Any:
    """Return the bit that a multiplier chooses for a hash, or for an array of hashes."""
    return ((hashed * multiplier & 0xFFFFFFFF) * num_bits) >> 32


def has_hash(bits: bytes, hashed: int) -> bool:
    """Return whether a Bloom filter has a hash."""
    for multiplier in MULTIPLIERS:
        number = bit_number(hashed, multiplier, 8 * len(bits))
        if not bits[number >> 3] >> (number & 7) & 1:
            return False
    return True
