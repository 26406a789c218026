"""Tests of n-grams whose contexts skip tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import read_in_blocks

import revgen
from revgen.context_mixing.parts import CONTEXTS
from revgen.language_model import LanguageModel
from revgen.testing import check_model

WORDS = "order 1", "order 2", "word", "1 word and word"


@pytest.fixture(scope="module")
def model(reviews: list[str]) -> LanguageModel:
    model = revgen.create("skip-ngram-char", contexts=WORDS)
    model.fit(reviews[:120], progress=False)
    return model


def test_skip_ngrams_pass_the_checks_of_models() -> None:
    check_model("skip-ngram-char")


def test_chain_of_suffixes_is_kneser_ney(reviews: list[str]) -> None:
    """Apart from the start of a document, where Kneser-Ney counts occurrences instead of longer contexts."""
    texts = [" ".join(reviews[:100])]
    reference = revgen.create("kneser-ney-char", order=4)
    reference.fit(texts, progress=False)
    chain = revgen.create("skip-ngram-char", contexts=["order 1", "order 2", "order 3"], tokenizer=reference.tokenizer)
    chain.fit(texts, progress=False)
    scores = [model.score(reviews[140]).logprobs for model in (reference, chain)]
    np.testing.assert_allclose(scores[0][1:], scores[1][1:], atol=1e-2)


def test_the_word_before_the_last_one_predicts_across_it() -> None:
    texts = [f"{first} {middle} {last}" for first, last in (("red", "cat"), ("old", "dog")) for middle in "abcdef"]
    losses = []
    for contexts in (["order 1", "word", "1 word and word"], ["order 1", "word", "word before and word"]):
        model = revgen.create("skip-ngram-char", contexts=contexts, tokenizer={"min_count": 1})
        model.fit(texts, progress=False)
        losses.append(-model.score("red got cat").logprobs[8])
    assert losses[1] < losses[0] - 0.3


def test_probabilities_sum_to_one_and_do_not_depend_on_later_tokens(model: LanguageModel, reviews: list[str]) -> None:
    ids = np.array([model.encode_prompt(text)[:60] for text in reviews[140:143]]).T
    logits, _ = model.forward(ids, model.initial_state(3))
    assert np.exp(logits.astype(float)).sum(-1) == pytest.approx(1, abs=1e-4)
    changed = ids.copy()
    changed[30:] = ids[30:][::-1]
    np.testing.assert_array_equal(model.forward(changed, model.initial_state(3))[0][:30], logits[:30])
    np.testing.assert_array_equal(read_in_blocks(model, ids, 7), logits)


def test_contexts_are_counted_as_the_equation_says() -> None:
    model = revgen.create("skip-ngram-char", contexts=["order 1"], tokenizer={"min_count": 1})
    model.fit(["abab", "abac"], progress=False)
    a, b, c = (int(model.tokenizer.encode(letter)[0]) for letter in "abc")
    logits, _ = model.forward(np.array([[0], [a]]), model.initial_state(1))
    # Each of b and c follows one token, and each of a and the end follows two. The discounts are 1/2, 1 and 3/2.
    lower = 0.5 / 6 + (2 * 0.5 + 2 * 1) / 6 / (len(model.tokenizer) - 1)
    assert np.exp(logits[1, 0, b]) == pytest.approx((3 - 1.5) / 4 + (1.5 + 0.5) / 4 * lower)
    assert np.exp(logits[1, 0, c]) == pytest.approx((1 - 0.5) / 4 + (1.5 + 0.5) / 4 * lower)


def test_saved_model_contains_the_text_and_generates_the_same(model: LanguageModel, tmp_path: Path) -> None:
    loaded = revgen.load(model.save(tmp_path))
    assert loaded.generate("the ", seed=1, max_tokens=30) == model.generate("the ", seed=1, max_tokens=30)
    for wrong in ({}, {"text": model.weights["text"][1:]}, dict(model.weights) | {"other": np.zeros(1)}):
        assert model.validate_weights(wrong) is not None


@pytest.mark.parametrize("contexts", [["order 99"], [], "word", 3, [["word"]]])
def test_unknown_context_is_an_error_that_lists_the_names(contexts: Any) -> None:
    with pytest.raises(revgen.OptionError, match=CONTEXTS[-1]):
        revgen.create("skip-ngram-char", contexts=contexts)


@pytest.mark.parametrize("name", ["ngram-char", "kneser-ney-char", "skip-ngram-char", "cm-char"])
def test_models_of_counts_describe_the_texts_and_print_a_sample(
    name: str, reviews: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    revgen.create(name).fit(reviews[:20])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("20 documents, ")
    assert any(line.startswith("epoch 1: training loss") for line in lines) and lines[-1].startswith("    ")
