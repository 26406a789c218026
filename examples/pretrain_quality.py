"""How well the samples of a pretrained model read: real words, variety, and copies of the training text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from revgen.evaluation.text_quality import copied_fraction
from revgen.novelty import SuffixIndex

WORDS_COUNTED = 1_000
"""The number of words in which distinct words are counted."""
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]」』]*\s*$")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case; each Chinese character is a word."""
    return re.findall(r"[\u4e00-\u9fff]|" + WORD.pattern, text.lower().replace("’", "'"))


def known_words(texts: Iterable[str], language: str | None) -> set[str]:
    """Return the words of texts, and those of the word list of pyspellchecker for a language that it has."""
    words = {word for text in texts for word in split_words(text)}
    with suppress(ValueError):  # no list for this language
        words.update(import_module("spellchecker").SpellChecker(language).word_frequency.dictionary)
    return words


def is_real(word: str, known: set[str]) -> bool:
    """Return whether a word is known, or consists of known words around apostrophes."""
    return word in known or ("'" in word and all(part in known or len(part) < 3 for part in word.split("'")))


def measure_texts(texts: Sequence[str], index: SuffixIndex, known: set[str]) -> dict[str, Any]:
    """Return the fractions of real words, distinct words, copied characters, and texts that end with a sentence."""
    words = [word for text in texts for word in split_words(text)]
    first = words[:WORDS_COUNTED]
    return {
        "texts": len(texts),
        "real_words": sum(is_real(word, known) for word in words) / len(words),
        "distinct_words": len(set(first)) / len(first),
        "copied": copied_fraction(texts, index),
        "end_with_sentence": sum(SENTENCE_END.search(text) is not None for text in texts) / len(texts),
    }


def measure_names(texts: Sequence[str], training: Iterable[str]) -> dict[str, Any]:
    """Return the fractions of names that are different from each other, and that are not training names."""
    known = {*training}
    return {
        "texts": len(texts),
        "distinct_names": len({*texts}) / len(texts),
        "new_names": sum(text not in known for text in texts) / len(texts),
    }
