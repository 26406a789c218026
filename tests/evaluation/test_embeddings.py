"""Vectors of texts: from every network, whatever stands beside a text, and what they say is alike."""

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
    """One of every kind, hardly trained."""
    model = revgen.create(f"{request.param}-char", hidden_size=16, num_layers=2)
    model.fit(reviews[:8], epochs=1, progress=False)
    return model


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_text_has_one_vector_whatever_stands_beside_it(network: LanguageModel, pool: str) -> None:
    vectors = network.embed(TEXTS, pool=pool)

    assert vectors.shape[0] == 4 and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(network.embed([text], pool=pool)[0], vector, atol=1e-5)


def test_vectors_are_what_the_logits_are_computed_from(network: LanguageModel) -> None:
    tokenizer = network.tokenizer
    ids = np.array([tokenizer.bos_id, *tokenizer.encode("a song")])[:, None]
    features, _ = network.features(ids, network.initial_state(1))
    before, _ = network.forward(ids, network.initial_state(1))

    equation, p = network.numpy_network  # type: ignore[attr-defined]
    np.testing.assert_allclose(equation.logits(p, features), before, atol=1e-5)
    np.testing.assert_allclose(network.embed(["a song"], pool="last")[0], features[-1, 0], atol=1e-5)
    np.testing.assert_allclose(network.embed(["a song"])[0], features[1:, 0].mean(0), atol=1e-5)


def test_pytorch_gives_the_vectors_of_numpy(network: LanguageModel) -> None:
    on_numpy = network.embed(TEXTS)
    try:
        np.testing.assert_allclose(network.to("cpu:0").embed(TEXTS), on_numpy, atol=1e-5)  # by PyTorch
    finally:
        network.to("cpu")


def test_a_long_text_is_read_in_parts(small_model: LanguageModel, reviews: list[str]) -> None:
    text = " ".join(reviews[:3])
    ids = np.array([small_model.tokenizer.bos_id, *small_model.tokenizer.encode(text)])[:, None]
    features, _ = small_model.features(ids, small_model.initial_state(1))

    np.testing.assert_allclose(small_model.embed([text, "a"])[0], features[1:, 0].mean(0), atol=1e-4)


def test_a_text_is_most_similar_to_itself(small_model: LanguageModel) -> None:
    texts = ["the guitars come in late", "!!!!????", "the guitar comes in late"]

    found = small_model.similarity(texts[0], texts)

    assert found.argmax() == 0 and found[0] == pytest.approx(1, abs=1e-5)
    assert found[2] > found[1]
    assert (np.abs(found) <= 1 + 1e-5).all()
    assert small_model.similarity("a", []).shape == (0,)
    assert small_model.embed([]).shape[0] == 0


def test_counts_have_no_vectors(reviews: list[str]) -> None:
    model = revgen.create("kneser-ney-char", order=3)
    model.fit(reviews[:5], progress=False)

    with pytest.raises(OptionError, match="kneser-ney-char is not a network, so it has no vectors of texts"):
        model.embed(["a"])


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("a text", {}, "texts must be a list of strings, not 'a text'"),
        ([1], {}, "texts must be a list of strings"),
        (["a"], {"pool": "max"}, "pool must be 'mean' or 'last', not 'max'"),
    ],
)
def test_bad_values_are_named(small_model: LanguageModel, texts: Any, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        small_model.embed(texts, **options)
    with pytest.raises(OptionError, match=message):
        small_model.similarity("a", texts, **options)
