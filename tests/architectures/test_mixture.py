"""Tests of mixtures of models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.architectures.mixture import fit_weights_em
from revgen.language_model import LanguageModel


@pytest.fixture(scope="module")
def parts(reviews: list[str]) -> list[LanguageModel]:
    counting = revgen.create("kneser-ney-char", order=5)
    counting.fit(reviews[:120], progress=False)
    neural = revgen.create("gru-char", tokenizer=counting.tokenizer, hidden_size=32, num_layers=1)
    neural.fit(reviews[:120], epochs=6, progress=False)
    return [counting, neural]


def test_mixture_is_better_than_its_models(parts: list[LanguageModel], reviews: list[str]) -> None:
    mixture = revgen.mix(parts)
    history = mixture.fit(reviews[120:140], valid=reviews[140:], progress=False)
    alone = [model.evaluate(reviews[140:]).nats_per_char for model in parts]
    assert history[0].nats_per_char is not None and history[0].nats_per_char < min(alone)
    assert mixture.evaluate(reviews[140:]).nats_per_char == pytest.approx(history[0].nats_per_char)
    assert "kneser-ney-char" in history.notes[0]


def test_fitted_weights_maximize_the_likelihood() -> None:
    random = np.random.default_rng(0)
    logprobs = np.log(random.uniform(0.01, 1, (2, 5000)) * [[1.0], [0.7]])
    weights, nats = fit_weights_em(logprobs, np.array([0.5, 0.5]))
    grid = np.linspace(0, 1, 1001)
    losses = [-np.log(w * np.exp(logprobs[0]) + (1 - w) * np.exp(logprobs[1])).mean() for w in grid]
    assert weights[0] == pytest.approx(grid[int(np.argmin(losses))], abs=2e-3)
    assert nats == pytest.approx(min(losses), abs=1e-6)


def test_probabilities_of_a_mixture_are_the_weighted_mean(parts: list[LanguageModel]) -> None:
    mixture = revgen.mix(parts, weights=[0.25, 0.75])
    probabilities = []
    for model in (*parts, mixture):
        ids = np.array(model.encode_prompt("the so"))[:, None]
        logits, _ = model.forward(ids, model.initial_state(1))
        p = np.exp(logits[-1, 0] - logits[-1, 0].max())
        probabilities.append(p / p.sum())
    assert probabilities[2] == pytest.approx(0.25 * probabilities[0] + 0.75 * probabilities[1], abs=1e-6)


def test_mixture_generates_scores_saves_and_loads(parts: list[LanguageModel], tmp_path: Path) -> None:
    mixture = revgen.mix(parts, weights=[0.4, 0.6])
    text = mixture.generate("the ", seed=1, max_tokens=40)
    assert mixture.generate("the ", n=3, seed=1, max_tokens=10)[2].startswith("the ")
    assert "the " + "".join(mixture.stream("the ", seed=1, max_tokens=40)) == text
    loaded = revgen.load(mixture.save(tmp_path))
    assert loaded.generate("the ", seed=1, max_tokens=40) == text
    assert loaded.score("a song").total == pytest.approx(mixture.score("a song").total)


def test_models_that_do_not_match_raise(parts: list[LanguageModel], small_model: LanguageModel) -> None:
    with pytest.raises(revgen.VocabularyError, match="different tokenizers"):
        revgen.mix([parts[0], small_model])
    for weights in ([0.5], [0.7, 0.7], [1.5, -0.5]):
        with pytest.raises(revgen.OptionError, match="weight"):
            revgen.mix(parts, weights=weights)
    with pytest.raises(revgen.OptionError, match="at least one"):
        revgen.mix([])


def test_counts_of_a_mixture_are_replaced_and_networks_stay(parts: list[LanguageModel], reviews: list[str]) -> None:
    counts, network = parts
    residual: Any = copy.copy(network)
    residual.fit(reviews[:20], base=counts, epochs=1, progress=False)
    mixture = revgen.mix([counts, network, residual, counts.adaptive()], gated=True)
    again = mixture.with_counts(reviews[:140])
    expected = revgen.create("kneser-ney-char", order=5, tokenizer=counts.tokenizer)
    expected.fit(reviews[:140], progress=False)
    recounted: Any = again.models
    for model in (recounted[0], recounted[2].models[0], recounted[3].model):
        assert model.fingerprint == expected.fingerprint
    for before, after in ((network, recounted[1]), (residual.network_model, recounted[2].network_model)):
        assert after.fingerprint == before.fingerprint
    assert again.score(reviews[130]).total > mixture.score(reviews[130]).total


def test_mixture_cannot_be_created_by_name() -> None:
    assert not revgen.list_models("mixture*")
    with pytest.raises(revgen.UnknownNameError):
        revgen.create("mixture-char")


@pytest.mark.parametrize("gated", [False, True])
def test_training_a_model_later_does_not_change_the_mixture(
    gated: bool, parts: list[LanguageModel], reviews: list[str], tmp_path: Path
) -> None:
    counts, network = (copy.copy(model) for model in parts)
    inner = revgen.mix([counts, network], gated=gated)
    outer = revgen.mix([inner, counts.adaptive()], gated=gated)
    expected = [model.score("a song").total for model in (inner, outer)]
    network.fit(reviews[:20], base=revgen.create("kneser-ney-char", order=2), epochs=1, progress=False)
    counts.fit(reviews[:9], extend_vocabulary=True, progress=False)
    inner.models[1].fit(reviews[:20], epochs=1, progress=False)
    assert network.name == "residual-char" and network.score("a song").total != expected[0]
    assert outer.score("a song").total == expected[1] and inner.score("a song").total != expected[0]
    assert revgen.load(outer.save(tmp_path)).score("a song").total == pytest.approx(expected[1])
