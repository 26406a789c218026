"""Decoding: seeds, streams, lists of prompts, temperatures, biases and forced tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import LETTERS, Floats, Table, alphabet, chars, chi_square, probabilities, softmax, table

import revgen
from revgen import LanguageModel, Tokenizer
from revgen.generation import decoding
from revgen.generation.constraints import token_biases
from revgen.registry import tokenizers

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
def test_stream_yields_the_text_of_generate_in_pieces(
    small_model: LanguageModel, options: dict[str, Any], prompt: str
) -> None:
    options = {"max_tokens": 60, "seed": 3, **options}

    pieces = list(small_model.stream(prompt, **options))

    assert prompt + "".join(pieces) == small_model.generate(prompt, **options)
    assert all(pieces), "no piece is empty"


@pytest.mark.parametrize("level", tokenizers.names())
def test_models_of_every_level_stream_the_text_they_generate(level: str, reviews: list[str]) -> None:
    tokenizer = tokenizers.get(level).train(reviews)
    model = table(tokenizer, np.random.default_rng(0).normal(0, 2, (len(tokenizer), len(tokenizer))))

    for seed in range(5):
        text = model.generate("the ", seed=seed, max_tokens=80)
        assert text == "the " + "".join(model.stream("the ", seed=seed, max_tokens=80))


@pytest.mark.parametrize("n", [1, 5])
def test_equal_seeds_give_equal_texts_and_other_seeds_do_not(small_model: LanguageModel, n: int) -> None:
    def texts(seed: int) -> str | list[str]:
        return small_model.generate("the ", n=n, seed=seed, max_tokens=40)

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_without_a_seed_texts_differ(small_model: LanguageModel) -> None:
    assert len({small_model.generate("the ", max_tokens=40) for _ in range(3)}) > 1


def test_n_texts_are_a_list_of_different_texts(small_model: LanguageModel) -> None:
    texts = small_model.generate("the ", n=6, seed=0, max_tokens=40)

    assert isinstance(texts, list)
    assert len(set(texts)) == 6
    assert all(text.startswith("the ") for text in texts)


def test_a_text_does_not_depend_on_when_the_others_end(small_model: LanguageModel) -> None:
    options: dict[str, Any] = {"n": 20, "seed": 3, "max_tokens": 60}

    whole = small_model.generate("", **options)
    stopped = small_model.generate("", stop="a", **options)

    assert len({len(text) for text in stopped}) > 5, "they end at many positions"
    assert stopped == [text.partition("a")[0] for text in whole]


def test_n_returns_a_list_even_if_it_is_one(small_model: LanguageModel) -> None:
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


def test_greedy_texts_do_not_depend_on_the_seed(small_model: LanguageModel) -> None:
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


def test_start_and_unknown_are_never_sampled_and_the_end_ends_the_text() -> None:
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
def test_special_tokens_do_not_count_in_filters(options: dict[str, Any]) -> None:
    tokenizer = chars("ab")
    logits = np.zeros(len(tokenizer), np.float32)
    logits[[tokenizer.bos_id, tokenizer.unk_id]] = 50
    logits[3] = 5

    assert table(tokenizer, logits).generate("", max_tokens=5, seed=0, **options) == "aaaaa"


def test_the_repetition_penalty_counts_prompt_and_continuation() -> None:
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
    {"presence_penalty": 0.7},
    {"temperature": 1.3, "top_k": 8, "top_p": 0.95, "logit_bias": {"a": 1}, "frequency_penalty": 0.2},
]


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_texts_follow_the_distribution_that_the_options_promise(options: dict[str, Any]) -> None:
    tokenizer = chars("abcdefghij")
    logits = np.random.default_rng(0).normal(size=len(tokenizer)).astype(np.float32)
    logits[: tokenizer.unk_id + 1] = -np.inf
    count, prompt = 20_000, "aab"
    counts = np.bincount([tokenizer.bos_id, *tokenizer.encode(prompt)], minlength=len(tokenizer))
    biases = token_biases(revgen.GenerationConfig(**options), tokenizer)
    expected = probabilities(logits[None] + biases, counts[None], **options)[0].astype(np.float64)

    texts = table(tokenizer, logits).generate(prompt, n=count, max_tokens=1, seed=0, **options)

    sampled = np.bincount([tokenizer.encode(text)[-1] for text in texts], minlength=len(tokenizer))
    possible = expected > 0
    assert not sampled[~possible].any()
    if possible.sum() > 1:  # at most 9 degrees of freedom: above 33.7 by chance less than once in 10,000 times
        assert chi_square(sampled[possible], expected[possible] / expected.sum() * count) < 33.7


def test_a_later_token_follows_the_distribution_after_its_predecessor() -> None:
    tokenizer = chars("abcd")
    logits = np.random.default_rng(0).normal(0, 1, (7, 7)).astype(np.float32)
    logits[:, : tokenizer.unk_id + 1] = -np.inf
    model, count = table(tokenizer, logits), 20_000

    texts = model.generate("a", n=count, max_tokens=2, seed=1, temperature=[1.0, 0.5])

    for first in "abcd":
        successors = [text[2] for text in texts if text[1] == first]
        expected = softmax(logits[tokenizer.encode(first)] / 0.5)[0, 3:] * len(successors)
        assert chi_square(np.array([successors.count(c) for c in "abcd"]), expected) < 21.1  # 3 degrees of freedom


def test_a_list_of_temperatures_applies_to_each_token_in_turn() -> None:
    tokenizer = chars("abcd")
    logits = np.array([-99, -99, -99, 3, 2, 1, 0], np.float32)
    model = table(tokenizer, logits)

    texts = model.generate("", n=300, max_tokens=4, temperature=[0, 100], banned_tokens=[Tokenizer.eos_id], seed=0)

    assert {text[0] + text[2] for text in texts} == {"aa"}
    assert len({text[1] + text[3] for text in texts}) == 16


def test_a_temperature_function_is_called_with_each_position() -> None:
    tokenizer = chars("abcd")
    model = table(tokenizer, np.array([-99, -99, -99, 3, 2, 1, 0], np.float32))

    def melting(position: int) -> float:
        return 0 if position < 3 else 50

    options: dict[str, Any] = {"n": 100, "max_tokens": 5, "banned_tokens": [Tokenizer.eos_id], "seed": 0}
    texts = model.generate("", temperature=melting, **options)

    assert {text[:3] for text in texts} == {"aaa"}
    assert len({text[3:] for text in texts}) == 16
    assert texts == model.generate("", temperature=[0, 0, 0, 50, 50], **options)


def test_tokens_are_banned_and_biased_by_text_or_id() -> None:
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


def test_word_tokens_are_named_by_their_text(reviews: list[str]) -> None:
    tokenizer = tokenizers.get("word").train(reviews)
    model = table(tokenizer)

    assert model.generate("", forced_tokens={0: "the", 1: " ", 2: "song"}, max_tokens=3) == "the song"
    biased = model.generate("", n=50, max_tokens=1, logit_bias={"the": 9}, seed=1)
    assert biased.count("the") > 40
    assert "the" not in model.generate("", n=50, max_tokens=1, logit_bias={"the": 9}, banned_tokens=["the"], seed=1)


def test_forced_tokens_are_at_their_positions() -> None:
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


def test_stop_strings_count_only_after_min_tokens() -> None:
    model = alphabet()

    assert model.generate("a", temperature=0, stop="c", min_tokens=2, max_tokens=30)[:4] == "abcd"
    assert model.generate("a", temperature=0, stop="c", min_tokens=2, max_tokens=90) == f"{LETTERS}ab"
    assert model.generate("a", temperature=0, stop=["cd", "de"], min_tokens=2, max_tokens=90) == "abc"


def test_prompts_of_a_list_are_continued_together(small_model: LanguageModel) -> None:
    prompts = ["the ", "I think that this is ", "", "a"]

    texts = small_model.generate(prompts, temperature=0, max_tokens=40)
    several = small_model.generate(prompts, n=2, seed=3, max_tokens=40, repetition_penalty=1.1)

    assert texts == [small_model.generate(prompt, temperature=0, max_tokens=40) for prompt in prompts]
    assert small_model.generate(prompts[:1], temperature=0, max_tokens=40) == texts[:1]
    assert [len(row) for row in several] == [2] * 4
    assert all(text.startswith(prompt) for prompt, row in zip(prompts, several, strict=True) for text in row)
    assert several == small_model.generate(tuple(prompts), n=2, seed=3, max_tokens=40, repetition_penalty=1.1)


@pytest.mark.parametrize("architecture", ["transformer", "mlp", "textgenrnn", "mingru", "kneser-ney", "rglru"])
def test_prompts_of_different_lengths_do_not_affect_each_other(architecture: str, reviews: list[str]) -> None:
    small: dict[str, Any] = {"hidden_size": 16, "num_layers": 2} if architecture != "kneser-ney" else {}
    model = revgen.create(f"{architecture}-char", **small)
    epochs: dict[str, Any] = {"epochs": 1} if small else {}
    model.fit(reviews[:10], progress=False, **epochs)
    prompts = ["the " * 5, "a", "this song is "]

    texts = model.generate(prompts, temperature=0, max_tokens=25)

    assert texts == [model.generate(prompt, temperature=0, max_tokens=25) for prompt in prompts]


def test_rows_that_have_ended_are_dropped_from_the_batch() -> None:
    tokenizer = chars("ab")
    sizes: list[int] = []

    class Counting(Table):
        """A model that remembers how many rows it was asked for."""

        def forward(self, tokens: NDArray[Any], state: Any) -> tuple[Floats, Any]:
            sizes.append(tokens.shape[1])
            return super().forward(tokens, state)

    texts = table(tokenizer, kind=Counting).generate("", n=64, max_tokens=50, seed=0)

    assert len(texts) == 64
    assert sizes[:2] == [1, sum(len(text) > 0 for text in texts)]
    assert all(size == sum(len(text) >= step for text in texts) for step, size in enumerate(sizes[1:], 1))


def test_pytorch_and_numpy_generate_the_same_text(
    small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = revgen.load(small_model.save(tmp_path / "model"))
    options: dict[str, Any] = {"n": 4, "seed": 2, "max_tokens": 30, "top_p": 0.9, "repetition_penalty": 1.2}
    on_numpy = model.generate("the ", **options)

    model._derived["numpy_network"] = None  # as on a device other than the CPU

    assert model.generate("the ", **options) == on_numpy


@pytest.mark.parametrize(
    "options",
    [
        {"min_p": 0.1},
        {"min_p": 0.1, "temperature": 0.5},
        {"min_tokens": 70},
        {"min_p": 0.05, "min_tokens": 70, "stop_at_sentence": True},
        {"min_tokens": 40, "stop": ["th", " "]},
        {"min_tokens": 90, "temperature": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_blocks_of_tokens_are_those_that_are_sampled_one_by_one(
    is_compiled: bool, options: dict[str, Any], small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.copy(small_model)
    if is_compiled:
        pytest.importorskip("numba")
        model.compile()
    texts = [model.generate("the ", max_tokens=100, seed=seed, **options) for seed in range(4)]
    pieces = ["the " + "".join(model.stream("the ", max_tokens=100, seed=seed, **options)) for seed in range(4)]
    monkeypatch.setattr(decoding, "block_sampler", lambda *arguments: None)

    assert texts == pieces == [model.generate("the ", max_tokens=100, seed=seed, **options) for seed in range(4)]
