"""``fit`` learns, keeps the best weights, recovers from divergence and interruptions, and is reproducible."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_weights

import revgen
from revgen import ops
from revgen.language_model import LanguageModel
from revgen.networks.recurrent import bf16_rnn_is_fast
from revgen.networks.stack import make_cell
from revgen.registry import cells
from revgen.tokenizers import CharTokenizer, WordTokenizer
from revgen.tokenizers.hex_fallback import DIGIT_TOKENS
from revgen.training.run import TrainingRun

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1}
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "sequence_length": 32, "progress": False}


def small(name: str = "lstm-char", **options: Any) -> LanguageModel:
    return revgen.create(name, **SMALL | options)


@pytest.fixture
def texts(reviews: list[str]) -> list[str]:
    return reviews[:30]


def test_fit_learns_and_returns_the_metrics_of_each_epoch(texts: list[str]) -> None:
    model = small()
    history = model.fit(texts, valid=0.1, **QUICK)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert history[-1].train_loss < history[0].train_loss
    last = history[-1]
    assert last.nats_per_char is not None and last.bits_per_char == pytest.approx(last.nats_per_char / np.log(2))
    assert last.tokens_per_second > 0 and last.seconds > 0 and last.sample
    assert str(history).count("\n") == 4 and "nats_per_char" in str(history)
    assert list(history.to_frame()["epoch"]) == [1, 2, 3]
    assert model.metadata["training"]["epochs"] == 3


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(texts: list[str]) -> None:
    models = [small(), small(), small()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.fit(texts, seed=seed, **QUICK | {"epochs": 1})
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_fit_does_not_change_the_random_state_of_the_caller(texts: list[str]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    small().fit(texts, **QUICK)
    assert torch.equal(before, torch.get_rng_state())


def test_best_epoch_is_kept_and_validation_agrees_with_evaluate(texts: list[str], reviews: list[str]) -> None:
    model = small()
    history = model.fit(texts, valid=reviews[30:40], **QUICK)
    assert history.best is not None
    assert model.evaluate(reviews[30:40]).nats_per_char == pytest.approx(history.best.nats_per_char, abs=1e-4)


def test_training_stops_early_if_validation_does_not_improve(texts: list[str]) -> None:
    model = small(hidden_size=64, dropout=0.0)
    settings = QUICK | {"epochs": 200, "learning_rate": 0.03, "patience": 2}
    history = model.fit(texts[:4], valid=texts[4:6], **settings)
    assert len(history) < 200 and any("stopped early" in note for note in history.notes)
    assert history.best is not None and history.best.epoch == len(history) - 2


def test_max_seconds_ends_training_and_the_schedule(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = itertools.count()
    monkeypatch.setattr(TrainingRun, "_measure_seconds", lambda run: next(reads) / 100)  # a step takes about 10 ms
    history = small().fit(texts, max_seconds=1, batch_size=8, sequence_length=32, progress=False)
    assert len(history) >= 1
    assert history[-1].learning_rate < 1e-3  # the schedule ends with the time budget


def test_token_budget_ends_training_and_the_schedule_within_an_epoch(texts: list[str]) -> None:
    rates: list[float] = []

    class Record(revgen.Callback):
        def on_step_end(self, model: LanguageModel, step: revgen.StepMetrics) -> None:
            rates.append(step.learning_rate)

    options = QUICK | {"epochs": None, "callbacks": [Record()]}
    num_tokens = small().fit(texts, **QUICK | {"epochs": 1}).settings["tokens"]
    history = small().fit(texts, token_budget=num_tokens * 3 // 2, **options)
    assert len(history) == 2 and history.settings["epochs"] is None
    tokens_per_step = options["batch_size"] * options["sequence_length"]
    assert len(rates) == pytest.approx(1.5 * num_tokens / tokens_per_step, rel=0.15)
    assert rates[-1] < 0.01 * max(rates)


def test_smallest_of_several_budgets_ends_training(texts: list[str]) -> None:
    assert len(small().fit(texts, **QUICK, token_budget=1 << 40)) == 3
    assert len(small().fit(texts, **QUICK, token_budget=1)) == 1


def test_ctrl_c_ends_training_and_keeps_the_best_weights(texts: list[str]) -> None:
    def interrupt(model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
        if epoch.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    model = small()
    history = model.fit(texts, valid=texts[:3], callbacks=[interrupt], **QUICK | {"epochs": 50})
    assert len(history) == 2 and "interrupted" in history.notes[0]
    assert history.best is not None
    assert model.evaluate(texts[:3]).nats_per_char == pytest.approx(history.best.nats_per_char, abs=1e-4)


def test_loss_that_always_diverges_is_an_error_and_the_model_keeps_good_weights(texts: list[str]) -> None:
    model = small()
    with pytest.raises(revgen.TrainingError, match="smaller learning_rate"):
        model.fit(texts, **QUICK | {"learning_rate": 1e5})
    assert all(np.isfinite(array).all() for array in model.weights.values())
    assert np.isfinite(model.score("the song").total)


def test_loss_that_diverges_in_epochs_of_one_step_is_an_error() -> None:
    with pytest.raises(revgen.TrainingError, match="smaller learning_rate"):
        small().fit(["abcdefgh" * 40], epochs=200, batch_size=8, sequence_length=40, learning_rate=1e5, progress=False)


@pytest.mark.parametrize("learning_rate", [1e20, 1e38])
def test_a_single_step_that_makes_the_weights_useless_is_an_error(learning_rate: float) -> None:
    model = small()
    with pytest.raises(revgen.TrainingError, match=r"weights have grown beyond .* smaller learning_rate"):
        model.fit(["abcdefgh"] * 4, epochs=1, batch_size=4, learning_rate=learning_rate, progress=False)
    assert np.isfinite(model.score("abc").total)


@pytest.fixture
def nan_once() -> Iterator[str]:
    """Yield the name of a model whose cell returns NaN once, in the middle of training."""

    class NanOnce(revgen.Cell):
        steps = 0

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size), "U": (self.hidden_size, self.hidden_size)}

        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = ops.tanh(z + h @ p.U)
            NanOnce.steps += isinstance(h, torch.Tensor)
            return (h * float("nan") if NanOnce.steps == 1500 else h), h

    revgen.register_cell("nan-once")(NanOnce)
    yield "nan-once-char"
    cells.unregister("nan-once")


def test_training_continues_from_the_last_good_weights_after_a_nan(nan_once: str, texts: list[str]) -> None:
    model = small(nan_once)
    history = model.fit(texts, **QUICK)
    assert len(history.notes) == 1 and "continues from the last good weights" in history.notes[0]
    assert history[-1].train_loss < history[0].train_loss
    assert history[-1].learning_rate < history.settings["learning_rate"] / 2


def test_fitted_model_is_fine_tuned(texts: list[str], reviews: list[str]) -> None:
    model = small()
    model.fit(reviews[:60], **QUICK)
    before = model.evaluate(reviews[40:60]).nats_per_char
    history = model.fit(reviews[40:60], **QUICK)
    assert model.evaluate(reviews[40:60]).nats_per_char < before
    assert history[0].train_loss < 3


@pytest.mark.parametrize("level", ["char", "word"])
def test_new_characters_are_spelled_or_extend_the_vocabulary(level: str, texts: list[str]) -> None:
    model = small(f"lstm-{level}")
    model.fit(texts, **QUICK)
    old = model.tokenizer
    greek = ["αβγ αβγ αβγ αβγ " * 20] * 4
    before = model.evaluate(greek)
    assert before.unknown == 4 * 20 * 4 * 3

    model.fit(greek, **QUICK)
    assert model.tokenizer is old
    assert model.evaluate(greek).nats_per_char < before.nats_per_char

    model.fit(greek, extend_vocabulary=True, **QUICK)
    assert model.tokenizer.vocabulary[: len(old)] == old.vocabulary
    assert model.evaluate(greek).unknown == 0
    assert model.weights["embedding"].shape[0] == len(model.tokenizer) > len(old)


@pytest.mark.parametrize("tokenizer_class", [CharTokenizer, WordTokenizer])
def test_new_characters_are_an_error_or_extend_a_vocabulary_that_cannot_spell(
    tokenizer_class: type[CharTokenizer | WordTokenizer], texts: list[str]
) -> None:
    without_digits = [token for token in tokenizer_class.train(texts).vocabulary if token not in DIGIT_TOKENS]
    model = small(f"lstm-{tokenizer_class.level}", tokenizer=tokenizer_class(without_digits, min_count=3))
    model.fit(texts, **QUICK)
    old, weights = model.tokenizer, {name: array.copy() for name, array in model.weights.items()}
    greek = ["αβγ αβγ αβγ αβγ " * 20] * 4
    with pytest.raises(revgen.VocabularyError, match=r"does not know 3 characters.*'α β γ'.*extend_vocabulary=True"):
        model.fit(greek, **QUICK)
    assert model.tokenizer is old and all(np.array_equal(weights[name], model.weights[name]) for name in weights)

    model.fit(greek, extend_vocabulary=True, **QUICK)
    assert model.tokenizer.vocabulary[: len(old)] == old.vocabulary
    assert model.tokenizer.is_lossless
    assert model.evaluate(greek).unknown == 0
    assert model.weights["embedding"].shape[0] == len(model.tokenizer) > len(old)


def test_model_can_be_created_with_the_tokenizer_of_another(small_model: LanguageModel, texts: list[str]) -> None:
    model = revgen.create("gru-char", tokenizer=small_model.tokenizer, **SMALL)
    model.fit(texts, **QUICK)
    assert model.tokenizer == small_model.tokenizer


@pytest.mark.parametrize(
    ("text", "message"),
    [([], "empty"), ([""], "empty"), (["ab"], "shorter than a batch"), ([3], "not a string")],
)
def test_text_that_cannot_be_trained_on_is_an_error(text: list[Any], message: str, small_model: LanguageModel) -> None:
    model = small()
    with pytest.raises(revgen.CorpusError, match=message):
        model.fit(text, progress=False, batch_size=8)
    assert not model.is_fitted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("max_seconds", -1),
        ("token_budget", 0),
        ("token_budget", 1e6),
        ("batch_size", 0),
        ("sequence_length", 0),
        ("optimizer", "sgd"),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1),
        ("patience", 0),
        ("seed", -1),
        ("valid", 1.5),
        ("labels", ["a"]),
        ("resume", True),
    ],
)
def test_error_names_the_invalid_option(name: str, value: Any, texts: list[str]) -> None:
    with pytest.raises(revgen.OptionError, match=name):
        small().fit(texts, progress=False, **{name: value})


def test_bfloat16_is_used_only_by_kernels_that_are_faster_with_it() -> None:
    cpu = torch.device("cpu")
    assert not bf16_rnn_is_fast(make_cell("gru", 8, 8, {}), cpu)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not bf16_rnn_is_fast(make_cell("lstm", 8, 8, {}), cpu)


def test_long_document_is_scored_in_windows_with_almost_the_exact_result(
    small_model: LanguageModel, reviews: list[str]
) -> None:
    text = " ".join(reviews[:30])
    assert len(text) > 8192
    exact = -small_model.score(text).total / len(text)
    assert small_model.evaluate([text]).nats_per_char == pytest.approx(exact, abs=1e-3)


def test_dropout_has_a_limit_for_many_epochs() -> None:
    model = revgen.create("gru-char", hidden_size=4, num_layers=1)
    model.fit(["ab"], epochs=1 << 20, max_seconds=0.1, progress=False)

    assert model.config.dropout == 0.5
