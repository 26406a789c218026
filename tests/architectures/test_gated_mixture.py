"""Tests of gated mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import read_in_blocks

import revgen
from revgen.architectures import gated_mixture
from revgen.architectures.gated_mixture import (
    HIDDEN,
    OUTPUT,
    TOKENS,
    GatedMixture,
    fit_gate,
    gate_gradient,
    gate_values,
)
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax


@pytest.fixture(scope="module")
def parts(reviews: list[str]) -> list[LanguageModel]:
    short = revgen.create("kneser-ney-char", order=3)
    short.fit(reviews[:120], progress=False)
    long = revgen.create("kneser-ney-char", order=8, tokenizer=short.tokenizer)
    long.fit(reviews[:60], progress=False)
    neural = revgen.create("gru-char", tokenizer=short.tokenizer, hidden_size=24, num_layers=1)
    neural.fit(reviews[:120], epochs=4, progress=False)
    return [short, long, neural]


@pytest.fixture(scope="module")
def mixture(parts: list[LanguageModel], reviews: list[str]) -> LanguageModel:
    mixture = revgen.mix(parts, gated=True)
    mixture.fit(reviews[120:140], progress=False)
    return mixture


def test_gate_is_better_than_one_weight_for_each_model(
    parts: list[LanguageModel], mixture: LanguageModel, reviews: list[str]
) -> None:
    plain = revgen.mix(parts)
    plain.fit(reviews[120:140], progress=False)
    assert mixture.evaluate(reviews[140:]).nats_per_char < plain.evaluate(reviews[140:]).nats_per_char - 0.01


def test_unfitted_gated_mixture_is_half_product_and_half_sum(parts: list[LanguageModel]) -> None:
    mixture = revgen.mix(parts[:2], gated=True)
    ids = np.array(mixture.encode_prompt("the song"))[:, None]
    logits, _ = mixture.forward(ids, mixture.initial_state(1))
    logprobs = [log_softmax(model.forward(ids, model.initial_state(1))[0]).clip(-30, None) for model in parts[:2]]
    expected = np.exp(log_softmax(np.mean(logprobs, 0))) / 2 + np.exp(logprobs).mean(0) / 2
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)


def test_text_is_read_in_blocks_with_the_same_result(
    mixture: LanguageModel, parts: list[LanguageModel], reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.array([mixture.encode_prompt(text)[:60] for text in reviews[140:143]]).T
    expected, _ = mixture.next_logits(ids, mixture.initial_state(3))
    sizes: list[int] = []
    read = GatedMixture._read

    def record(self: GatedMixture, tokens: Any, state: Any) -> Any:
        sizes.append(len(tokens))
        return read(self, tokens, state)

    monkeypatch.setattr(GatedMixture, "_read", record)
    monkeypatch.setattr(gated_mixture, "MAX_BLOCK", 7 * 3 * 3 * len(mixture.tokenizer))

    logits, _ = mixture.next_logits(ids, mixture.initial_state(3))
    again: Any = revgen.mix(parts, gated=True)
    again.fit(reviews[120:122], epochs=1, progress=False)

    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert sizes[:9] == [7] * 8 + [4] and max(sizes) == 21


def test_probabilities_sum_to_one_and_do_not_depend_on_later_tokens(mixture: LanguageModel, reviews: list[str]) -> None:
    ids = np.array([mixture.encode_prompt(text)[:60] for text in reviews[140:143]]).T
    logits, _ = mixture.forward(ids, mixture.initial_state(3))
    assert np.exp(logits.astype(float)).sum(-1) == pytest.approx(1, abs=1e-4)
    changed = ids.copy()
    changed[30:] = ids[30:][::-1]
    np.testing.assert_allclose(mixture.forward(changed, mixture.initial_state(3))[0][:30], logits[:30], atol=1e-5)
    alone, _ = mixture.forward(ids[:, 1:2], mixture.initial_state(1))
    np.testing.assert_allclose(alone, logits[:, 1:2], atol=1e-4)


def test_reading_in_blocks_gives_the_same_logits(mixture: LanguageModel, reviews: list[str]) -> None:
    ids = np.array([mixture.encode_prompt(text)[:50] for text in reviews[140:142]]).T
    expected, _ = mixture.forward(ids, mixture.initial_state(2))
    np.testing.assert_allclose(read_in_blocks(mixture, ids, 7), expected, atol=1e-4)


def test_prompts_of_different_length_are_continued_together(mixture: LanguageModel) -> None:
    texts = mixture.generate(["the ", "a song that "], seed=1, max_tokens=20, temperature=0)
    assert texts == [mixture.generate(p, seed=1, max_tokens=20, temperature=0) for p in ("the ", "a song that ")]


def test_gated_mixture_generates_scores_saves_and_loads(mixture: LanguageModel, tmp_path: Path) -> None:
    text = mixture.generate("the ", seed=1, max_tokens=30)
    loaded = revgen.load(mixture.save(tmp_path))
    assert loaded.generate("the ", seed=1, max_tokens=30) == text
    assert loaded.score("a song").total == pytest.approx(mixture.score("a song").total)
    with pytest.raises(revgen.OptionError, match="cannot be exported"):
        mixture.export(tmp_path / "page.html")


def test_gate_learns_which_model_to_trust() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 4000)
    is_first_right = rng.random(4000) < 0.5
    logprobs = np.full((4000, 2, 5), 0.0, np.float32)
    logprobs[np.arange(4000), np.where(is_first_right, 0, 1), targets] = 3  # one model knows the token
    logprobs[np.arange(4000), np.where(is_first_right, 1, 0), (targets + 1) % 5] = 3  # and the other is wrong
    by_feature = np.stack([is_first_right, ~is_first_right], 1).astype(np.float32), np.zeros((4000, 3), int)
    noise = rng.normal(0, 1, (4000, 2)).astype(np.float32)
    by_token = noise, np.stack([targets, is_first_right, targets], 1).astype(int)
    shapes = {HIDDEN: (2, 4), TOKENS: (3, 5, 4), OUTPUT: (4, 5)}
    shares = np.array([0.5, 0.5])
    for features, last in (by_feature, by_token):
        fitted, nats = fit_gate(shapes, shares, features, last, log_softmax(logprobs), targets, 20, 0)
        powers, weights, _ = gate_values(fitted, shares, features, last)
        for values in (powers, weights):
            assert (values[is_first_right, 0] > values[is_first_right, 1] + 0.5).all()
            assert (values[~is_first_right, 1] > values[~is_first_right, 0] + 0.5).all()
        assert nats < 0.1


def test_gradient_of_the_gate_is_the_derivative_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    shapes = {HIDDEN: (2, 4), TOKENS: (3, 7, 4), OUTPUT: (4, 5)}
    gate = {name: rng.normal(0, 1, shape) for name, shape in shapes.items()}
    logprobs, last = log_softmax(rng.normal(0, 2, (3, 2, 7))), np.array([[1, 2, 3], [1, 2, 6], [0, 0, 0]])
    data = np.array([0.4, 0.6]), rng.normal(0, 1, (3, 2)), last, logprobs, np.array([1, 0, 6])
    _, gradients = gate_gradient(gate, *data)
    for name, i in [(name, i) for name, shape in shapes.items() for i in np.ndindex(shape)]:
        losses = []
        for change in (-1e-5, 1e-5):
            changed = gate | {name: gate[name].copy()}
            changed[name][i] += change
            losses.append(gate_gradient(changed, *data)[0])
        assert gradients[name][i] == pytest.approx((losses[1] - losses[0]) / 2e-5 / 3, abs=1e-4)


def test_gate_of_counts_is_fitted_on_the_training_text(parts: list[LanguageModel], reviews: list[str]) -> None:
    short, long = (revgen.create("kneser-ney-char", order=n, tokenizer=parts[0].tokenizer) for n in (3, 8))
    for model in (short, long):
        model.fit(reviews[:120], progress=False)
    in_fold, out_of_fold = (revgen.mix([short, long], gated=True) for _ in range(2))
    in_fold.fit(reviews[:120], epochs=2, progress=False)
    out_of_fold.fit(reviews[:120], epochs=2, folds=8, progress=False)
    losses = [model.evaluate(reviews[140:]).nats_per_char for model in (out_of_fold, in_fold, short, long)]
    assert losses[0] < min(losses[2:]) - 0.01 and losses[0] < losses[1] - 0.1
    with pytest.raises(revgen.OptionError, match="gru-char has no counts"):
        revgen.mix(parts, gated=True).fit(reviews[:120], folds=8, progress=False)


@pytest.mark.parametrize("folds", [None, 8])
def test_gate_is_fitted_on_a_part_of_a_text_that_is_too_large(
    folds: int | None, parts: list[LanguageModel], reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def record(*arrays: Any) -> tuple[Any, float]:
        seen.extend(array.shape for array in arrays[2:6])
        return fit_gate(*arrays)

    models, vocab = 2, len(parts[0].tokenizer)
    monkeypatch.setattr(gated_mixture, "fit_gate", record)
    monkeypatch.setattr(gated_mixture, "MAX_FITTED", 999 * models * vocab)
    revgen.mix(parts[:models], gated=True).fit(reviews[:120], epochs=1, folds=folds, progress=False)
    assert seen == [(1000, 3 * models), (1000, 3), (1000, models, vocab), (1000,)]


def test_a_full_disk_is_an_error_that_names_the_vocabulary(
    parts: list[LanguageModel], reviews: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(directory: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("revgen.architectures.logprob_file.check_free_space", is_full)
    with pytest.raises(
        revgen.CorpusError, match=f"a vocabulary of {len(parts[0].tokenizer)} take .* free some disk space"
    ):
        revgen.mix(parts, gated=True).fit(reviews[120:140], progress=False)


@pytest.mark.parametrize("name", [HIDDEN, TOKENS, OUTPUT])
def test_invalid_gate_is_rejected(name: str, mixture: LanguageModel) -> None:
    arrays = dict(mixture.weights)
    for wrong in (arrays[name][1:], arrays[name] * np.nan):
        assert name in str(mixture.validate_weights(arrays | {name: wrong}))
