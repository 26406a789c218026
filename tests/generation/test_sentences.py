"""``stop_at_sentence``: where a sentence ends, in each way to generate a text."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from toys import chars, scripted

import revgen
from revgen import OptionError, Tokenizer
from revgen.generation.sentences import SentenceStop, find_sentence_end
from revgen.registry import tokenizers

SENTENCES = {
    "It rained. We left.": "It rained.",
    "Stop! Now.": "Stop!",
    "Why?! Because.": "Why?!",
    "Well… I went.": "Well…",
    "Well... I went.": "Well...",
    "It cost 3.5 euros. Yes.": "It cost 3.5 euros.",
    "Mr. Darcy and Mrs. Bennet met Dr. Who in St. Ives. Yes.": "Mr. Darcy and Mrs. Bennet met Dr. Who in St. Ives.",
    "J. K. Rowling and H. G. Wells wrote. Yes.": "J. K. Rowling and H. G. Wells wrote.",
    "It was I. He knew.": "It was I.",
    "He came at 5 p.m. by train. Yes.": "He came at 5 p.m. by train.",
    "See revgen.org and e.g. this. Yes.": "See revgen.org and e.g. this.",
    "“Go!” he said.": "“Go!”",
    '"Go!" he said.': '"Go!"',
    "(It rained.) We left.": "(It rained.)",
    "« Oui. » Il part.": "« Oui. »",
    "« Oui. Non. » Il part.": "« Oui.",
    "« Quoi\u00a0!\u202f» dit-il.": "« Quoi\u00a0!\u202f»",
    "«Да.» Он ушёл.": "«Да.»",
    "Пришёл и я. И. С. Пошёл.": "Пришёл и я.",
    "床前明月光，疑是地上霜。举头望明月。": "床前明月光，疑是地上霜。",
    "他说：「去！」然后走了。": "他说：「去！」",
    "It rained.\nWe left.": "It rained.",
    "no end": None,
    "a.b.c": None,
}
"""Texts, and their first sentences."""


@pytest.mark.parametrize("text", SENTENCES)
def test_the_first_sentence_ends_where_a_reader_sees_its_end(text: str) -> None:
    end = find_sentence_end(text)

    assert (None if end is None else text[:end]) == SENTENCES[text]


def test_only_the_end_of_the_document_decides_whether_a_sentence_ends_with_the_text() -> None:
    assert find_sentence_end("It cost 3.") is None
    assert find_sentence_end("It rained. ") is None  # a closing quotation mark may follow
    assert find_sentence_end("It rained.", is_final=True) == len("It rained.")
    assert find_sentence_end("It rained. ", is_final=True) == len("It rained.")


@pytest.mark.parametrize("text", SENTENCES)
def test_pieces_of_any_size_end_like_the_whole_text(text: str) -> None:
    sentence = SENTENCES[text]
    for size in (1, 2, 5, 100):
        assert _in_pieces(text, size) == (text if sentence is None else sentence)


def _in_pieces(text: str, size: int) -> str:
    stop, written, held = SentenceStop(), "", ""
    for start in range(0, len(text), size):
        held += text[start : start + size]
        is_final = start + size >= len(text)
        if (end := stop.find(held, is_final=is_final)) is not None:
            return written + held[:end]
        ready = len(held) - (0 if is_final else stop.undecided(held))
        stop.advance(held[:ready])
        written, held = written + held[:ready], held[ready:]
    return written


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_every_way_to_generate_ends_with_the_sentence(level: str, text: str) -> None:
    model = scripted(text, _tokenizer(level))
    sentence = SENTENCES[text] or text

    assert model.generate("", stop_at_sentence=True, temperature=0) == sentence
    assert "".join(model.stream("", stop_at_sentence=True)) == sentence
    assert model.generate("", n=2, stop_at_sentence=True, min_p=0.1) == [sentence] * 2
    assert model.generate("", stop_at_sentence=True, num_beams=2) == sentence


@cache
def _tokenizer(level: str) -> Tokenizer:
    options: dict[str, Any] = {"vocab_size": 500} if level == "subword" else {}
    tokenizer: Tokenizer = tokenizers.get(level).train([*SENTENCES] * 20, **options)
    return tokenizer


def test_the_sentence_ends_after_min_tokens_and_before_max_tokens() -> None:
    text = "One. Two. Three. Four."
    model = scripted(text)

    def generate(**options: Any) -> str:
        text = "".join(model.stream("", stop_at_sentence=True, **options))
        assert model.generate("", n=2, stop_at_sentence=True, **options) == [text, text]
        assert model.generate("", stop_at_sentence=True, num_beams=2, **options) == text
        return text

    assert generate() == "One."
    assert generate(min_tokens=4) == "One."
    assert generate(min_tokens=5) == "One. Two."
    assert generate(min_tokens=15, max_tokens=18) == "One. Two. Three."
    assert generate(min_tokens=6, max_tokens=7) == "One. Tw"
    assert generate(max_tokens=4) == "One."
    assert generate(max_tokens=5) == "One."


def test_a_stop_string_before_the_end_of_the_sentence_ends_the_text() -> None:
    model = scripted("One, two. Three.")

    assert model.generate("", stop_at_sentence=True, stop=",") == "One"
    assert model.generate("", stop_at_sentence=True, stop="Th") == "One, two."


def test_a_continuation_has_at_least_one_character_and_knows_its_prompt() -> None:
    model = scripted("Hi. Mr. Fox ran. End.")

    assert model.generate("Hi.", stop_at_sentence=True) == "Hi. Mr. Fox ran."
    assert model.generate("Hi. Mr", stop_at_sentence=True) == "Hi. Mr. Fox ran."
    assert model.generate("Hi. Mr", stop_at_sentence=True, num_beams=2) == "Hi. Mr. Fox ran."


def test_models_in_turn_end_with_the_sentence() -> None:
    model = scripted("One two. Three four. Five.")

    assert revgen.synthesize([model, model], "", stop_at_sentence=True) == "One two."
    assert revgen.synthesize([model, model], "", stop_at_sentence=True, min_tokens=9) == "One two. Three four."


@pytest.mark.parametrize("options", [{"regex": "a+"}, {"choices": ["a"]}])
def test_a_text_that_has_to_match_cannot_end_with_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="stop_at_sentence does not combine with"):
        scripted("a", chars("a")).generate("", stop_at_sentence=True, **options)
