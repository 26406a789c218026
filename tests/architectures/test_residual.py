"""Tests of networks that are trained with a base of counts."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub

import revgen
from revgen.architectures.logprob_file import LogprobFile
from revgen.architectures.neural import NeuralModel
from revgen.architectures.out_of_fold import out_of_fold
from revgen.architectures.residual import ResidualModel
from revgen.errors import CorpusError
from revgen.language_model import LanguageModel
from revgen.training.callbacks import StepMetrics

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}


def trained_network(reviews: list[str], **options: Any) -> LanguageModel:
    network = revgen.create("gru-char", hidden_size=24, num_layers=1, **options)
    network.fit(reviews[:40], epochs=3, progress=False)
    return network


@pytest.fixture(scope="module")
def network(reviews: list[str]) -> LanguageModel:
    return trained_network(reviews)


@pytest.fixture(scope="module")
def residual(reviews: list[str]) -> LanguageModel:
    model = trained_network(reviews)
    history = model.fit(reviews[:90], reviews[140:], base=revgen.create("kneser-ney-char", order=5), **OPTIONS)
    model.metadata["validation"] = history[-1].nats_per_char
    return model


def copy_of(network: LanguageModel, directory: Path) -> LanguageModel:
    return revgen.load(network.save(directory / "copy"))


def test_network_with_a_base_is_better_than_the_network_and_its_history_is_true(
    network: LanguageModel, residual: LanguageModel, reviews: list[str]
) -> None:
    loss = residual.evaluate(reviews[140:]).nats_per_char
    assert loss < network.evaluate(reviews[140:]).nats_per_char - 0.2
    assert loss == pytest.approx(residual.metadata["validation"], abs=1e-3)


def test_probabilities_sum_to_one_and_do_not_depend_on_later_tokens(
    residual: LanguageModel, reviews: list[str]
) -> None:
    ids = np.array([residual.encode_prompt(text)[:60] for text in reviews[140:143]]).T
    logits, _ = residual.forward(ids, residual.initial_state(3))
    p = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
    score = residual.score(reviews[140][:40]).logprobs
    expected = np.log(p / p.sum(-1, keepdims=True))[np.arange(40), 0, ids[1:41, 0]]
    np.testing.assert_allclose(score[:40], expected, atol=1e-4)
    changed = ids.copy()
    changed[30:] = ids[30:][::-1]
    np.testing.assert_allclose(residual.forward(changed, residual.initial_state(3))[0][:30], logits[:30], atol=1e-5)
    state, blocks = residual.initial_state(3), []
    for begin in range(0, 60, 7):
        block, state = residual.forward(ids[begin : begin + 7], state)
        blocks.append(block)
    np.testing.assert_allclose(np.concatenate(blocks), logits, atol=1e-4)


def test_base_can_be_context_mixing(network: LanguageModel, reviews: list[str], tmp_path: Path) -> None:
    base = revgen.create("cm-char", tokenizer=network.tokenizer)
    base.fit(reviews[:60], epochs=1, progress=False)
    model = copy_of(network, tmp_path)
    model.fit(reviews[:60], base=base, epochs=1, batch_size=8, progress=False)
    loss = model.evaluate(reviews[145:]).nats_per_char
    assert loss < network.evaluate(reviews[145:]).nats_per_char - 0.2
    assert revgen.load(model.save(tmp_path / "residual")).evaluate(reviews[145:]).nats_per_char == pytest.approx(loss)


def test_counts_out_of_fold_have_not_seen_the_document() -> None:
    letters = "abcdefghijklmnopqrst"
    texts = [f"a text with its own letter {letter.upper()} {letter.upper()}" for letter in letters]
    base = revgen.create("kneser-ney-char", order=4, tokenizer={"min_count": 1})
    base.fit(texts, progress=False)
    documents = [np.array([*base.encode_prompt(text), base.tokenizer.eos_id]) for text in texts]
    parts = list(out_of_fold(base, documents, base.tokenizer, 8, 0))
    assert sorted(part.document for part in parts) == list(range(20))
    for part in parts:
        own, other = (base.tokenizer.encode(letters[(part.document + i) % 20].upper())[0] for i in (0, 1))
        unigrams = [model.weights["1.logp"] for model in (base, part.model)]
        assert unigrams[1][own] < unigrams[0][own] - 0.5
        assert unigrams[0][own] == pytest.approx(unigrams[0][other])


def test_parts_of_a_long_document_are_predicted_by_the_other_parts(reviews: list[str]) -> None:
    base = revgen.create("kneser-ney-char", order=3)
    base.fit([" ".join(reviews)], progress=False)
    ids = np.array(base.encode_prompt(" ".join(reviews)))
    parts = sorted(out_of_fold(base, [ids], base.tokenizer, 8, 0), key=lambda part: part.start)
    assert len({id(part.model) for part in parts}) == 8
    assert np.array_equal(np.concatenate([part.ids[part.warm_up :] for part in parts]), ids)
    assert all(np.array_equal(ids[p.start - p.warm_up : p.start], p.ids[: p.warm_up]) for p in parts)


@pytest.mark.parametrize("bases", [["kneser-ney-char"], ["ngram-char", "kneser-ney-char"]])
def test_run_with_a_base_resumes_with_the_same_weights(
    bases: list[str], network: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    def base() -> LanguageModel:
        orders = [revgen.create(name, order=3, tokenizer=network.tokenizer) for name in bases]
        for model in orders:
            model.fit(reviews[:5], progress=False)
        return orders[0] if len(orders) == 1 else revgen.mix(orders, gated=True)

    def die(model: Any, metrics: StepMetrics) -> None:
        if metrics.step == 15:
            raise RuntimeError("killed")

    class Die(revgen.Callback):
        def on_step_end(self, model: Any, metrics: StepMetrics) -> None:
            die(model, metrics)

    uninterrupted, killed, resumed = (copy_of(network, tmp_path) for _ in range(3))
    uninterrupted.fit(reviews[:30], base=base(), **OPTIONS)
    checkpoint = revgen.CheckpointConfig(tmp_path / "run", steps=3)
    with pytest.raises(RuntimeError, match="killed"):
        killed.fit(reviews[:30], base=base(), checkpoint=checkpoint, callbacks=[Die()], **OPTIONS)
    resumed.fit(reviews[:30], base=base(), checkpoint=checkpoint, resume=True, **OPTIONS)
    assert all(np.array_equal(uninterrupted.weights[name], array) for name, array in resumed.weights.items())


def test_residual_model_generates_is_saved_and_pushed(residual: LanguageModel, tmp_path: Path, hub: Hub) -> None:
    text = residual.generate("the ", seed=1, max_tokens=30)
    assert residual.generate(["the ", "a song "], seed=1, max_tokens=10, temperature=0)[0].startswith("the ")
    assert revgen.load(residual.save(tmp_path)).generate("the ", seed=1, max_tokens=30) == text
    residual.push_to_hub("me/residual", samples=False, progress=False)
    assert revgen.load("me/residual").generate("the ", seed=1, max_tokens=30) == text


def test_residual_model_is_mixed_and_trained_again(residual: LanguageModel, reviews: list[str], tmp_path: Path) -> None:
    model = copy_of(residual, tmp_path)
    counts = revgen.create("kneser-ney-char", order=7, tokenizer=model.tokenizer)
    counts.fit(reviews[:20], progress=False)
    mixture = revgen.mix([model, counts], gated=True)
    assert np.isfinite(mixture.score("a song").total)
    model.fit(reviews[:20], **OPTIONS)
    assert isinstance(model, ResidualModel)
    model.fit(reviews[:20], base=counts, **OPTIONS)
    assert isinstance(model.models[1], NeuralModel) and model.models[0].config.order == 7


def test_what_a_residual_model_cannot_do_is_said(residual: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(revgen.OptionError, match="cannot be exported"):
        residual.export(tmp_path / "page.html")
    with pytest.raises(revgen.OptionError, match="cannot be compiled"):
        residual.compile()
    with pytest.raises(revgen.OptionError, match="before fit"):
        residual.find_lr(["text"])


def test_invalid_base_is_an_error_and_the_network_stays_as_it_was(
    network: LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    model = copy_of(network, tmp_path)
    other = revgen.create("kneser-ney-char")
    other.fit(["another text"], progress=False)
    labeled = revgen.create("textgenrnn-char", labels=["a", "b"])
    cases = [
        (model, trained_network(reviews, tokenizer=model.tokenizer), revgen.OptionError, "gru-char has no counts"),
        (model, revgen.create("kneser-ney-word"), revgen.OptionError, "base must have the level 'char'"),
        (model, other, revgen.VocabularyError, "different tokenizers"),
        (labeled, other, revgen.OptionError, "base does not combine with labels"),
    ]
    for case, base, error, message in cases:
        with pytest.raises(error, match=message):
            case.fit(reviews[:20], base=base, **OPTIONS)
    assert type(model) is type(network) and model.fingerprint == network.fingerprint


def test_predictions_that_do_not_fit_on_the_disk_are_an_error(
    network: LanguageModel, reviews: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(directory: object, size: int) -> None:
        raise OSError(28, "No space left on device")

    model = copy_of(network, tmp_path)
    monkeypatch.setattr("revgen.architectures.logprob_file.check_free_space", is_full)
    with pytest.raises(revgen.CorpusError, match=r"the predictions for .* free some disk space"):
        model.fit(reviews[:20], base=revgen.create("kneser-ney-char"), **OPTIONS)
    assert type(model) is type(network)


def test_damaged_exponents_are_rejected(residual: LanguageModel) -> None:
    arrays = dict(residual.weights)
    for wrong in (arrays["exponents"][1:], arrays["exponents"] * np.nan):
        assert "exponents" in str(residual.validate_weights(arrays | {"exponents": wrong}))


def test_base_may_adapt_to_the_document(network: LanguageModel, reviews: list[str], tmp_path: Path) -> None:
    model: Any = copy_of(network, tmp_path)
    counts = revgen.create("kneser-ney-char", order=3, tokenizer=model.tokenizer)
    counts.fit(reviews[:5], progress=False)
    model.fit(reviews[:20], base=counts.adaptive(), **OPTIONS | {"epochs": 1})
    assert model.adaptation == "document state"
    assert model.models[0].model.num_parameters > counts.num_parameters, "it has counted the training text"
    assert revgen.load(model.save(tmp_path / "saved")).score("a song").total == model.score("a song").total


def test_a_full_disk_is_an_error_also_if_the_last_rows_are_still_in_memory() -> None:
    file = LogprobFile(2, 10)
    file.write(0, np.zeros((2, 10), np.float32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(CorpusError, match="for 2 tokens and a vocabulary of 10 take 40 B and cannot be written"):
            file.to_array()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
