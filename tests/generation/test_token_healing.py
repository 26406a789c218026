"""A prompt that ends within a token: its end is drawn again, together with what follows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from toys import chars, table

import revgen
from revgen import LanguageModel
from revgen.generation.config import GenerationConfig
from revgen.generation.constraints import Constraints
from revgen.generation.filters import FilterContext
from revgen.generation.healing import token_texts
from revgen.ops import log_softmax
from revgen.tokenizers import SubwordTokenizer, Tokenizer, WordTokenizer

PROMPTS = ["the ", "I think that ", "I think that", "a so", "the mus", "", " ", "Dear\n", "the 漢", "naïve "]


@pytest.fixture(scope="module", params=["gru-subword", "lstm-word", "gru-char"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return revgen.load(request.param)


@pytest.fixture(scope="module")
def subword() -> LanguageModel:
    return revgen.load("gru-subword")


def logprob(model: LanguageModel, prompt: str, text: str) -> float:
    """Return the log-probability of the tokens of ``prompt + text`` that ``generate`` samples after the prompt."""
    constraints = Constraints(model, GenerationConfig())
    ids, state = constraints.begin(prompt, model.encode_prompt(prompt))
    sampled = model.encode_prompt(prompt + text)[len(ids) :]
    logits, memory = model.forward(np.array(ids)[:, None], model.initial_state(1))
    total = 0.0
    for token in sampled:
        healed = constraints.apply(logits[-1].copy(), FilterContext(np.zeros(1, int)), [state])
        total += float(log_softmax(healed.astype(float))[0, token])
        state, _ = constraints.next_state(state, token)
        logits, memory = model.forward(np.array([[token]]), memory)
    return total


def space_logprob(model: LanguageModel, prompt: str) -> float:
    """The log-probability that a token with a space at its start follows a prompt that is not healed."""
    logits, _ = model.forward(np.array(model.encode_prompt(prompt))[:, None], model.initial_state(1))
    spaces = [text.startswith(" ") for text in token_texts(model.tokenizer).texts]
    return float(np.log(np.exp(log_softmax(logits[-1, 0].astype(float)))[spaces].sum()))


def test_a_word_is_as_likely_after_a_space_as_with_the_space(subword: LanguageModel, reviews: list[str]) -> None:
    checked = 0
    for review in reviews[:12]:
        for match in list(re.finditer(r"(?<=[a-z]) [a-z]+", review))[3:30:6]:
            prompt, word = review[: match.start()], match[0]
            ids = subword.encode_prompt(prompt)
            with_word = subword.encode_prompt(prompt + word)
            if with_word[: len(ids)] != ids:
                continue
            logits, _ = subword.forward(np.array(with_word[:-1])[:, None], subword.initial_state(1))
            found = log_softmax(logits[:, 0].astype(float))
            plain = sum(found[i - 1, with_word[i]] for i in range(len(ids), len(with_word)))
            healed = logprob(subword, prompt + " ", word[1:])
            assert healed == pytest.approx(plain - space_logprob(subword, prompt), abs=1e-3)
            checked += 1
    assert checked > 20


def test_a_text_begins_with_its_prompt_and_continues(model: LanguageModel) -> None:
    for prompt in PROMPTS:
        texts = model.generate(prompt, n=4, max_tokens=8, seed=0, min_tokens=1)
        assert all(text.startswith(prompt) and text != prompt for text in texts)


def test_the_pieces_of_a_stream_are_the_text(model: LanguageModel) -> None:
    for prompt in PROMPTS:
        for option in ({}, {"temperature": 0}, {"repetition_penalty": 1.1}):
            settings: dict[str, Any] = {"max_tokens": 20, "seed": 3, **option}
            assert prompt + "".join(model.stream(prompt, **settings)) == model.generate(prompt, **settings)


def test_tokens_that_only_repeat_the_prompt_do_not_count(model: LanguageModel) -> None:
    for prompt in ("the ", "I think that", "the mus"):
        settings: list[dict[str, Any]] = [{}, {"top_k": 1}, {"num_beams": 2}]
        for options in settings:
            text = model.generate(prompt, max_tokens=1, min_tokens=1, seed=0, **options)
            assert len(text) > len(prompt)
    assert model.generate("the ", max_tokens=0) == "the "


def test_a_word_that_the_prompt_begins_is_completed() -> None:
    words = revgen.load("lstm-word")

    assert words.generate("I love the mus", temperature=0, max_tokens=1) == "I love the music"


@pytest.mark.parametrize("pattern", [r"[a-z]+ing [a-z]+", r"(guitar|drum)s?", r"\d{4}"])
def test_a_pattern_is_matched_after_the_prompt(model: LanguageModel, pattern: str) -> None:
    for prompt in PROMPTS:
        for text in model.generate(prompt, n=3, regex=pattern, max_tokens=40, seed=1):
            assert re.fullmatch(pattern, text.removeprefix(prompt))


def test_choices_and_beams_continue_the_prompt(model: LanguageModel) -> None:
    for prompt in ("the ", "the mus", "I play "):
        assert model.generate(prompt, choices=["guitar", "ic"], seed=0).removeprefix(prompt) in ("guitar", "ic")
        best = model.generate(prompt, num_beams=3, n=3, max_tokens=5)
        assert all(text.startswith(prompt) for text in best) and len(set(best)) == len(best)
        assert model.generate(prompt, num_beams=3, stop=[" "], max_tokens=9).startswith(prompt)


def test_a_copy_across_the_end_of_the_prompt_is_found() -> None:
    texts = ["the guitar plays on and on"] * 40
    model = revgen.create("kneser-ney-subword", order=4)
    model.fit(texts, index_texts=True, progress=False)

    for prompt in ("the ", "the guitar p"):
        for text in model.generate(prompt, n=8, max_copied_chars=12, max_tokens=20, seed=0):
            assert text.startswith(prompt)
            assert all(text[i : i + 13] not in texts[0] for i in range(len(text) - 12))


def test_each_prompt_of_a_list_is_healed(model: LanguageModel) -> None:
    texts = model.generate(PROMPTS, temperature=0, max_tokens=6)

    assert texts == [model.generate(prompt, temperature=0, max_tokens=6) for prompt in PROMPTS]


def test_a_prompt_is_not_healed_if_the_tokens_are_banned(subword: LanguageModel) -> None:
    texts = token_texts(subword.tokenizer).texts
    spaces = [token for token, text in enumerate(texts) if text.startswith(" ")]

    text = subword.generate("I think that ", banned_tokens=spaces, seed=0, max_tokens=5)

    assert text.startswith("I think that ") and " " not in text.removeprefix("I think that ")


def test_a_prompt_of_characters_is_never_trimmed() -> None:
    model = table(chars("abc"))

    assert token_texts(model.tokenizer).trim([0, 3, 4, 5]) == ([0, 3, 4, 5], "")


@pytest.mark.parametrize(
    ("tokenizer", "text", "pending"),
    [
        (WordTokenizer.train(["the music  of the theatre\n\n"], min_count=1), "the mus", "mus"),
        (WordTokenizer.train(["the music  of the theatre\n\n"], min_count=1), "of the", "the"),
        (WordTokenizer.train(["the music  of the theatre\n\n"], min_count=1), "music", ""),
        (WordTokenizer.train(["the music  of the theatre\n\n"], min_count=1), "the ", " "),
        (WordTokenizer.train(["the music  of the theatre\n\n"], min_count=1), "mus漢", ""),
        (SubwordTokenizer.train(["the guitar and the drums"] * 9), "the ", " "),
        (SubwordTokenizer.train(["the guitar and the drums"] * 9), "漢", ""),
    ],
)
def test_the_longest_end_that_begins_a_longer_token_is_removed(tokenizer: Tokenizer, text: str, pending: str) -> None:
    ids, removed_text = token_texts(tokenizer).trim(tokenizer.encode(text).tolist())

    assert removed_text == pending
    assert tokenizer.decode(ids) + pending == text


def test_a_very_long_token_takes_little_memory() -> None:
    tokens = (*WordTokenizer.train(["the song"], min_count=1).vocabulary, "x" * 50_000, "x" * 49_999)
    texts = token_texts(WordTokenizer(tokens))

    assert texts.is_prefix("x" * 49_999) and texts.is_prefix("th") and texts.is_prefix("x" * 20)
    assert not texts.is_prefix("x" * 50_000) and not texts.is_prefix("the") and not texts.is_prefix("xy")
