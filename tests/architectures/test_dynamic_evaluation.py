"""Tests of networks that learn while they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading import read_in_blocks
from torch.nn.functional import cross_entropy

import revgen
from revgen.architectures.dynamic_evaluation import DynamicEvaluation
from revgen.language_model import LanguageModel

SETTINGS = {"learning_rate": 5e-3, "segment_size": 6, "decay": 0.1}


@pytest.fixture(scope="module")
def network(reviews: list[str]) -> LanguageModel:
    model = revgen.create("lstm-char", hidden_size=24, num_layers=2)
    model.fit(reviews[:60], epochs=3, progress=False)
    return model


@pytest.fixture(scope="module")
def counts(network: LanguageModel, reviews: list[str]) -> LanguageModel:
    model = revgen.create("kneser-ney-char", order=4, tokenizer=network.tokenizer)
    model.fit(reviews[:60], progress=False)
    return model


@pytest.fixture(scope="module")
def models(network: LanguageModel, counts: LanguageModel, reviews: list[str]) -> dict[str, LanguageModel]:
    """Models with dynamic evaluation, by the kind of model."""
    small: dict[str, Any] = {"hidden_size": 8, "num_layers": 1}
    labelled = revgen.create("textgenrnn-char", **small)
    labelled.fit(reviews[:8], labels=["a", "b"] * 4, epochs=1, progress=False)
    transformer = revgen.create("transformer-char", hidden_size=8, num_heads=2, num_layers=1, context=32)
    transformer.fit(reviews[:8], epochs=1, progress=False)
    residual = revgen.create("gru-char", tokenizer=network.tokenizer, **small)
    fitted: Any = residual.fit(reviews[:9], base=counts, epochs=1, progress=False)
    gated = revgen.mix([counts, network], gated=True)
    gated.fit(reviews[100:104], progress=False)
    plain = {
        "network": network,
        "labels": labelled,
        "transformer": transformer,
        "residual": getattr(fitted, "model", residual),
        "mixture": revgen.mix([counts, network]),
        "gated mixture": gated,
    }
    return {name: model.adaptive(cache=False, dynamic=SETTINGS) for name, model in plain.items()}


KINDS: list[Any] = ["residual", "gated mixture"]
KINDS += [pytest.param(kind, marks=pytest.mark.slow) for kind in ("network", "labels", "transformer", "mixture")]


@pytest.fixture(scope="module")
def dynamic(models: dict[str, LanguageModel]) -> LanguageModel:
    return models["network"]


def documents_of(model: LanguageModel, texts: list[str]) -> np.ndarray:
    """Return the beginnings of three documents as ids, (time, batch)."""
    return np.array([model.encode_prompt(text)[:40] for text in texts[140:143]]).T


def test_weights_follow_the_equation(network: LanguageModel, dynamic: Any, reviews: list[str]) -> None:
    ids = documents_of(dynamic, reviews)[:20, :1]
    _, state = dynamic.forward(ids, dynamic.initial_state(1))
    module = network.network  # type: ignore[attr-defined]
    trained = [param.detach().clone() for param in module.params]
    rates = torch.split(dynamic.dynamic_network.rates, [param.numel() for param in trained])
    params, hidden = [param.clone() for param in trained], None
    for begin in (0, 6, 12):
        for own, param in zip(module.params, params, strict=True):
            own.data = param
        logits, hidden = module(torch.as_tensor(ids[begin : begin + 6]), hidden)
        hidden = tuple(tuple(part.detach() for part in layer) for layer in hidden)
        loss = cross_entropy(logits[:, 0], torch.as_tensor(ids[begin + 1 : begin + 7, 0]))
        gradients = torch.autograd.grad(loss, list(module.params))
        scale = min(1.0, 1.0 / float(torch.cat([g.flatten() for g in gradients]).norm()))
        for i, g in enumerate(gradients):
            stepped = params[i] - scale * rates[i].view_as(g) * g
            params[i] = stepped + 0.1 * (trained[i] - stepped)
    for own, param in zip(module.params, trained, strict=True):
        own.data = param
    expected = torch.cat([param.flatten() for param in params])
    torch.testing.assert_close(state.rows[0].weights, expected, rtol=1e-4, atol=1e-5)


def test_dynamic_evaluation_predicts_better(
    network: LanguageModel, models: dict[str, LanguageModel], reviews: list[str]
) -> None:
    texts = [text * 2 for text in reviews[140:143]]
    evaluation = network.adaptive(cache=False, dynamic={"learning_rate": 2e-3}).evaluate(texts)
    assert evaluation.nats_per_char < network.evaluate(texts).nats_per_char - 0.01
    assert evaluation.adaptation == "adapted weights"
    assert models["gated mixture"].evaluate(texts).adaptation == "adapted weights"


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one_and_do_not_depend_on_later_tokens(
    kind: str, models: dict[str, LanguageModel], reviews: list[str]
) -> None:
    model = models[kind]
    ids = documents_of(model, reviews)
    logits, _ = model.forward(ids, model.initial_state(3))
    p = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))
    assert p.sum(-1) == pytest.approx(1, abs=1e-4)
    changed = ids.copy()
    changed[25:] = ids[25:][::-1]
    other, _ = model.forward(changed, model.initial_state(3))
    np.testing.assert_allclose(other[:25], logits[:25], atol=1e-5)
    assert np.abs(other[26:] - logits[26:]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_blocks_or_alone_gives_the_same_logits(
    kind: str, models: dict[str, LanguageModel], reviews: list[str]
) -> None:
    model = models[kind]
    ids = documents_of(model, reviews)
    expected, _ = model.forward(ids, model.initial_state(3))
    for size in (1, 7):
        np.testing.assert_allclose(read_in_blocks(model, ids, size), expected, atol=1e-3)
    alone, _ = model.forward(ids[:, 1:2], model.initial_state(1))
    np.testing.assert_allclose(alone[:, 0], expected[:, 1], atol=1e-3)
    scores = dict(model.logprobs([*ids.T]))
    logprobs = expected - np.logaddexp.reduce(expected, -1, keepdims=True)
    targets = np.take_along_axis(logprobs[:-1], ids[1:, :, None], -1)[..., 0]
    np.testing.assert_allclose(np.stack([scores[i] for i in range(3)], 1), targets, atol=1e-3)


def test_states_are_independent_and_the_model_does_not_change(
    network: LanguageModel, dynamic: LanguageModel, reviews: list[str]
) -> None:
    fingerprint, ids = network.fingerprint, documents_of(dynamic, reviews)
    _, state = dynamic.forward(ids[:20], dynamic.initial_state(3))
    expected, _ = dynamic.forward(ids[20:], state)
    dynamic.forward(ids[20:, ::-1], state)
    dynamic.forward(ids, dynamic.initial_state(3))
    np.testing.assert_array_equal(dynamic.forward(ids[20:], state)[0], expected)
    assert network.fingerprint == fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_text_adapts_to_the_prompt_and_is_generated_together(kind: str, models: dict[str, LanguageModel]) -> None:
    model = models[kind]
    prompts = ["a song for a song for", "the "]
    texts = model.generate(prompts, max_tokens=15, temperature=0)
    assert texts == [model.generate(prompt, max_tokens=15, temperature=0) for prompt in prompts]
    assert len(model.generate("the ", n=3, max_tokens=9, seed=1)) == 3
    assert model.generate("the ", num_beams=2, max_tokens=9).startswith("the ")


def test_memory_of_the_weights_limits_the_texts_that_are_generated_together(dynamic: LanguageModel) -> None:
    from revgen.generation.decoding import state_bytes

    assert state_bytes(dynamic.initial_state(3)) >= 3 * 4 * dynamic.num_parameters


@pytest.mark.parametrize("kind", KINDS)
def test_model_is_saved_and_loaded(kind: str, models: dict[str, LanguageModel], tmp_path: Path) -> None:
    model = models[kind]
    loaded = revgen.load(model.save(tmp_path))
    assert loaded.fingerprint == model.fingerprint
    text = "a song for a song for a song"
    assert loaded.score(text).total == pytest.approx(model.score(text).total, rel=1e-4)


def test_label_is_read_with_the_document(models: dict[str, LanguageModel]) -> None:
    model, text = models["labels"], "a song is a song is a song"
    assert model.score(text, label="a").total != model.score(text, label="b").total
    model.generate("the ", label="b", max_tokens=9)


def test_settings_of_a_second_call_replace_the_first(network: LanguageModel, dynamic: LanguageModel) -> None:
    again = dynamic.adaptive(dynamic={"segment_size": 9})
    assert again.adaptation == "adapted weights"
    inner = again.model  # type: ignore[attr-defined]
    assert isinstance(inner, DynamicEvaluation) and inner.config.segment_size == 9
    assert inner.model.fingerprint == network.fingerprint


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"learning_rat": 2}, "learning_rate"),
        ({"learning_rate": 0}, "learning_rate must be a positive number"),
        ({"segment_size": 0}, "segment_size must be"),
        ({"max_norm": -1}, "max_norm must be"),
        ({"decay": 1.5}, "in the range 0 ≤ decay < 1"),
        ("yes", "dynamic must be"),
    ],
)
def test_invalid_settings_are_errors(network: LanguageModel, dynamic: object, message: str) -> None:
    with pytest.raises(revgen.OptionError, match=message):
        network.adaptive(dynamic=dynamic)  # type: ignore[arg-type]


def test_models_without_networks_have_no_weights_to_adapt(counts: LanguageModel) -> None:
    with pytest.raises(revgen.OptionError, match="no network"):
        counts.adaptive(dynamic=True)
    assert counts.adaptive().adaptation == "document state"
