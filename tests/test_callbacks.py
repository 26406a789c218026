"""What watches a run: the protocol, TensorBoard, a history that draws itself, and what a run says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.language_model import LanguageModel

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1}
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 32, "progress": False}


class Watch(revgen.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps: list[revgen.Step] = []

    def begin(self, model: LanguageModel, history: revgen.History) -> None:
        self.calls.append(f"begin {history.settings['batch_size']} {len(history)}")

    def step(self, model: LanguageModel, step: revgen.Step) -> None:
        self.steps.append(step)

    def epoch(self, model: LanguageModel, epoch: revgen.Epoch) -> None:
        self.calls.append(f"epoch {epoch.epoch} {model.generate('the ', seed=0, max_tokens=3)[:4]}")

    def end(self, model: LanguageModel, history: revgen.History) -> None:
        self.calls.append(f"end {len(history)}")


def test_a_callback_is_told_of_the_run_its_steps_and_its_epochs(reviews: list[str]) -> None:
    watch, seen = Watch(), list[int]()
    model = revgen.create("gru-char", **SMALL)
    history = model.fit(reviews[:30], callbacks=[watch, lambda model, epoch: seen.append(epoch.epoch)], **QUICK)
    assert watch.calls == ["begin 8 0", "epoch 1 the ", "epoch 2 the ", "end 2"] and seen == [1, 2]
    assert [step.step for step in watch.steps] == [*range(1, len(watch.steps) + 1)]
    losses = [step.loss for step in watch.steps if step.epoch == 1]
    assert sum(losses) / len(losses) == pytest.approx(history[0].train_loss, abs=0.05)


def test_what_is_no_callback_is_an_error(reviews: list[str]) -> None:
    for wrong in (Watch, "tensorboard"):
        with pytest.raises(revgen.OptionError, match="callbacks"):
            revgen.create("gru-char", **SMALL).fit(reviews[:30], callbacks=[wrong], **QUICK)


def test_tensorboard_has_the_figures_of_the_history(reviews: list[str], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = revgen.create("gru-char", **SMALL)
    history = model.fit(reviews[:30], 0.1, callbacks=[revgen.TensorBoard(tmp_path, every=5)], **QUICK)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    validation = [event.value for event in events.Scalars("epoch/nats_per_char")]
    assert validation == pytest.approx([epoch.nats_per_char for epoch in history])
    assert [event.step for event in events.Scalars("loss/training")][:2] == [5, 10]
