"""Callbacks, the history and its plot, the learning-rate finder, and the defaults that ``fit`` chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.language_model import LanguageModel
from revgen.training.recipe import Recipe

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1}
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 32, "progress": False}


class Recorder(revgen.Callback):
    """A callback that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps: list[revgen.StepMetrics] = []

    def on_train_begin(self, model: LanguageModel, history: revgen.History) -> None:
        self.calls.append(f"begin {history.settings['batch_size']} {len(history)}")

    def on_step_end(self, model: LanguageModel, step: revgen.StepMetrics) -> None:
        self.steps.append(step)

    def on_epoch_end(self, model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
        self.calls.append(f"epoch {epoch.epoch} {model.generate('the ', seed=0, max_tokens=3)[:4]}")

    def on_train_end(self, model: LanguageModel, history: revgen.History) -> None:
        self.calls.append(f"end {len(history)}")


def test_callbacks_are_called_for_the_run_its_steps_and_its_epochs(reviews: list[str]) -> None:
    recorder, epochs = Recorder(), list[int]()
    model = revgen.create("gru-char", **SMALL)
    history = model.fit(reviews[:30], callbacks=[recorder, lambda model, epoch: epochs.append(epoch.epoch)], **QUICK)
    assert recorder.calls == ["begin 8 0", "epoch 1 the ", "epoch 2 the ", "end 2"] and epochs == [1, 2]
    assert [step.step for step in recorder.steps] == [*range(1, len(recorder.steps) + 1)]
    losses = [step.loss for step in recorder.steps if step.epoch == 1]
    assert sum(losses) / len(losses) == pytest.approx(history[0].train_loss, abs=0.05)


def test_callback_that_is_a_class_or_a_string_is_an_error(reviews: list[str]) -> None:
    invalid: Any
    for invalid in (Recorder, "tensorboard"):
        with pytest.raises(revgen.OptionError, match="callbacks"):
            revgen.create("gru-char", **SMALL).fit(reviews[:30], callbacks=[invalid], **QUICK)


@pytest.mark.parametrize("method", ["on_step_end", "on_epoch_end"])
def test_training_stops_after_a_callback_returns_true(method: str, reviews: list[str], tmp_path: Path) -> None:
    recorder = Recorder()
    stopper = revgen.Callback()
    setattr(stopper, method, lambda model, metrics: np.True_ if recorder.steps[-1].step >= 4 else None)
    model = revgen.create("gru-char", **SMALL)

    history = model.fit(reviews[:30], 0.1, callbacks=[recorder, stopper], **QUICK | {"epochs": 50})

    assert len(history) == 1 and history.notes == ["a callback stopped training in epoch 1"]
    assert history[0].nats_per_char == pytest.approx(model.evaluate(reviews[:30]).nats_per_char, abs=1)
    assert recorder.calls[-1] == "end 1"
    assert (len(recorder.steps) == 4) == (method == "on_step_end")


def test_training_continues_after_other_values_of_callbacks(reviews: list[str]) -> None:
    values = iter([1, "stop", False, None])
    function: Any = lambda model, epoch: next(values)  # noqa: E731
    history = revgen.create("gru-char", **SMALL).fit(reviews[:30], callbacks=[function, function], **QUICK)
    assert len(history) == 2 and not history.notes


def test_callback_with_a_misspelled_method_is_an_error_that_suggests_a_name(reviews: list[str]) -> None:
    class Misspelled(revgen.Callback):
        def on_epoch_finished(self, model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
            """Do nothing."""

    with pytest.raises(revgen.OptionError, match=r"Misspelled.*'on_epoch_finished'; did you mean on_epoch_end"):
        revgen.create("gru-char", **SMALL).fit(reviews[:30], callbacks=[Misspelled()], **QUICK)


def test_tensorboard_gets_the_metrics_of_the_history(reviews: list[str], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = revgen.create("gru-char", **SMALL)
    history = model.fit(reviews[:30], 0.1, callbacks=[revgen.TensorBoard(tmp_path, every=5)], **QUICK)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    validation = [event.value for event in events.Scalars("epoch/nats_per_char")]
    assert validation == pytest.approx([epoch.nats_per_char for epoch in history])
    assert [event.step for event in events.Scalars("loss/training")][:2] == [5, 10]


@pytest.mark.parametrize("valid", [None, 0.2])
def test_history_plots_training_and_validation_loss(valid: float | None, reviews: list[str], tmp_path: Path) -> None:
    history = revgen.create("gru-char", **SMALL).fit(reviews[:30], valid, **QUICK)
    (axes,) = history.plot().axes
    curves = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert curves["training"] == [epoch.train_loss for epoch in history]
    assert ("validation" in curves) == (valid is not None)
    history.plot().savefig(tmp_path / "history.png")


def test_find_lr_suggests_a_rate_that_trains_well_and_does_not_change_the_model(
    reviews: list[str], tmp_path: Path
) -> None:
    model = revgen.create("lstm-char", **SMALL)
    result = model.find_lr(reviews[:60], steps=60, batch_size=8, sequence_length=32)
    assert not model.is_fitted and not model.has_tokenizer
    assert 1e-3 < result.suggestion < 0.3 and result.rates == sorted(result.rates)
    assert min(result.losses) < result.losses[0]
    assert f"{result.suggestion:.2g}" in str(result)
    result.plot().savefig(tmp_path / "rates.png")
    history = model.fit(reviews[:60], learning_rate=result.suggestion, **QUICK)
    assert history.notes == [] and history[-1].train_loss < 3


def test_find_lr_rejects_invalid_ranges_and_models_that_count(reviews: list[str]) -> None:
    model = revgen.create("lstm-char", **SMALL)
    for options in ({"low": 0.0}, {"low": 1.0, "high": 0.1}, {"steps": 2}):
        with pytest.raises(revgen.OptionError, match=r"^(low|high|steps) must"):
            model.find_lr(reviews[:10], **options)
    with pytest.raises(revgen.OptionError, match="no learning rate"):
        revgen.create("kneser-ney-char").find_lr(reviews[:10])


def test_overfitting_is_noted_in_the_history(reviews: list[str]) -> None:
    model = revgen.create("gru-char", hidden_size=96, dropout=0.0)
    settings = QUICK | {"epochs": 12, "learning_rate": 0.02, "patience": None}
    history = model.fit(reviews[:4], reviews[60:64], **settings)
    assert any("the model is overfitting" in note for note in history.notes)


class StopAtOnce(revgen.Callback):
    """A callback that ends the run after its first step."""

    def on_step_end(self, model: LanguageModel, step: revgen.StepMetrics) -> bool:
        return True


@pytest.mark.parametrize(("preset", "width"), [("quick", 128), ("balanced", 256), ("best", 256)])
def test_preset_and_corpus_decide_the_sizes_that_are_not_given(preset: str, width: int, reviews: list[str]) -> None:
    model = revgen.create("rnn-char", num_layers=1)
    history = model.fit(reviews[:2], preset=preset, progress=False, callbacks=[StopAtOnce()])
    assert model.config.hidden_size == width and 0.3 < model.config.dropout < 0.5
    assert history.settings["preset"] == preset
    explicit = revgen.create("rnn-char", hidden_size=8, num_layers=1, dropout=0.1)
    explicit.fit(reviews[:2], preset=preset, progress=False, callbacks=[StopAtOnce()])
    assert (explicit.config.hidden_size, explicit.config.dropout) == (8, 0.1)


def test_larger_corpus_gets_fewer_epochs_and_less_dropout() -> None:
    small, large = (Recipe().resolve(tokens, 1e-2, fine_tunes=False).epochs for tokens in (50_000, 5_000_000))
    assert small == 40 and large == 2
    assert Recipe().suggest_sizes(50_000)["dropout"] > Recipe().suggest_sizes(5_000_000)["dropout"]
    with pytest.raises(revgen.OptionError, match="preset"):
        Recipe(preset="good")


def test_dropout_follows_the_epochs_of_every_kind_of_budget() -> None:
    def dropout(**budget: Any) -> float:
        return float(Recipe(**budget).suggest_sizes(1_000_000)["dropout"])

    assert dropout(epochs=8) == dropout(token_budget=8_000_000) == 0.22
    assert dropout(epochs=8, token_budget=2_000_000) == dropout(token_budget=2_000_000) == 0.07
    assert dropout(max_seconds=5) == 0 < dropout(max_seconds=50) < dropout(max_seconds=500)
    assert dropout(epochs=1, max_seconds=500) == 0


def test_weights_and_biases_gets_the_metrics_of_the_history(reviews: list[str], tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    wandb = revgen.WandB(every=5, mode="offline", dir=tmp_path, project="revgen")
    logged: list[float] = []

    def read_summary(model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
        logged.append(wandb.run.summary["epoch/nats_per_char"])

    model = revgen.create("gru-char", **SMALL)
    history = model.fit(reviews[:30], 0.1, callbacks=[wandb, read_summary], **QUICK)
    assert logged == [epoch.nats_per_char for epoch in history]
    assert wandb.run.config["model"] == "gru-char"
