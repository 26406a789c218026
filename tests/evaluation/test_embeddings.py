"""Tests of embeddings: their values for every network, and the similarity of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revgen
from revgen import LanguageModel, OptionError

TEXTS = ["the song", "", "another song, and a longer one", "a"]
NETWORKS = ["lstm", "gru", "graves-lstm", "awd-lstm", "textgenrnn", "mingru", "transformer", "mlp"]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, reviews: list[str]) -> LanguageModel:
    """A small model of each kind of network, trained for one epoch on eight documents."""
    model = revgen.create(f"{request.param}-char", hidden_size=16, num_layers=2)
    model.fit(reviews[:8], epochs=1, progress=False)
    return model


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_the_vector_of_a_text_does_not_depend_on_the_other_texts(network: LanguageModel, pool: str) -> None:
    vectors = network.embed(TEXTS, pool=pool)

    assert vectors.shape[0] == 4 and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(network.embed([text], pool=pool)[0], vector, atol=1e-5)


def test_vectors_are_pooled_features_from_which_logits_are_computed(network: LanguageModel) -> None:
    tokenizer = network.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode("a song")])[:, None]
    features, _ = network.features(ids, network.initial_state(1))
    logits, _ = network.forward(ids, network.initial_state(1))

    definition, p = network.numpy_network  # type: ignore[attr-defined]
    np.testing.assert_allclose(definition.logits(p, features), logits, atol=1e-5)
    np.testing.assert_allclose(network.embed(["a song"], pool="last")[0], features[-1, 0], atol=1e-5)
    np.testing.assert_allclose(network.embed(["a song"])[0], features[1:, 0].mean(0), atol=1e-5)


def test_pytorch_and_numpy_compute_the_same_vectors(network: LanguageModel) -> None:
    on_numpy = network.embed(TEXTS)
    try:
        np.testing.assert_allclose(network.to("cpu:0").embed(TEXTS), on_numpy, atol=1e-5)  # by PyTorch
    finally:
        network.to("cpu")


def test_reading_a_long_text_in_blocks_gives_the_same_vector_as_reading_it_at_once(
    small_model: LanguageModel, reviews: list[str]
) -> None:
    text = " ".join(reviews[:3])
    ids = np.array([small_model.tokenizer.bos_id, *small_model.tokenizer.encode(text)])[:, None]
    features, _ = small_model.features(ids, small_model.initial_state(1))

    np.testing.assert_allclose(small_model.embed([text, "a"])[0], features[1:, 0].mean(0), atol=1e-4)


def test_a_text_is_most_similar_to_itself(small_model: LanguageModel) -> None:
    texts = ["the guitars come in late", "!!!!????", "the guitar comes in late"]

    similarities = small_model.similarity(texts[0], texts)

    assert similarities.argmax() == 0 and similarities[0] == pytest.approx(1, abs=1e-5)
    assert similarities[2] > similarities[1]
    assert (np.abs(similarities) <= 1 + 1e-5).all()
    assert small_model.similarity("a", []).shape == (0,)
    assert small_model.embed([]).shape[0] == 0


def test_a_model_that_counts_ngrams_has_no_vectors(reviews: list[str]) -> None:
    model = revgen.create("kneser-ney-char", order=3)
    model.fit(reviews[:5], progress=False)

    with pytest.raises(OptionError, match="kneser-ney-char is not a network, so it cannot compute vectors of texts"):
        model.embed(["a"])


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("a text", {}, "texts must be a list of strings, not 'a text'"),
        ([1], {}, r"texts\[0\] must be a string, not 1"),
        (["a"], {"pool": "max"}, "pool must be 'mean' or 'last', not 'max'"),
    ],
)
def test_an_invalid_argument_is_named_in_the_error(
    small_model: LanguageModel, texts: Any, options: Any, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        small_model.embed(texts, **options)
    with pytest.raises(OptionError, match=message):
        small_model.similarity("a", texts, **options)
