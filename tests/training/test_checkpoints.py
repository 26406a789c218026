"""Checkpoints: an interrupted run resumes and ends with the same weights; one that cannot be resumed is an error."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_weights

import revgen
from revgen.language_model import LanguageModel
from revgen.training.checkpoint import CheckpointConfig

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1}
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "sequence_length": 32, "progress": False}


def small(**options: Any) -> LanguageModel:
    return revgen.create("lstm-char", **SMALL | options)


@pytest.fixture
def texts(reviews: list[str]) -> list[str]:
    return reviews[:30]


class KilledError(Exception):
    """Raised to end a run, as if its process had been killed."""


class DieAt(revgen.Callback):
    """A callback that ends the run after a step."""

    def __init__(self, last_step: int) -> None:
        self.last_step = last_step

    def on_step_end(self, model: LanguageModel, step: revgen.StepMetrics) -> None:
        if step.step == self.last_step:
            raise KilledError


@pytest.mark.parametrize("name", ["lstm-char", "textgenrnn-char", "transformer-char", "awd-lstm-char"])
def test_run_interrupted_within_an_epoch_resumes_to_the_same_weights(
    name: str, texts: list[str], tmp_path: Path
) -> None:
    sizes = {"context": 16, "num_heads": 2} if name.startswith("transformer") else {}
    settings = QUICK | {"epochs": 2, "valid": 0.1}
    uninterrupted, interrupted, resumed = (revgen.create(name, **SMALL | sizes) for _ in range(3))
    uninterrupted_history = uninterrupted.fit(texts, **settings)
    for step in (7, 40):
        with pytest.raises(KilledError):
            interrupted.fit(
                texts, checkpoint=CheckpointConfig(tmp_path, steps=3), resume=True, callbacks=[DieAt(step)], **settings
            )
    history = resumed.fit(texts, checkpoint=tmp_path, resume=True, **settings)
    assert same_weights(uninterrupted, resumed)
    assert [e.nats_per_char for e in history] == [e.nats_per_char for e in uninterrupted_history]
    assert [e.train_loss for e in history] == [e.train_loss for e in uninterrupted_history]
    assert same_weights(revgen.load(tmp_path), resumed) or history.best is not history[-1]


def test_only_the_latest_checkpoints_are_kept(texts: list[str], tmp_path: Path) -> None:
    config = CheckpointConfig(tmp_path, steps=5, seconds=None, keep=3)
    small().fit(texts, checkpoint=config, **QUICK)
    assert len(config.paths) == 3 and sorted(tmp_path.glob("training-*")) == config.paths


def test_resuming_a_finished_run_changes_nothing(texts: list[str], tmp_path: Path) -> None:
    first, resumed = small(), small()
    first.fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
    history = resumed.fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
    assert len(history) == 3 and same_weights(first, resumed)


SHORT: dict[str, Any] = {"sequence_length": 32, "progress": False, "valid": 0.1}


@pytest.mark.parametrize("name", ["gru-char", "transformer-char", "awd-lstm-char"])
def test_finished_run_continues_with_more_epochs(name: str, texts: list[str], tmp_path: Path) -> None:
    sizes: Any = SMALL | ({"num_heads": 2} if name.startswith("transformer") else {})
    first, resumed = revgen.create(name, **sizes), revgen.create(name, **sizes)
    first_history = first.fit(texts, epochs=1, checkpoint=tmp_path, **SHORT)
    history = resumed.fit(texts, epochs=3, checkpoint=tmp_path, resume=True, **SHORT)

    assert [e.epoch for e in history] == [1, 2, 3]
    assert history[0] == first_history[0]
    assert history[1].learning_rate > history[2].learning_rate, "the schedule covers all three epochs"
    assert resumed.config == first.config, "sizes that the first call chose are kept"
    assert history.settings["epochs"] == 3
    assert history.settings["batch_size"] == first_history.settings["batch_size"]


def test_interrupted_run_resumes_with_fewer_epochs(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        small().fit(texts, checkpoint=CheckpointConfig(tmp_path, steps=3), callbacks=[DieAt(20)], **QUICK)
    history = small().fit(texts, checkpoint=tmp_path, resume=True, **QUICK | {"epochs": 2})
    assert len(history) == 2


def test_resumed_run_keeps_the_settings_that_the_first_call_chose(texts: list[str], tmp_path: Path) -> None:
    first, resumed = revgen.create("gru-char", **SMALL), revgen.create("gru-char", **SMALL)
    first_history = first.fit(texts, epochs=2, batch_size=8, learning_rate=3e-3, checkpoint=tmp_path, **SHORT)
    history = resumed.fit(texts, checkpoint=tmp_path, resume=True, **SHORT)
    assert history.settings == first_history.settings
    assert same_weights(first, resumed)
    with pytest.raises(revgen.CheckpointError, match="its recipe had batch_size 8, now 4"):
        revgen.create("gru-char", **SMALL).fit(texts, batch_size=4, checkpoint=tmp_path, resume=True, **SHORT)
    with pytest.raises(revgen.CheckpointError, match="its configuration had dropout"):
        revgen.create("gru-char", dropout=0.5, **SMALL).fit(texts, checkpoint=tmp_path, resume=True, **SHORT)


def test_resumed_run_keeps_the_optimizer_that_was_the_default_when_it_began(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, resumed = small(), small()
    monkeypatch.setattr(type(first), "optimizer", "adamw")
    first.fit(texts, checkpoint=tmp_path, **QUICK)
    monkeypatch.setattr(type(first), "optimizer", "muon")
    history = resumed.fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
    assert history.settings["optimizer"] == "adamw" and same_weights(first, resumed)


@pytest.mark.parametrize("is_fast", [True, False])
def test_resumed_run_keeps_its_precision_if_the_processor_is_measured_again(
    is_fast: bool, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, killed, resumed = (
        revgen.create("transformer-char", **SMALL, num_heads=2, context=16) for _ in range(3)
    )
    monkeypatch.setattr("revgen.training.run.bf16_matmul_is_fast", lambda device: is_fast)
    uninterrupted.fit(texts, **QUICK)
    checkpoint = CheckpointConfig(tmp_path, steps=5)
    with pytest.raises(KilledError):
        killed.fit(texts, checkpoint=checkpoint, callbacks=[DieAt(23)], **QUICK)
    monkeypatch.setattr("revgen.training.run.bf16_matmul_is_fast", lambda device: not is_fast)
    resumed.fit(texts, checkpoint=checkpoint, resume=True, **QUICK)
    assert same_weights(uninterrupted, resumed)


def test_weight_average_restarts_if_a_run_resumes_with_more_epochs(texts: list[str], tmp_path: Path) -> None:
    settings = QUICK | {"weight_averaging": 0.5}
    small().fit(texts, checkpoint=tmp_path, **settings | {"epochs": 1})
    model = small()
    history = model.fit(texts, checkpoint=tmp_path, resume=True, **settings | {"epochs": 8})
    assert history[-1].train_loss < history[0].train_loss
    assert np.isfinite(model.score("the song").total)


def test_existing_checkpoints_are_not_overwritten(texts: list[str], tmp_path: Path) -> None:
    small().fit(texts, checkpoint=tmp_path, **QUICK)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(revgen.CheckpointError, match="resume=True"):
        small().fit(texts, checkpoint=tmp_path, **QUICK)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "its recipe had seed 0, now 3"),
        ({"texts": 20}, "its tokenizer was different|the corpus has changed since"),
        ({"hidden_size": 8}, "its configuration had hidden_size 16, now 8"),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    change: dict[str, int], message: str, texts: list[str], tmp_path: Path
) -> None:
    small().fit(texts, checkpoint=tmp_path, **QUICK)
    other = small(hidden_size=change.get("hidden_size", 16))
    with pytest.raises(revgen.CheckpointError, match=message):
        other.fit(
            texts[: change.get("texts", 30)], checkpoint=tmp_path, resume=True, seed=change.get("seed", 0), **QUICK
        )


def test_changed_corpus_is_an_error(texts: list[str], tmp_path: Path) -> None:
    small().fit(texts, checkpoint=tmp_path / "run", **QUICK)
    with pytest.raises(revgen.CheckpointError, match="the corpus has changed since"):
        small().fit([*texts[1:], texts[0]], checkpoint=tmp_path / "run", resume=True, **QUICK)


def test_damaged_checkpoint_is_named_in_a_note_and_the_run_continues_from_the_previous_one(
    texts: list[str], tmp_path: Path
) -> None:
    uninterrupted = small()
    uninterrupted.fit(texts, checkpoint=tmp_path, **QUICK)
    last = CheckpointConfig(tmp_path).paths[-1]
    content = last.read_bytes()
    for position in range(0, len(content), len(content) // 10):
        damaged = bytearray(content)
        damaged[position] ^= 1
        last.write_bytes(damaged)
        resumed = small()
        history = resumed.fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
        assert f"{last} is damaged" in history.notes[0] and "before it" in history.notes[0]
        assert same_weights(uninterrupted, resumed)
        assert last.read_bytes()[8:] != bytes(damaged)[8:], "the damaged checkpoint has been replaced"


def test_a_run_with_damaged_checkpoints_only_is_an_error(texts: list[str], tmp_path: Path) -> None:
    small().fit(texts, checkpoint=tmp_path, **QUICK)
    for path in CheckpointConfig(tmp_path).paths:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(revgen.CheckpointError, match=rf"{CheckpointConfig(tmp_path).paths[0].name} is damaged"):
        small().fit(texts, checkpoint=tmp_path, resume=True, **QUICK)


@pytest.mark.parametrize("kind", ["pipe", "directory", "device"])
def test_a_special_file_is_no_checkpoint(kind: str, texts: list[str], tmp_path: Path) -> None:
    small().fit(texts, checkpoint=tmp_path, **QUICK)
    path = tmp_path / "training-999999999.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert len(small().fit(texts, checkpoint=tmp_path, resume=True, **QUICK)) == QUICK["epochs"]


def test_a_second_run_into_a_directory_is_an_error_at_once(texts: list[str], tmp_path: Path) -> None:
    errors: list[str] = []

    class Second(revgen.Callback):
        """A callback that starts another run, in a thread of its own, and loads the model meanwhile."""

        def on_epoch_end(self, model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
            def run() -> None:
                try:
                    small().fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
                except revgen.CheckpointError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            model.save(tmp_path)
            revgen.load(tmp_path)

    small().fit(texts, checkpoint=tmp_path, callbacks=[Second()], **QUICK)
    assert (
        errors
        == [f"{tmp_path}: another process writes its checkpoints here: wait until it ends, or name another one"]
        * QUICK["epochs"]
    )


def test_unwritable_directory_is_an_error_before_training(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    epochs: list[revgen.EpochMetrics] = []
    with pytest.raises(revgen.CheckpointError, match="file"):
        small().fit(
            texts, checkpoint=tmp_path / "file" / "run", callbacks=[lambda model, epoch: epochs.append(epoch)], **QUICK
        )
    assert epochs == []


def test_full_disk_ends_the_run_and_keeps_the_last_checkpoint_and_the_model(texts: list[str], tmp_path: Path) -> None:
    class FillDisk(revgen.Callback):
        """A callback that limits the size of files after the second epoch."""

        def on_epoch_end(self, model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
            if epoch.epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model, resumed, uninterrupted = small(), small(), small()
    try:
        with pytest.raises(revgen.CheckpointError, match=r"could not save|cannot be written"):
            model.fit(texts, checkpoint=tmp_path, callbacks=[FillDisk()], **QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert np.isfinite(model.score("the song").total)
    resumed.fit(texts, checkpoint=tmp_path, resume=True, **QUICK)
    uninterrupted.fit(texts, **QUICK)
    assert same_weights(uninterrupted, resumed)


@pytest.mark.parametrize("option", [{"steps": 0}, {"seconds": -1}, {"keep": 0}])
def test_invalid_interval_is_an_error(option: dict[str, Any], tmp_path: Path) -> None:
    (name,) = option
    with pytest.raises(revgen.OptionError, match=name):
        CheckpointConfig(tmp_path, **option)


SCRIPT = """
import sys, torch, revgen
torch.set_num_threads(1)
model = revgen.create("lstm-char", hidden_size=16, num_layers=1)
model.fit(list(revgen.datasets.load("reviews"))[:60], 0.1, epochs=6, batch_size=8, sequence_length=32, progress=False,
          checkpoint=revgen.CheckpointConfig(sys.argv[1], steps=4), resume=True)
model.save(sys.argv[2])
"""


@pytest.mark.slow
def test_process_killed_many_times_ends_with_the_same_weights(tmp_path: Path) -> None:
    def train(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path / name, tmp_path / f"{name}-model"])

    assert train("uninterrupted").wait() == 0
    rng = random.Random(0)
    kills = 0
    while kills < 6:
        process = train("killed")
        known = CheckpointConfig(tmp_path / "killed").paths
        while process.poll() is None and CheckpointConfig(tmp_path / "killed").paths == known:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    assert kills >= 3
    assert train("killed").wait() == 0
    assert same_weights(revgen.load(tmp_path / "uninterrupted-model"), revgen.load(tmp_path / "killed-model"))
