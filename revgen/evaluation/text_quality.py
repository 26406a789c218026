"""How generated texts read: real words, variety, copies of the training text, and complete sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from revgen.errors import OptionError
from revgen.generation.decoding import generate
from revgen.generation.sentences import find_sentence_end
from revgen.model import Model
from revgen.novelty import WORD, SuffixIndex, find_copies

MIN_COPIED_CHARS = 30


@dataclass(frozen=True)
class TextQuality:
    """Facts about generated texts, all as fractions."""

    real_words: float
    """The fraction of the words that occur in the training text, whatever their case."""
    distinct_words: float
    """The number of different words, divided by the number of words."""
    copied: float
    """The fraction of the characters that are part of a long copy of the training text."""
    complete: float
    """The fraction of the texts that end with a sentence."""

    def __str__(self) -> str:
        return (
            f"{self.real_words:.1%} real words, {self.distinct_words:.0%} distinct, {self.copied:.1%} copied, "
            f"{self.complete:.0%} end with a sentence"
        )


def text_quality(texts: Sequence[str], training: SuffixIndex, minimum: int = MIN_COPIED_CHARS) -> TextQuality:
    """Measure generated texts. ``training`` is the index of all text that the model was trained on.

    A copy has at least ``minimum`` characters. The last word of a text counts only if something follows it, since
    ``max_tokens`` may have cut it off. Raises OptionError if there are no words.
    """
    known = {*training.words}
    words = [m[0].casefold() for text in texts for m in WORD.finditer(text) if m.end() < len(text)]
    if not words:
        raise OptionError("texts must have words")
    return TextQuality(
        real_words=sum(word in known for word in words) / len(words),
        distinct_words=len(set(words)) / len(words),
        copied=copied_fraction(texts, training, minimum),
        complete=sum(ends_with_sentence(text) for text in texts) / len(texts),
    )


SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"temperature": temperature, "min_p": min_p}
    for temperature, min_p in product((0.6, 0.7, 0.8, 0.9, 1.0), (0.0, 0.02, 0.05, 0.1))
)
"""Options of ``generate`` to compare."""


def compare_settings(
    model: Model,
    training: SuffixIndex,
    settings: Iterable[Mapping[str, Any]] = SETTINGS,
    *,
    n: int = 50,
    min_real_words: float = 0.97,
    max_copied: float = 0.05,
) -> list[tuple[dict[str, Any], TextQuality]]:
    """Return settings with the quality of ``n`` texts, the best first, to choose ``model.generation_config`` by.

    Settings with enough real words and few copies are ordered by the number of distinct words. The others follow,
    ordered by how far they miss these limits. Each text begins with the prompt of the model, and its other defaults
    apply.
    """

    def rank(row: tuple[dict[str, Any], TextQuality]) -> tuple[float, float]:
        quality = row[1]
        misses = max(min_real_words - quality.real_words, 0) + max(quality.copied - max_copied, 0)
        return -misses, quality.distinct_words

    rows = []
    for options in settings:
        texts: Any = generate(model, None, n, {"seed": 1, **options})
        rows.append((dict(options), text_quality(texts, training)))
    return sorted(rows, key=rank, reverse=True)


def copied_fraction(texts: Sequence[str], training: SuffixIndex, minimum: int = MIN_COPIED_CHARS) -> float:
    """Return the fraction of the characters of texts that are in copies of at least ``minimum`` characters."""
    copied = sum(find_copies(text, training, minimum).fraction * len(text) for text in texts)
    return copied / sum(map(len, texts))


def ends_with_sentence(text: str) -> bool:
    """Return whether a sentence ends where the text ends, except for white space."""
    text = text.rstrip()
    return find_sentence_end(text, len(text), is_final=True) == len(text)
