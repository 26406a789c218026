"""Tests of the cache of the states of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reading import check_joined_states, read_in_blocks

import revgen
from revgen.architectures.neural_cache import NeuralCache
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax

SETTINGS = {"kind": "neural", "weight": 0.3, "sharpness": 5.0}


@pytest.fixture(scope="module")
def network(reviews: list[str]) -> LanguageModel:
    model = revgen.create("gru-char", hidden_size=24, num_layers=1)
    model.fit(reviews[:60], epochs=2, progress=False)
    return model


@pytest.fixture(scope="module")
def cached(network: LanguageModel) -> LanguageModel:
    return network.adaptive(cache=SETTINGS)


@pytest.fixture(scope="module")
def documents(cached: LanguageModel, reviews: list[str]) -> np.ndarray:
    """Three documents, (time, batch)."""
    return np.array([cached.encode_prompt(text)[:90] for text in reviews[140:143]]).T


def test_probabilities_are_those_of_the_equation(network: LanguageModel, cached: LanguageModel) -> None:
    ids = np.array(cached.encode_prompt("a song is a song is a sound"))[:, None]
    logits, _ = cached.forward(ids, cached.initial_state(1))
    p = np.exp(log_softmax(network.forward(ids, network.initial_state(1))[0]))[:, 0]
    features, _ = network.features(ids, network.initial_state(1))
    vectors = features[:, 0] / np.linalg.norm(features[:, 0], axis=-1, keepdims=True)
    for t in range(1, len(ids)):
        weights = np.exp(5 * vectors[:t] @ vectors[t])
        expected = 0.7 * p[t] + 0.3 * np.bincount(ids[1 : t + 1, 0], weights / weights.sum(), p.shape[1])
        np.testing.assert_allclose(np.exp(logits[t, 0]), expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(np.exp(logits[0, 0]), p[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("window", [10, 2048])
def test_probabilities_sum_to_one_and_depend_on_earlier_tokens_only(
    network: LanguageModel, documents: np.ndarray, window: int
) -> None:
    model = network.adaptive(cache=SETTINGS | {"window": window})
    expected, _ = model.forward(documents, model.initial_state(3))
    assert np.exp(expected.astype(float)).sum(-1) == pytest.approx(1, abs=1e-5)
    changed = documents.copy()
    changed[70:] = documents[70:][::-1]
    np.testing.assert_allclose(model.forward(changed, model.initial_state(3))[0][:70], expected[:70], atol=1e-5)
    np.testing.assert_allclose(read_in_blocks(model, documents, 7), expected, atol=1e-4)
    scores = dict(model.logprobs([*documents.T]))
    targets = np.take_along_axis(expected[:-1], documents[1:, :, None], -1)[..., 0]
    np.testing.assert_allclose(np.stack([scores[i] for i in range(3)], 1), targets, atol=1e-4)


def test_documents_of_different_length_are_continued_together(cached: LanguageModel, documents: np.ndarray) -> None:
    check_joined_states(cached, documents, atol=1e-4)


def test_cache_is_saved_generates_and_adapts(network: LanguageModel, cached: LanguageModel, tmp_path: Path) -> None:
    repeated = ["zorquil and vimbex. " * 8]
    assert cached.evaluate(repeated).nats_per_char < network.evaluate(repeated).nats_per_char
    assert cached.evaluate(repeated).adaptation == "document state"
    loaded = revgen.load(cached.save(tmp_path))
    assert loaded.generate("the ", seed=1, max_tokens=20) == cached.generate("the ", seed=1, max_tokens=20)
    assert len(cached.generate(["the ", "a song "], n=2, max_tokens=5)) == 2
    assert isinstance(network.adaptive(cache="neural"), NeuralCache)


def test_neural_cache_needs_a_network_with_fixed_weights(network: LanguageModel, reviews: list[str]) -> None:
    counts = revgen.create("kneser-ney-char", order=3)
    counts.fit(reviews[:9], progress=False)
    with pytest.raises(revgen.OptionError, match="a network"):
        counts.adaptive(cache="neural")
    with pytest.raises(revgen.OptionError, match="dynamic must be False"):
        network.adaptive(cache="neural", dynamic=True)
    with pytest.raises(revgen.OptionError, match="kind of cache"):
        network.adaptive(cache={"kind": "words"})
    with pytest.raises(revgen.OptionError, match="sharpness"):
        network.adaptive(cache=SETTINGS | {"sharpness": -1})
