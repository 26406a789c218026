"""Generation: each option of the sampler held to its definition, and decoding with stops, seeds and streams."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import LETTERS, Floats, Silent, Table, alphabet, chars, probabilities, table

import revgen
from revgen import LanguageModel, OptionError, Tokenizer
from revgen.generation.constraints import token_biases
from revgen.generation.sampler import sample
from revgen.registry import tokenizers

BATCH, VOCAB = 40, 60


@pytest.fixture
def logits() -> Floats:
    return np.random.default_rng(0).normal(0, 3, (BATCH, VOCAB)).astype(np.float32)


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    normalized: Floats = powers / powers.sum(-1, keepdims=True)
    return normalized


def chi_square(counts: NDArray[Any], expected: Floats) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


# The sampler -----------------------------------------------------------------------------


def test_without_options_tokens_are_drawn_by_softmax(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits), softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 0.8, 1.0, 1.7, 10.0])
def test_temperature_divides_the_logits(logits: Floats, temperature: float) -> None:
    p = probabilities(logits, temperature=temperature)

    np.testing.assert_allclose(p, softmax(logits / temperature), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-3, 1e-30, 1e-50, 5e-324])
def test_temperature_zero_and_next_to_it_take_the_likeliest(logits: Floats, temperature: float) -> None:
    p = probabilities(logits, temperature=temperature)

    assert (p.argmax(-1) == logits.argmax(-1)).all()
    np.testing.assert_allclose(p.max(-1), 1, atol=1e-4)


def test_a_very_high_temperature_draws_all_alike(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits, temperature=1e6), 1 / VOCAB, rtol=1e-3)


def test_a_higher_temperature_has_a_higher_entropy(logits: Floats) -> None:
    def entropy(temperature: float) -> Floats:
        p = probabilities(logits, temperature=temperature).astype(np.float64)
        bits: Floats = -(p * np.log2(p + 1e-300)).sum(-1)
        return bits

    steps = [entropy(temperature) for temperature in (0.2, 0.5, 1.0, 1.5, 3.0)]

    assert all((higher > lower).all() for lower, higher in pairwise(steps))


@pytest.mark.parametrize("k", [1, 2, 7, VOCAB - 1, VOCAB, VOCAB + 1, 10**9])
def test_top_k_keeps_the_k_likeliest(logits: Floats, k: int) -> None:
    p = probabilities(logits, top_k=k)

    for row, kept in zip(softmax(logits), p, strict=True):
        likeliest = np.argsort(-row)[:k]
        assert set(np.flatnonzero(kept)) == set(likeliest)
        np.testing.assert_allclose(kept[likeliest], row[likeliest] / row[likeliest].sum(), rtol=1e-4)


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens_with_that_probability(logits: Floats, share: float) -> None:
    p = probabilities(logits, top_p=share)

    for row, kept in zip(softmax(logits), p, strict=True):
        inside = np.flatnonzero(kept)
        assert row[inside].sum() >= share - 1e-6
        assert row[inside].sum() - row[inside].min() < share + 1e-6, "without its least likely token it is too little"
        assert row[inside].min() > np.delete(row, inside).max(initial=0)
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


def test_top_p_of_one_keeps_every_token(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits, top_p=1), softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_min_p_keeps_what_is_likely_next_to_the_likeliest(logits: Floats, share: float) -> None:
    p = probabilities(logits, min_p=share)

    for row, kept in zip(softmax(logits), p, strict=True):
        inside = row >= share * row.max() * (1 - 1e-6)
        assert ((kept > 0) == inside).all()
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


@pytest.mark.parametrize("share", [1e-9, 0.2, 0.5, 0.9, 0.999])
def test_typical_p_keeps_the_smallest_set_of_tokens_of_expected_surprise(logits: Floats, share: float) -> None:
    p = probabilities(logits, typical_p=share)

    for row, kept in zip(softmax(logits), p, strict=True):
        strangeness = np.abs(-np.log(row) + (row * np.log(row)).sum())
        inside = np.flatnonzero(kept)
        assert row[inside].sum() >= share - 1e-6
        assert row[inside].sum() - row[inside[strangeness[inside].argmax()]] < share + 1e-6
        assert strangeness[inside].max() < np.delete(strangeness, inside).min(initial=np.inf) + 1e-4
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


def test_typical_p_may_leave_the_likeliest_token_out() -> None:
    p = np.array([[0.4, 0.12, 0.12, 0.12, 0.12, 0.12]])

    kept = probabilities(np.log(p), typical_p=0.5)

    assert kept[0, 0] == 0
    np.testing.assert_allclose(kept.sum(), 1)


@pytest.mark.parametrize("penalty", [-1.0, 0.5, 2.0])
def test_the_frequency_penalty_is_taken_off_once_for_each_time(logits: Floats, penalty: float) -> None:
    counts = np.random.default_rng(1).integers(0, 4, (BATCH, VOCAB))

    p = probabilities(logits, counts, frequency_penalty=penalty)

    np.testing.assert_allclose(p, softmax(logits - penalty * counts), rtol=1e-3, atol=1e-9)


def test_a_schedule_gives_each_row_the_temperature_of_its_place(logits: Floats) -> None:
    schedule = [0.5, 0, 2.0]
    places = np.arange(BATCH)

    p = probabilities(logits, positions=places, temperature=schedule, top_k=9)

    for place, row, given in zip(places.tolist(), logits, p, strict=True):
        alone = probabilities(row[None], temperature=schedule[place % 3], top_k=9)[0]
        np.testing.assert_allclose(given, alone, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 5.0])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_the_repetition_penalty_makes_tokens_of_the_text_less_likely(
    logits: Floats, penalty: float, temperature: float
) -> None:
    seen = np.random.default_rng(1).random((BATCH, VOCAB)) < 0.3
    changed = logits.copy()
    changed[seen & (logits > 0)] /= penalty
    changed[seen & (logits <= 0)] *= penalty

    p = probabilities(logits, seen, repetition_penalty=penalty, temperature=temperature)

    np.testing.assert_allclose(p, probabilities(changed, temperature=temperature), rtol=1e-4, atol=1e-9)


def test_options_combine_in_the_order_that_is_written(logits: Floats) -> None:
    seen = np.random.default_rng(1).random((BATCH, VOCAB)) < 0.3
    counts = seen * 3
    options = {"temperature": 0.8, "top_k": 25, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8}

    p = probabilities(logits, counts, repetition_penalty=1.2, frequency_penalty=0.1, **options)

    for row, seen_row, given in zip(logits.astype(np.float64), seen, p, strict=True):
        row[seen_row] = np.where(row > 0, row / 1.2, row * 1.2)[seen_row] - 3 * 0.1
        expected = softmax(row / 0.8)
        expected[np.argsort(-expected)[25:]] = 0
        expected /= expected.sum()
        order = np.argsort(-expected)
        before = np.cumsum(expected[order]) - expected[order]
        expected[order[before >= 0.9]] = 0
        expected[expected < 0.02 * expected.max()] = 0
        expected /= expected.sum()
        surprise = -np.log(np.where(expected > 0, expected, 1e-300))
        order = np.argsort(np.abs(surprise - (expected * surprise).sum()))
        before = np.cumsum(expected[order]) - expected[order]
        expected[order[before >= 0.8]] = 0
        np.testing.assert_allclose(given, expected / expected.sum(), rtol=1e-3, atol=1e-9)


def test_the_logits_stay_as_they_are(logits: Floats) -> None:
    before = logits.copy()

    everything = {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5}
    penalties = {"repetition_penalty": 2.0, "frequency_penalty": 1.0}
    for options in ({}, everything | penalties, {"temperature": 0}, {"top_p": 0.5}):
        probabilities(logits, np.ones((BATCH, VOCAB)), **options)

    assert (logits == before).all()


def test_draws_follow_the_probabilities() -> None:
    draws = 50_000
    p = np.random.default_rng(0).dirichlet(np.ones(10)).astype(np.float32)

    drawn = sample(np.tile(p, (draws, 1)), np.random.default_rng(1).random(draws))

    # 9 degrees of freedom: above 33.7 by chance once in 10,000 times.
    assert chi_square(np.bincount(drawn, minlength=10), p.astype(np.float64) * draws) < 33.7


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, 1 - 2**-53])
def test_what_has_no_probability_is_never_drawn(uniform: float) -> None:
    p = np.array([[0, 0, 1, 0], [0, 0.5, 0.5, 0], [0.1, 0.2, 0.7, 0]], np.float32)

    drawn = sample(p, np.full(3, uniform))

    assert (p[np.arange(3), drawn] > 0).all()


# Decoding --------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_k": 10},
    {"temperature": 1.5, "top_p": 0.9},
    {"min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.1, "stop": ["e", " a"]},
    {"stop": ["the", "\n"]},
    {"max_tokens": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", ["the ", ""])
def test_stream_gives_piece_by_piece_what_generate_gives(
    small_model: LanguageModel, options: dict[str, Any], prompt: str
) -> None:
    options = {"max_tokens": 60, "seed": 3, **options}

    pieces = list(small_model.stream(prompt, **options))

    assert prompt + "".join(pieces) == small_model.generate(prompt, **options)
    assert all(pieces), "no piece is empty"


@pytest.mark.parametrize("level", tokenizers.names())
def test_models_of_every_level_stream_what_they_generate(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    model = table(tokenizer, np.random.default_rng(0).normal(0, 2, (len(tokenizer), len(tokenizer))))

    for seed in range(5):
        text = model.generate("the ", seed=seed, max_tokens=80)
        assert text == "the " + "".join(model.stream("the ", seed=seed, max_tokens=80))


@pytest.mark.parametrize("n", [1, 5])
def test_the_same_seed_gives_the_same_texts_and_another_others(small_model: LanguageModel, n: int) -> None:
    def texts(seed: int) -> str | list[str]:
        return small_model.generate("the ", n=n, seed=seed, max_tokens=40)

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_without_a_seed_texts_differ(small_model: LanguageModel) -> None:
    assert len({small_model.generate("the ", max_tokens=40) for _ in range(3)}) > 1


def test_several_texts_come_as_a_list_and_differ(small_model: LanguageModel) -> None:
    texts = small_model.generate("the ", n=6, seed=0, max_tokens=40)

    assert isinstance(texts, list)
    assert len(set(texts)) == 6
    assert all(text.startswith("the ") for text in texts)


def test_a_text_does_not_depend_on_when_the_others_end(small_model: LanguageModel) -> None:
    options: dict[str, Any] = {"n": 20, "seed": 3, "max_tokens": 60}

    whole = small_model.generate("", **options)
    stopped = small_model.generate("", stop="a", **options)

    assert len({len(text) for text in stopped}) > 5, "they end at many places"
    assert stopped == [text.partition("a")[0] for text in whole]


def test_a_list_of_texts_comes_wherever_their_number_is_given(small_model: LanguageModel) -> None:
    settings: Any = {"max_tokens": 5, "seed": 1}
    text = small_model.generate("the ", **settings)

    assert small_model.generate("the ", n=1, **settings) == [text]
    assert small_model.generate(["the "], **settings) == [text]
    assert small_model.generate(["the "], n=1, **settings) == [[text]]
    assert isinstance(small_model.generate("the ", num_beams=2, **settings), str)
    assert len(small_model.generate("the ", n=1, num_beams=2, **settings)) == 1
    assert revgen.synthesize([small_model], "the ", n=1, **settings) == [
        revgen.synthesize([small_model], "the ", **settings)
    ]


def test_greedy_texts_are_all_the_same_whatever_the_seed(small_model: LanguageModel) -> None:
    texts = small_model.generate("the ", n=3, temperature=0, seed=1, max_tokens=30)

    assert set(texts) == {small_model.generate("the ", temperature=0, seed=2, max_tokens=30)}
    assert texts[0] == small_model.generate("the ", top_k=1, max_tokens=30)


def test_the_first_token_follows_the_distribution_of_the_model() -> None:
    tokenizer = chars("abcdefghij")
    logits = np.random.default_rng(0).normal(size=len(tokenizer)).astype(np.float32)
    logits[: tokenizer.unk_id + 1] = -np.inf
    n = 20_000

    texts = table(tokenizer, logits).generate("", n=n, max_tokens=1, seed=0)

    counts = np.array([texts.count(c) for c in "abcdefghij"])
    assert counts.sum() == n
    assert chi_square(counts, softmax(logits)[3:] * n) < 33.7


def test_start_and_unknown_are_never_drawn_and_the_end_ends() -> None:
    tokenizer = chars("ab")
    logits = np.zeros(len(tokenizer), np.float32)
    logits[[tokenizer.bos_id, tokenizer.unk_id]] = 50

    texts = table(tokenizer, logits).generate("", n=300, max_tokens=20, seed=0)

    assert set("".join(texts)) == {"a", "b"}
    assert {len(text) for text in texts} > {0, 1, 2, 3}, "one in three tokens is an end"
    logits[tokenizer.eos_id] = -np.inf
    assert {len(text) for text in table(tokenizer, logits).generate("", n=30, max_tokens=20, temperature=0)} == {20}
    logits[tokenizer.eos_id] = 100
    assert table(tokenizer, logits).generate("ab", max_tokens=20) == "ab"
    assert list(table(tokenizer, logits).stream("ab", max_tokens=20)) == []


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1}])
def test_special_tokens_do_not_take_the_place_of_others(options: dict[str, Any]) -> None:
    tokenizer = chars("ab")
    logits = np.zeros(len(tokenizer), np.float32)
    logits[[tokenizer.bos_id, tokenizer.unk_id]] = 50
    logits[3] = 5

    assert table(tokenizer, logits).generate("", max_tokens=5, seed=0, **options) == "aaaaa"


def test_the_repetition_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    tokenizer = chars("abcd")
    logits = np.array([0, 0.5, 0, 4, 3, 2, 1], np.float32)
    model = table(tokenizer, logits)

    assert model.generate("", temperature=0, max_tokens=4) == "aaaa"
    assert model.generate("", temperature=0, max_tokens=4, repetition_penalty=100) == "abcd"
    assert model.generate("ab", temperature=0, max_tokens=2, repetition_penalty=100) == "abcd"
    assert model.generate("a", n=2, temperature=0, max_tokens=3, repetition_penalty=100) == ["abcd", "abcd"]


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.6},
    {"temperature": [0.6]},
    {"top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.3},
    {"typical_p": 0.7},
    {"logit_bias": {"a": 2, "b": -1}},
    {"banned_tokens": ["c"]},
    {"repetition_penalty": 3.0},
    {"frequency_penalty": 0.7},
    {"temperature": 1.3, "top_k": 8, "top_p": 0.95, "logit_bias": {"a": 1}, "frequency_penalty": 0.2},
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_texts_follow_the_distribution_that_the_options_promise(options: dict[str, Any]) -> None:
    tokenizer = chars("abcdefghij")
    logits = np.random.default_rng(0).normal(size=len(tokenizer)).astype(np.float32)
    logits[: tokenizer.unk_id + 1] = -np.inf
    draws, prompt = 20_000, "aab"
    counts = np.bincount([tokenizer.bos_id, *tokenizer.encode(prompt)], minlength=len(tokenizer))
    biases = token_biases(revgen.GenerationConfig(**options), tokenizer)
    expected = probabilities(logits[None] + biases, counts[None], **options)[0].astype(np.float64)

    texts = table(tokenizer, logits).generate(prompt, n=draws, max_tokens=1, seed=0, **options)

    drawn = np.bincount([tokenizer.encode(text)[-1] for text in texts], minlength=len(tokenizer))
    possible = expected > 0
    assert not drawn[~possible].any()
    if possible.sum() > 1:  # at most 9 degrees of freedom: above 33.7 by chance less than once in 10,000 times
        assert chi_square(drawn[possible], expected[possible] / expected.sum() * draws) < 33.7


def test_a_later_token_follows_the_distribution_behind_the_one_before() -> None:
    tokenizer = chars("abcd")
    logits = np.random.default_rng(0).normal(0, 1, (7, 7)).astype(np.float32)
    logits[:, : tokenizer.unk_id + 1] = -np.inf
    model, draws = table(tokenizer, logits), 20_000

    texts = model.generate("a", n=draws, max_tokens=2, seed=1, temperature=[1.0, 0.5])

    for first in "abcd":
        behind = [text[2] for text in texts if text[1] == first]
        expected = softmax(logits[tokenizer.encode(first)] / 0.5)[0, 3:] * len(behind)
        assert chi_square(np.array([behind.count(c) for c in "abcd"]), expected) < 21.1  # 3 degrees of freedom


def test_a_temperature_of_a_list_is_that_of_each_token_in_turn() -> None:
    tokenizer = chars("abcd")
    logits = np.array([-99, -99, -99, 3, 2, 1, 0], np.float32)
    model = table(tokenizer, logits)

    texts = model.generate("", n=300, max_tokens=4, temperature=[0, 100], banned_tokens=[Tokenizer.eos_id], seed=0)

    assert {text[0] + text[2] for text in texts} == {"aa"}
    assert len({text[1] + text[3] for text in texts}) == 16


def test_a_temperature_of_a_function_is_that_of_each_place() -> None:
    tokenizer = chars("abcd")
    model = table(tokenizer, np.array([-99, -99, -99, 3, 2, 1, 0], np.float32))

    def melting(place: int) -> float:
        return 0 if place < 3 else 50

    options: dict[str, Any] = {"n": 100, "max_tokens": 5, "banned_tokens": [Tokenizer.eos_id], "seed": 0}
    texts = model.generate("", temperature=melting, **options)

    assert {text[:3] for text in texts} == {"aaa"}
    assert len({text[3:] for text in texts}) == 16
    assert texts == model.generate("", temperature=[0, 0, 0, 50, 50], **options)


def test_tokens_are_banned_and_made_likelier_by_text_or_id() -> None:
    model = alphabet()
    m = int(model.tokenizer.encode("m")[0])

    assert model.generate("k", temperature=0, max_tokens=3, banned_tokens=["m"])[:2] == "kl"
    tokens: list[Any] = ["m", m, np.int64(m)]
    for token in tokens:
        assert "m" not in model.generate("k", n=30, max_tokens=30, seed=0, banned_tokens=[token])[0]
        assert model.generate("a", temperature=0, max_tokens=2, logit_bias={token: 50}) == "amm"
    ending = model.generate("a", n=20, max_tokens=90, temperature=2, seed=0)
    endless = model.generate("a", n=20, max_tokens=90, temperature=2, seed=0, banned_tokens=[Tokenizer.eos_id])
    assert {len(text) for text in endless} == {91} != {len(text) for text in ending}


def test_a_word_is_one_token_of_a_vocabulary_of_words(reviews: list[str]) -> None:
    tokenizer = tokenizers.get("word").train(reviews)
    model = table(tokenizer)

    assert model.generate("", forced_tokens={0: "the", 1: " ", 2: "song"}, max_tokens=3) == "the song"
    biased = model.generate("", n=50, max_tokens=1, logit_bias={"the": 9}, seed=1)
    assert biased.count("the") > 40
    assert "the" not in model.generate("", n=50, max_tokens=1, logit_bias={"the": 9}, banned_tokens=["the"], seed=1)


def test_forced_tokens_stand_where_they_are_forced() -> None:
    model = alphabet()

    assert model.generate("a", temperature=0, max_tokens=6, forced_tokens={0: "x", 3: "c"}) == "axyzcde"
    assert model.generate("a", temperature=0, forced_tokens={2: Tokenizer.eos_id}) == "abc"
    texts = model.generate(["a", "xyz"], n=3, temperature=0, max_tokens=3, forced_tokens={1: "k"})
    assert texts == [["abkl"] * 3, ["xyzakl"] * 3]


def test_a_text_has_at_least_min_tokens() -> None:
    tokenizer = chars("ab")
    logits = np.array([0, 2, 0, 1, 1], np.float32)
    model = table(tokenizer, logits)

    lengths = [len(text) for text in model.generate("", n=400, min_tokens=7, max_tokens=12, seed=0)]

    assert min(lengths) == 7 and max(lengths) == 12
    assert model.generate("", temperature=0, min_tokens=3, banned_tokens=["b"]) == "aaa"


def test_stop_strings_count_behind_min_tokens_only() -> None:
    model = alphabet()

    assert model.generate("a", temperature=0, stop="c", min_tokens=2, max_tokens=30)[:4] == "abcd"
    assert model.generate("a", temperature=0, stop="c", min_tokens=2, max_tokens=90) == f"{LETTERS}ab"
    assert model.generate("a", temperature=0, stop=["cd", "de"], min_tokens=2, max_tokens=90) == "abc"


def test_a_list_of_prompts_is_written_side_by_side(small_model: LanguageModel) -> None:
    prompts = ["the ", "I think that this is ", "", "a"]

    texts = small_model.generate(prompts, temperature=0, max_tokens=40)
    several = small_model.generate(prompts, n=2, seed=3, max_tokens=40, repetition_penalty=1.1)

    assert texts == [small_model.generate(prompt, temperature=0, max_tokens=40) for prompt in prompts]
    assert small_model.generate(prompts[:1], temperature=0, max_tokens=40) == texts[:1]
    assert [len(some) for some in several] == [2] * 4
    assert all(text.startswith(prompt) for prompt, some in zip(prompts, several, strict=True) for text in some)
    assert several == small_model.generate(tuple(prompts), n=2, seed=3, max_tokens=40, repetition_penalty=1.1)


@pytest.mark.parametrize("architecture", ["transformer", "mlp", "textgenrnn", "mingru", "kneser-ney", "rglru"])
def test_prompts_of_different_lengths_do_not_disturb_each_other(architecture: str, reviews: list[str]) -> None:
    small: dict[str, Any] = {"hidden_size": 16, "num_layers": 2} if architecture != "kneser-ney" else {}
    model = revgen.create(f"{architecture}-char", **small)
    epochs: dict[str, Any] = {"epochs": 1} if small else {}
    model.fit(reviews[:10], progress=False, **epochs)
    prompts = ["the " * 5, "a", "this song is "]

    texts = model.generate(prompts, temperature=0, max_tokens=25)

    assert texts == [model.generate(prompt, temperature=0, max_tokens=25) for prompt in prompts]


def test_many_texts_at_once_drop_the_rows_that_are_done() -> None:
    tokenizer = chars("ab")
    sizes: list[int] = []

    class Counting(Table):
        """A model that remembers how many rows it was asked for."""

        def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
            sizes.append(tokens.shape[1])
            return super().forward(tokens, state)

    texts = table(tokenizer, kind=Counting).generate("", n=256, max_tokens=50, seed=0)

    assert len(texts) == 256
    assert sizes[:2] == [1, sum(len(text) > 0 for text in texts)]
    assert all(size == sum(len(text) >= step for text in texts) for step, size in enumerate(sizes[1:], 1))


def test_a_model_on_pytorch_writes_what_it_writes_on_numpy(
    small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    options: dict[str, Any] = {"n": 4, "seed": 2, "max_tokens": 30, "top_p": 0.9, "repetition_penalty": 1.2}
    on_numpy = model.generate("the ", **options)

    model._derived["numpy_network"] = None  # as on a device other than the CPU

    assert model.generate("the ", **options) == on_numpy


# Where a text ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("d", "abc"),
        ("def", "abc"),
        (["def"], "abc"),
        (("gh", "de", "z"), "abc"),
        (["f", "cdef"], "ab"),
        (["b"], "a"),
        (["bx", "dex", "zz"], "abcdefghijk"),
        (["kl"], "abcdefghijk"),
        (["ab"], "abcdefghijk"),
        ([], "abcdefghijk"),
        (None, "abcdefghijk"),
    ],
)
def test_a_text_ends_before_the_first_stop_string(stop: str | Sequence[str] | None, text: str) -> None:
    model = alphabet()

    assert model.generate("a", temperature=0, max_tokens=10, stop=stop) == text
    assert "a" + "".join(model.stream("a", temperature=0, max_tokens=10, stop=stop)) == text
    assert model.generate("a", n=2, temperature=0, max_tokens=10, stop=stop) == [text, text]


def test_a_stop_string_that_begins_again_within_itself_is_found() -> None:
    tokenizer = chars("abx")
    script = "aabaabaabx"

    class Scripted(Table):
        """A model that writes one text; its state is the place in it."""

        def initial_state(self, batch: int) -> Any:
            return np.zeros((batch, 1), np.int64)

        def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
            ids = tokenizer.encode(script)
            rows = np.eye(len(tokenizer), dtype=np.float32)[ids[state[:, 0] % len(ids)]]
            return rows[None], state + 1

    scripted = table(tokenizer, kind=Scripted)

    assert scripted.generate("", temperature=0, max_tokens=10) == script
    assert scripted.generate("", temperature=0, max_tokens=10, stop="aabx") == "aabaab"
    assert scripted.generate("", temperature=0, max_tokens=10, stop=["aabaabx", "bx"]) == "aab"
    assert list(scripted.stream("", temperature=0, max_tokens=10, stop="aabx")) == ["aab", "aab"]


@pytest.mark.parametrize("level", tokenizers.names())
def test_a_stop_string_is_found_across_the_borders_of_tokens(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    model = table(tokenizer, np.random.default_rng(0).normal(0, 3, (len(tokenizer), len(tokenizer))))
    model.table[:, tokenizer.eos_id] = -np.inf
    whole = model.generate("", seed=0, max_tokens=60)
    stop = whole[20:26]

    text = model.generate("", seed=0, max_tokens=60, stop=stop)

    assert text == whole.partition(stop)[0]
    assert "".join(model.stream("", seed=0, max_tokens=60, stop=stop)) == text


def test_a_stop_string_of_the_prompt_does_not_stop() -> None:
    assert alphabet().generate("ab", temperature=0, max_tokens=3, stop=["ab", "bc"]) == "abcde"


@pytest.mark.parametrize("prompt", ["", "a", "xyz"])
def test_max_tokens_is_the_number_of_tokens_drawn(prompt: str) -> None:
    model = alphabet()

    assert model.generate(prompt, max_tokens=0) == prompt
    assert model.generate(prompt, n=2, max_tokens=0) == [prompt, prompt]
    assert list(model.stream(prompt, max_tokens=0)) == []
    assert len(model.generate(prompt, temperature=0, max_tokens=7)) == len(prompt) + 7


def test_an_empty_prompt_begins_a_document() -> None:
    assert alphabet().generate(temperature=0, max_tokens=4) == "abcd"


# Prompts ---------------------------------------------------------------------------------


def test_characters_that_an_old_vocabulary_cannot_write_warn_once_and_work() -> None:
    model = table(chars("a song"))

    with pytest.warns(UserWarning, match="does not know '漢', '🎸'") as caught:
        text = model.generate("a 漢🎸 song ", seed=0, max_tokens=10)

    assert text.startswith("a 漢🎸 song ")
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate("a 漢🎸 song ", seed=0, max_tokens=10) == text
        assert "a 漢🎸 song " + "".join(model.stream("a 漢🎸 song ", seed=0, max_tokens=10)) == text


def test_a_prompt_of_characters_outside_the_vocabulary_is_read(small_model: LanguageModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_model.generate("a 漢🎸 song ", seed=0, max_tokens=10).startswith("a 漢🎸 song ")


# Bad options -----------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
BAD: list[tuple[str, Any]] = [
    *(("temperature", value) for value in (-1, -1e-9, NAN, INF, "hot", None, [], [1, -1], [1, "x"], lambda i: 1 - i)),
    *(("top_k", value) for value in (0, -1, 1.5, "3", True, NAN)),
    *(("top_p", value) for value in (0, -0.1, 1.1, NAN, "x")),
    *(("min_p", value) for value in (-0.1, 1.1, NAN, "x")),
    *(("typical_p", value) for value in (0, -0.1, 1.1, NAN, "x")),
    *(("repetition_penalty", value) for value in (0, -1, NAN, INF, None, "x")),
    *(("frequency_penalty", value) for value in (NAN, INF, None, "x")),
    *(("logit_bias", value) for value in ("a", ["a"], {"a": "x"}, {"a": INF}, {"ab": 1}, {9: 1}, {-1: 1}, {1.5: 1})),
    *(("banned_tokens", value) for value in ("a", 3, ["ab"], ["漢"], [""], [99], [True])),
    *(
        ("forced_tokens", value)
        for value in ("a", ["a"], {-1: "a"}, {"a": 1}, {300: "a"}, {0: "ab"}, {0: 99}, {0: None})
    ),
    *(("max_tokens", value) for value in (-1, 1.5, None, "3", True)),
    *(("min_tokens", value) for value in (-1, 1.5, None, "3", True, 301)),
    *(("num_beams", value) for value in (0, -1, 1.5, "2", True)),
    *(("length_penalty", value) for value in (NAN, INF, None, "x")),
    *(("regex", value) for value in (3, b"a", "(", "[b-a]")),
    *(("choices", value) for value in ("ab", [], [1], 3)),
    *(("max_copied_chars", value) for value in (0, -1, 1.5, "3", True)),
    *(("stop", value) for value in ("", [""], ["a", ""], [1], 5, b"a", [None])),
    *(("seed", value) for value in (-1, 1.5, "x", True)),
    *(("n", value) for value in (0, -1, 1.5, "2", True)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_option_is_named_before_anything_is_drawn(name: str, value: Any) -> None:
    model = table(chars("ab"), kind=Silent)
    options: dict[str, Any] = {name: value}

    with pytest.raises(OptionError, match=rf"^{name} must "):
        model.generate("a", **options)
    if name != "n":
        with pytest.raises(OptionError, match=rf"^{name} must "):
            model.stream("a", **options)


COMBINATIONS: list[tuple[dict[str, Any], str]] = [
    ({"regex": "a*", "stop": "b"}, "stop does not combine with regex: a text that is cut"),
    ({"regex": "a*", "min_tokens": 3}, "min_tokens does not combine with regex"),
    ({"regex": "a*", "forced_tokens": {0: "a"}}, "forced_tokens does not combine with regex"),
    ({"regex": "a*", "max_copied_chars": 9}, "max_copied_chars does not combine with regex"),
    (
        {"max_copied_chars": 9, "forced_tokens": {0: "a"}},
        "forced_tokens does not combine with max_copied_chars: forced tokens may be copies",
    ),
    ({"regex": "a*", "choices": ["a"]}, "choices does not combine with regex"),
    ({"choices": ["a"], "stop": ["b"]}, "stop does not combine with choices"),
    *(
        ({"num_beams": 2, name: value}, f"{name} does not combine with num_beams")
        for name, value in {"temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5}.items()
    ),
    ({"banned_tokens": ["a"], "forced_tokens": {0: "a"}}, "forced_tokens has a banned token: 'a'"),
    ({"min_tokens": 3, "forced_tokens": {1: Tokenizer.eos_id}}, "forced_tokens ends the text at 1, before min_tokens"),
    ({"banned_tokens": [Tokenizer.bos_id]}, "banned_tokens names <s>, which is never sampled"),
    ({"logit_bias": {Tokenizer.unk_id: 1}}, "logit_bias names <unk>, which is never sampled"),
    ({"num_beams": 2, "n": 3}, "n must be at most num_beams, 2"),
]


@pytest.mark.parametrize(("options", "message"), COMBINATIONS, ids=str)
def test_options_that_do_not_combine_say_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        table(chars("ab"), kind=Silent).generate("a", **options)


@pytest.mark.parametrize("name", ["temp", "topk", "beams", "stream"])
def test_an_option_that_there_is_not_is_an_error_that_offers_others(name: str) -> None:
    options: Any = {name: 1}
    with pytest.raises(OptionError, match=f"there is no option of generate '{name}'"):
        table(chars("ab"), kind=Silent).generate("a", **options)
    with pytest.raises(OptionError, match=f"there is no option of stream '{name}'"):
        table(chars("ab"), kind=Silent).stream("a", **options)


@pytest.mark.parametrize("text", [["a"], None, 3, b"a"])
def test_what_is_scored_must_be_a_string(text: Any) -> None:
    with pytest.raises(OptionError, match=r"^text must be a string, not "):
        table(chars("ab"), kind=Silent).score(text)


@pytest.mark.parametrize("prompt", [None, 3, b"a", [], [3], ["a", None]])
def test_a_prompt_that_is_no_string_is_an_error(prompt: Any) -> None:
    with pytest.raises(OptionError, match="prompt"):
        table(chars("ab"), kind=Silent).generate(prompt)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": np.float32(0.5)},
        {"top_k": np.int64(3)},
        {"top_p": np.float64(1)},
        {"seed": np.int64(1), "max_tokens": np.int32(3), "n": np.int8(2)},
        {"seed": 2**100},
        {"stop": ()},
    ],
)
def test_numbers_of_numpy_are_options_too(small_model: LanguageModel, options: dict[str, Any]) -> None:
    assert small_model.generate("a", **{"max_tokens": 3, **options})
