"""Tests of generation that is limited by a compact index: no long copies, and no unknown words."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest

import revgen
from revgen import LanguageModel, OptionError
from revgen.compact_index import CompactIndex
from revgen.evaluation.text_quality import text_quality
from revgen.generation.text_guides import WordGuide, WordStartGuide
from revgen.novelty import WORD, SuffixIndex, find_copies
from revgen.registry import tokenizers

LIMIT = 20


@pytest.fixture(scope="module")
def training(reviews: list[str]) -> SuffixIndex:
    return SuffixIndex(reviews[:60])


@pytest.fixture(scope="module", params=["char", "word", "subword"])
def model(request: pytest.FixtureRequest, reviews: list[str]) -> LanguageModel:
    """A model that copies and misspells, with a compact index."""
    model = revgen.create(f"kneser-ney-{request.param}", order=14)
    model.fit(reviews[:60], progress=False)
    model.index_texts(reviews[:60], compact=True)
    return model


OPTIONS: dict[str, Any] = {"n": 5, "seed": 1, "max_tokens": 150, "temperature": 0.5}


def longest_word(training: SuffixIndex) -> int:
    return max(map(len, training.text.split()))


def test_a_copy_ends_where_the_next_word_would_begin(model: LanguageModel, training: SuffixIndex) -> None:
    free = model.generate("The ", **OPTIONS)
    limited = model.generate("The ", max_copied_chars=LIMIT, **OPTIONS)

    assert max(find_copies(text, training).longest for text in free) > 40
    assert text_quality(free, training).copied > 0.3
    assert text_quality(limited, training).copied < 0.05
    for text in limited:
        for start, end in find_copies(text, training, LIMIT + 1).spans:
            assert not text[start + LIMIT + 1 : end].strip().count(" "), text[start:end]


def test_a_larger_limit_allows_longer_copies(model: LanguageModel, training: SuffixIndex) -> None:
    texts = model.generate("The ", max_copied_chars=45, **OPTIONS)

    longest = max(find_copies(text, training).longest for text in texts)
    assert LIMIT + longest_word(training) < longest <= 45 + longest_word(training) + 1


def test_known_words_are_the_only_words(model: LanguageModel, training: SuffixIndex) -> None:
    hot: dict[str, Any] = OPTIONS | {"temperature": 1.5}
    free, limited = (model.generate(["The ", ""], known_words=known, **hot) for known in (False, True))

    assert text_quality([*chain(*free)], training).real_words < 0.97
    assert text_quality([*chain(*limited)], training).real_words == 1


def test_both_limits_hold_together_in_each_way_to_generate(model: LanguageModel, training: SuffixIndex) -> None:
    options: dict[str, Any] = {"max_copied_chars": LIMIT, "known_words": True, "max_tokens": 80}
    texts = [
        model.generate("The ", temperature=0, **options),
        model.generate("The ", num_beams=2, **options),
        "".join(model.stream("The ", seed=1, **options)),
        model.generate("The gui", seed=1, **options),
    ]

    quality = text_quality(texts, training)
    assert quality.real_words == 1
    assert quality.copied < 0.05
    assert "The " + texts[2] == model.generate("The ", seed=1, **options)


def test_an_unknown_word_of_the_prompt_can_be_completed(model: LanguageModel) -> None:
    text = model.generate("Qxzq", known_words=True, max_tokens=40, seed=0)

    words = [
        match[0].casefold() for match in WORD.finditer(text[4:]) if match.start() > 0 and match.end() < len(text) - 4
    ]
    assert words and {*words} <= {*model.text_index.words}


def test_hyphens_and_apostrophes_join_known_words_only() -> None:
    tokenizer = tokenizers.get("char").train(["abcdegs -'."], min_count=1)
    guide = WordGuide(tokenizer, ("abc", "bad", "bad-egg", "egg's"))
    token = {text: i for i, text in enumerate(tokenizer.vocabulary)}

    def allowed(text: str) -> str:
        mask = guide.allowed_tokens(guide.initial_state(text), 9)
        return "".join(sorted(text for text, i in token.items() if mask[i] and len(text) == 1))

    assert allowed("") == " '-.abe"
    assert allowed("a") == "b"
    assert allowed("BA") == "d"
    assert allowed("bad") == " '-."
    assert allowed("bad-") == " '-.e"
    assert allowed("abc-") == " '-."
    assert allowed("egg") == "'"
    assert allowed("egg'") == "s"
    assert allowed("xy") == " '-.abcdegs"
    assert not guide.allowed_tokens(guide.initial_state("ba"), 9)[tokenizer.eos_id]
    assert guide.allowed_tokens(guide.initial_state("bad"), 9)[tokenizer.eos_id]


def test_a_text_ends_if_every_token_is_excluded() -> None:
    model = revgen.create("kneser-ney-char", tokenizer={"min_count": 1})
    model.fit(["aaaa aaaa aaaa"] * 3, progress=False)
    model.index_texts(["zzz"], compact=True)

    assert all("a" not in text for text in model.generate("", n=5, seed=0, known_words=True, max_tokens=9))
    model.index_texts(["aaa " * 20], compact=True)
    assert model.generate("aaa " * 8, seed=0, max_copied_chars=20, banned_tokens=["a"], max_tokens=9) is not None


def test_only_tokens_that_begin_a_word_are_excluded(reviews: list[str]) -> None:
    tokenizer = tokenizers.get("subword").train(reviews)
    guide = WordStartGuide(tokenizer, CompactIndex().add(reviews[:60]), LIMIT)
    text = next(text for text in reviews[:60] if len(text) > 80)
    end = text.index(" a", 40) + 1  # a word begins here
    middle = end - 3  # inside the word before

    def allowed(prompt: str, following: str) -> np.bool_:
        ids = [i for i, token in enumerate(guide.texts) if token == following]
        return guide.allowed_tokens(guide.initial_state(prompt), 9)[ids].all()

    assert not allowed(text[:end], text[end])
    assert allowed(text[:middle], text[middle])
    assert not guide.allows_text(guide.initial_state(text[: end - 1]), text[end - 1 : end + 1], 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_copied_chars": 19}, "max_copied_chars must be at least 20 with a compact index, not 19"),
        ({"known_words": 1}, "known_words must be True or False"),
        ({"known_words": True, "regex": "a*"}, "known_words does not combine with regex"),
        ({"known_words": True, "forced_tokens": {0: "a"}}, "forced_tokens does not combine with known_words"),
    ],
)
def test_impossible_options_raise_an_error(model: LanguageModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.generate("The ", **options)
