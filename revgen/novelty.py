"""Novelty: which spans of a text are copied from the training text, character by character.

A copied span occurs in a training document, and no longer span of the text that contains it does. All suffixes of the
training text are sorted once, so a binary search finds any string (suffix arrays: Manber & Myers 1993; prefix doubling
that sorts only groups with equal ranks: Larsson & Sadakane 1999).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

SEPARATOR = "\udfff"
"""The character between two documents: a lone surrogate, which valid text does not contain."""
LETTER = r"[^\W\d_㐀-鿿]"
WORD = re.compile(rf"[㐀-鿿]|{LETTER}+(?:['’-]{LETTER}+)*")
"""A word: letters, joined by apostrophes and hyphens, or one Chinese character."""


class Span(NamedTuple):
    """The characters of a text from ``start`` up to, but not including, ``end``."""

    start: int
    end: int


class CheckedText(str):
    """A generated text with a report of its copied spans."""

    copied: CopyReport


@dataclass(frozen=True)
class CopyReport:
    """The copied spans of a text."""

    spans: tuple[Span, ...]
    """The copied spans of at least the minimum length, from left to right. Spans may overlap, but no span contains
    another."""
    longest: int
    """Length in characters of the longest copied span of any length."""
    fraction: float
    """The fraction of the text's characters that are in ``spans``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"longest": self.longest, "fraction": self.fraction, "spans": [list(span) for span in self.spans]}

    def __str__(self) -> str:
        return f"{self.fraction:.0%} copied in {len(self.spans)} spans, the longest {self.longest} characters"


class SuffixIndex:
    """An index of training documents. ``string in index`` is True if one of the documents contains the string."""

    def __init__(self, documents: Iterable[str], suffixes: NDArray[np.integer[Any]] | None = None) -> None:
        self.text = SEPARATOR.join([documents] if isinstance(documents, str) else documents)
        self.suffixes = suffix_array(self.text) if suffixes is None else suffixes

    def documents(self) -> list[str]:
        """Return the training documents."""
        return self.text.split(SEPARATOR)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the training documents, sorted and case-folded."""
        return tuple(sorted({*find_words(self.text)}))

    def to_bytes(self) -> bytes:
        """Return the content of an index file."""
        from safetensors.numpy import save

        text = np.frombuffer(self.text.encode("utf-8", "surrogatepass"), np.uint8)
        return save({"text": text, "suffixes": self.suffixes.astype(np.uint32)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read an index from the content of its file. Raises ValueError if it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            text = arrays["text"].tobytes().decode("utf-8", "surrogatepass")
            suffixes = arrays["suffixes"]
        except (SafetensorError, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"not an index of training text: {error}") from None
        is_shape_valid = suffixes.shape == (len(text),) and suffixes.dtype == np.uint32
        if not is_shape_valid or suffixes.max(initial=0) >= max(len(text), 1):
            raise ValueError("the suffixes in the index do not belong to its text")
        return cls(text, suffixes)

    def __contains__(self, string: str) -> bool:
        text, size = self.text, len(string)
        position = bisect_left(self.suffixes, string, key=lambda start: text[start : start + size])
        is_found = position < len(self.suffixes) and text.startswith(string, self.suffixes[position])
        return is_found and SEPARATOR not in string


def find_words(text: str) -> Iterator[str]:
    """Yield the words of a text in case-folded form."""
    return (match[0].casefold() for match in WORD.finditer(text))


def check_text(text: str, index: SuffixIndex) -> CheckedText:
    """Return the text with its attribute ``copied``, a report of its copied spans."""
    checked = CheckedText(text)
    checked.copied = find_copies(text, index)
    return checked


def find_copies(text: str, training: Iterable[str] | SuffixIndex, minimum: int = 20) -> CopyReport:
    """Find the spans of a text that have at least ``minimum`` characters and occur in a training document.

    White space at the ends of a span, such as the indentation of the next line, does not belong to it.

    ``training`` is one document, several documents, a corpus, or a ``SuffixIndex``. To check many texts, create the
    index once.
    """
    index = training if isinstance(training, SuffixIndex) else SuffixIndex(training)
    spans: list[Span] = []
    longest, num_copied, end = 0, 0, 0
    for start in range(len(text)):
        previous_end, end = end, max(end, start)
        while end < len(text) and text[start : end + 1] in index:
            end += 1
        if end > max(previous_end, start):  # otherwise the previous span contains this one
            copy = text[start:end]
            first, last = end - len(copy.lstrip()), start + len(copy.rstrip())
            covered = spans[-1].end if spans else 0
            longest = max(longest, last - first)
            if last - first >= minimum and last > covered:
                num_copied += last - max(first, covered)
                spans.append(Span(first, last))
    return CopyReport(tuple(spans), longest, num_copied / len(text) if text else 0.0)


def suffix_array(text: str) -> NDArray[np.int64]:
    """Return the start positions of all suffixes of a text in alphabetical order, (characters,)."""
    codes: NDArray[Any] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    order = np.argsort(codes, kind="stable")
    # Suffixes whose first ``length`` characters are equal have the same rank: 1 + the first of their indices in
    # ``order``. The empty suffix has the rank 0.
    ranks = np.zeros(len(codes) + 1, np.int64)
    length = 1  # suffixes are sorted by their first ``length`` characters
    unsorted, keys = np.arange(len(codes)), codes[order].astype(np.int64)  # indices in ``order``, and their sort keys
    while len(unsorted):
        is_first = np.concatenate([[True], keys[1:] != keys[:-1]])
        ranks[order[unsorted]] = 1 + unsorted[np.maximum.accumulate(np.where(is_first, np.arange(len(unsorted)), 0))]
        is_unique = is_first & np.concatenate([is_first[1:], [True]])
        unsorted = unsorted[~is_unique]
        suffixes = order[unsorted]
        keys = ranks[suffixes] * len(ranks) + ranks[np.minimum(suffixes + length, len(codes))]
        permutation = np.argsort(keys)
        order[unsorted], keys = suffixes[permutation], keys[permutation]
        length *= 2
    return order
