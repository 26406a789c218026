"""Novelty: how much of a text is copied, character by character, from the text that a model learnt from.

A span is copied where it stands in one training document as it is, and cannot be made longer. All suffixes of the
training text are sorted once, so that any string is looked up in it by bisection.
(Suffix arrays: Manber & Myers 1993; sorted by doubling, the unresolved groups alone: Larsson & Sadakane 1999.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

SEPARATOR = "\udfff"  # no text holds half a surrogate pair


class Span(NamedTuple):
    """The characters ``start`` to ``end`` of a text."""

    start: int
    end: int


class CheckedText(str):
    """A text that has been looked up in the training text."""

    copied: CopyReport
    """What of it is copied."""


@dataclass(frozen=True)
class CopyReport:
    """What of a text is copied."""

    spans: tuple[Span, ...]
    """The copied spans of at least the asked length, from left to right; none lies within another, but they may
    overlap."""
    longest: int
    """Characters of the longest copied span, however short it is."""
    fraction: float
    """The part of the text's characters that lies in ``spans``."""

    def to_dict(self) -> dict[str, Any]:
        """Every figure by name, in plain values."""
        return {"longest": self.longest, "share": self.fraction, "spans": [list(span) for span in self.spans]}

    def __str__(self) -> str:
        return f"{self.fraction:.0%} copied in {len(self.spans)} spans, the longest {self.longest} characters"


class SuffixIndex:
    """Training documents, ready to look strings up in them: a string, or several."""

    def __init__(self, training: Iterable[str], suffixes: NDArray[np.integer[Any]] | None = None) -> None:
        self.text = SEPARATOR.join([training] if isinstance(training, str) else training)
        self.suffixes = suffix_array(self.text) if suffixes is None else suffixes

    def documents(self) -> list[str]:
        """The training documents."""
        return self.text.split(SEPARATOR)

    def to_bytes(self) -> bytes:
        """The content of its file in a model directory."""
        from safetensors.numpy import save

        text = np.frombuffer(self.text.encode("utf-8", "surrogatepass"), np.uint8)
        return save({"text": text, "suffixes": self.suffixes.astype(np.uint32)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The index of such a file. Raises ValueError where it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            text = arrays["text"].tobytes().decode("utf-8", "surrogatepass")
            suffixes = arrays["suffixes"]
        except (SafetensorError, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"not an index: {error}") from None
        if (
            suffixes.shape != (len(text),)
            or suffixes.dtype != np.uint32
            or suffixes.max(initial=0) >= max(len(text), 1)
        ):
            raise ValueError("its text and its suffixes do not belong together")
        return cls(text, suffixes)

    def __contains__(self, string: str) -> bool:
        text, size = self.text, len(string)
        place = bisect_left(self.suffixes, string, key=lambda start: text[start : start + size])
        return place < len(self.suffixes) and text.startswith(string, self.suffixes[place]) and SEPARATOR not in string


def check_text(text: str, index: SuffixIndex) -> CheckedText:
    """Return the text with a report of its copied spans as ``copied``."""
    checked = CheckedText(text)
    checked.copied = find_copies(text, index)
    return checked


def find_copies(text: str, training: Iterable[str] | SuffixIndex, minimum: int = 20) -> CopyReport:
    """The spans of a text that stand in training documents (a string, several, a corpus, or an ``Index`` of them,
    which is made once for many texts); those of at least ``minimum`` characters count."""
    index = training if isinstance(training, SuffixIndex) else SuffixIndex(training)
    spans: list[Span] = []
    longest, covered, end = 0, 0, 0
    for start in range(len(text)):
        before, end = end, max(end, start)
        while end < len(text) and text[start : end + 1] in index:
            end += 1
        if end > max(before, start):  # otherwise it lies within the span before
            longest = max(longest, end - start)
            if end - start >= minimum:
                covered += end - max(start, spans[-1].end if spans else 0)
                spans.append(Span(start, end))
    return CopyReport(tuple(spans), longest, covered / len(text) if text else 0.0)


def suffix_array(text: str) -> NDArray[np.int64]:
    """Where the suffixes of a text begin, in alphabetical order, (characters,)."""
    codes: NDArray[Any] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    order = np.argsort(codes, kind="stable")
    ranks = np.zeros(len(codes) + 1, np.int64)  # of each suffix: 1 + the first place of its group; 0 past the end
    places, keys = np.arange(len(codes)), codes[order].astype(np.int64)  # the suffixes that are not in order yet
    length = 1
    while len(places):
        begins = np.concatenate([[True], keys[1:] != keys[:-1]])
        ranks[order[places]] = 1 + places[np.maximum.accumulate(np.where(begins, np.arange(len(places)), 0))]
        alone = begins & np.concatenate([begins[1:], [True]])
        places = places[~alone]
        some = order[places]
        keys = ranks[some] * len(ranks) + ranks[np.minimum(some + length, len(codes))]
        by = np.argsort(keys)
        order[places], keys = some[by], keys[by]
        length *= 2
    return order
