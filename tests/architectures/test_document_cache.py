"""Tests of the cache of the n-grams of a document."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from reading import check_joined_states, read_in_blocks

import revgen
from revgen.architectures import document_cache
from revgen.architectures.document_cache import DocumentCache
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax

SETTINGS = {"shortest": 1, "longest": 4, "discount": 0.6, "strength": 5.0}


@pytest.fixture(scope="module")
def counts(reviews: list[str]) -> LanguageModel:
    model = revgen.create("kneser-ney-char", order=5)
    model.fit(reviews[:120], progress=False)
    return model


@pytest.fixture(scope="module")
def cached(counts: LanguageModel) -> LanguageModel:
    return counts.adaptive()


@pytest.fixture(scope="module")
def documents(cached: LanguageModel, reviews: list[str]) -> np.ndarray:
    """Three documents that repeat themselves, (time, batch)."""
    return np.array([cached.encode_prompt(text[:60] * 2)[:110] for text in reviews[140:143]]).T


def expected_probabilities(model: DocumentCache, ids: list[int]) -> np.ndarray:
    """Return the distribution of the token after ``ids``, as the equation in the module defines it."""
    logits, _ = model.model.forward(np.array(ids)[:, None], model.model.initial_state(1))
    p = np.exp(log_softmax(logits[-1, 0].astype(float)))
    config = model.config
    for n in range(config.shortest, config.longest + 1):
        counts = np.zeros(len(p))
        for i in range(n, len(ids)):
            counts[ids[i]] += ids[i - n : i] == ids[-n:]
        strength = config.strength / n
        rest = config.discount * np.count_nonzero(counts) + strength
        p = (np.maximum(counts - config.discount, 0) + rest * p) / (counts.sum() + strength)
    return np.asarray(p)


def test_probabilities_are_those_of_the_equation(counts: LanguageModel) -> None:
    model = counts.adaptive(cache=SETTINGS)
    assert isinstance(model, DocumentCache)
    ids = model.encode_prompt("a song is a song is a sound")
    logits, _ = model.forward(np.array(ids)[:, None], model.initial_state(1))
    for end in range(1, len(ids) + 1):
        expected = expected_probabilities(model, ids[:end])
        np.testing.assert_allclose(np.exp(logits[end - 1, 0]), expected, rtol=1e-4, atol=1e-7)


def test_cache_predicts_documents_that_repeat_themselves(
    counts: LanguageModel, cached: LanguageModel, reviews: list[str]
) -> None:
    repeated = [text[:100] * 3 for text in reviews[140:150]]
    assert cached.evaluate(repeated).nats_per_char < counts.evaluate(repeated).nats_per_char - 0.5
    assert cached.evaluate(reviews[140:]).nats_per_char < counts.evaluate(reviews[140:]).nats_per_char
    assert cached.evaluate(reviews[140:]).adaptation == "document state"
    assert counts.evaluate(reviews[140:]).adaptation == "fixed weights"


def test_probabilities_sum_to_one_and_do_not_depend_on_later_tokens(
    cached: LanguageModel, documents: np.ndarray
) -> None:
    logits, _ = cached.forward(documents, cached.initial_state(3))
    assert np.exp(logits.astype(float)).sum(-1) == pytest.approx(1, abs=1e-5)
    changed = documents.copy()
    changed[70:] = documents[70:][::-1]
    np.testing.assert_array_equal(cached.forward(changed, cached.initial_state(3))[0][:70], logits[:70])


@pytest.mark.parametrize("window", [20, 2048])
def test_reading_in_blocks_or_alone_gives_the_same_logits(
    counts: LanguageModel, documents: np.ndarray, window: int
) -> None:
    model = counts.adaptive(cache={"window": window})
    expected, _ = model.forward(documents, model.initial_state(3))
    np.testing.assert_allclose(read_in_blocks(model, documents, 7), expected, rtol=1e-6)
    alone, _ = model.forward(documents[:, 1:2], model.initial_state(1))
    np.testing.assert_allclose(alone[:, 0], expected[:, 1], rtol=1e-6)
    last, _ = model.next_logits(documents, model.initial_state(3))
    np.testing.assert_allclose(last, expected[-1], rtol=1e-6)


def test_a_text_of_equal_tokens_is_read_in_blocks_with_the_same_result(
    cached: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.array(cached.encode_prompt("aaaaaaaaab" * 20))
    tokens, state = np.stack([ids, ids[::-1]], 1), cached.initial_state(2)
    expected, (_, document) = cached.forward(tokens, state)
    last, _ = cached.next_logits(tokens, state)
    _, logprobs = next(cached.logprobs([ids]))

    monkeypatch.setattr(document_cache, "MAX_MATCHES", 7 * 2 * len(ids))

    logits, (_, document_in_blocks) = cached.forward(tokens, state)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(cached.next_logits(tokens, state)[0], last, atol=1e-6)
    np.testing.assert_allclose(next(cached.logprobs([ids]))[1], logprobs, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(document, document_in_blocks, strict=True))


def test_scores_are_the_log_probabilities_of_the_logits(cached: LanguageModel, documents: np.ndarray) -> None:
    logits, _ = cached.forward(documents, cached.initial_state(3))
    expected = np.take_along_axis(logits[:-1], documents[1:, :, None], -1)[..., 0]
    for i, logprobs in cached.logprobs([*documents.T]):
        np.testing.assert_allclose(logprobs, expected[:, i], rtol=1e-4, atol=1e-5)


def test_states_are_independent_of_each_other(cached: LanguageModel, documents: np.ndarray) -> None:
    _, state = cached.forward(documents[:60], cached.initial_state(3))
    expected, _ = cached.forward(documents[60:], state)
    cached.forward(documents[60:, ::-1], state)  # another continuation of the same state
    cached.forward(documents, cached.initial_state(3))  # other documents
    np.testing.assert_array_equal(cached.forward(documents[60:], state)[0], expected)


def test_documents_of_different_length_are_continued_together(cached: LanguageModel, documents: np.ndarray) -> None:
    check_joined_states(cached, documents, rtol=1e-6)


def test_long_documents_are_evaluated_as_a_whole(cached: LanguageModel, reviews: list[str]) -> None:
    text = reviews[140][:500]
    document = [text + " ".join(reviews[:12])[:5000] + text]
    _, logprobs = next(cached.logprobs([np.array([*cached.encode_prompt(document[0]), cached.tokenizer.eos_id])]))
    expected = -float(logprobs.sum(dtype=float)) / len(document[0])
    assert cached.evaluate(document).nats_per_char == pytest.approx(expected)


def test_generated_text_adapts_to_the_prompt(cached: LanguageModel) -> None:
    prompt = "zorquil and vimbex. zorquil and vimbex. zorquil and"
    assert cached.generate(prompt, max_tokens=7, temperature=0) == f"{prompt} vimbex"
    prompts = [prompt, "a song"]
    texts = cached.generate(prompts, max_tokens=20, temperature=0)
    assert texts == [cached.generate(p, max_tokens=20, temperature=0) for p in prompts]
    assert cached.generate(prompt, max_tokens=7, num_beams=3) == f"{prompt} vimbex"
    assert len(cached.generate("the ", n=3, max_tokens=5, seed=1)) == 3


def test_cache_of_a_mixture_is_saved_and_loaded(counts: LanguageModel, tmp_path: Path) -> None:
    cached = revgen.mix([counts, counts.adaptive(cache=SETTINGS)]).adaptive()
    assert cached.evaluate(["a song. " * 9]).adaptation == "document state"
    loaded = revgen.load(cached.save(tmp_path))
    assert loaded.generate("the ", seed=1, max_tokens=30) == cached.generate("the ", seed=1, max_tokens=30)
    assert loaded.score("a song, a song").total == pytest.approx(cached.score("a song, a song").total)
    assert loaded.config == cached.config


@pytest.mark.parametrize("level", ["word", "subword"])
def test_settings_depend_on_the_level_of_the_tokenizer(level: str, reviews: list[str]) -> None:
    model = revgen.create(f"kneser-ney-{level}", order=3)
    model.fit(reviews[:60], progress=False)
    cached = model.adaptive()
    assert isinstance(cached, DocumentCache) and cached.shortest < 3
    assert cached.evaluate(reviews[60:70]).nats_per_char < model.evaluate(reviews[60:70]).nats_per_char


def test_cache_of_a_model_with_labels_takes_the_label(reviews: list[str]) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1)
    model.fit(reviews[:8], labels=["a", "b"] * 4, epochs=1, progress=False)
    cached, text = model.adaptive(), "a song is a song is a song"
    assert cached.labels == ("a", "b")
    assert cached.score(text, label="a").total != cached.score(text, label="b").total
    assert cached.score(text, label="a").total > model.score(text, label="a").total
    cached.generate("the ", label="b", max_tokens=3)


def test_model_itself_does_not_change(counts: LanguageModel) -> None:
    fingerprint = counts.fingerprint
    counts.adaptive().generate("the song the song the", max_tokens=20)
    assert counts.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({"strenght": 2}, "strength"),
        ({"strength": 0}, "strength must be a positive number"),
        ({"discount": 2}, "discount must be"),
        ({"shortest": 9, "longest": 4}, "shortest must be"),
        ({"longest": 1000}, "longest must be"),
        ({"window": 0}, "window must be"),
        ("n-grams", "cache must be True or False, 'ngram' or 'neural'"),
    ],
)
def test_invalid_settings_are_errors(counts: LanguageModel, cache: object, message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message):
        counts.adaptive(cache=cache)  # type: ignore[arg-type]


def test_only_fitted_models_are_wrapped(counts: LanguageModel) -> None:
    with pytest.raises(revgen.NotFittedError, match="fit it"):
        revgen.create("kneser-ney-char").adaptive()
    with pytest.raises(revgen.OptionError, match="nothing to train"):
        counts.adaptive().fit(["text"])


def test_thousands_of_nested_caches_are_rejected(cached: LanguageModel, tmp_path: Path) -> None:
    path = cached.save(tmp_path) / "config.json"
    content = json.loads(path.read_bytes())
    for _ in itertools.repeat(None, 70):
        content["config"] = content["config"] | {
            "model": {"architecture": "document-cache", "config": content["config"]}
        }
    path.write_text(json.dumps(content))
    with pytest.raises(revgen.CheckpointError, match="the number of models must be at most 64"):
        revgen.load(tmp_path)
