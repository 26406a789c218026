"""Several processes train the same model as one: losses, checkpoints, and the end of all processes if one dies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.language_model import LanguageModel
from revgen.training.checkpoint import CheckpointConfig

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "sequence_length": 32, "progress": False}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 2}
SCRIPT = f"""
import json, os, sys, torch, revgen
torch.set_num_threads(1)
name, settings, stop = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
class Stop(revgen.Callback):
    def on_step_end(self, model, step):
        if step.step == stop:
            END
model = revgen.create(name, **{SIZES})
history = model.fit(list(revgen.datasets.load("reviews"))[:15], 0.1, callbacks=[Stop()], **settings)
model.save(sys.argv[4])
if os.environ.get("RANK", "0") == "0":
    print(json.dumps([[e.train_loss, e.nats_per_char] for e in history]))
"""


def train(name: str, **settings: Any) -> tuple[LanguageModel, list[list[float]]]:
    """Return a model trained in this process, and the losses of each epoch."""
    model = revgen.create(name, **SIZES)
    history = model.fit(list(revgen.datasets.load("reviews"))[:15], 0.1, **SETTINGS | settings)
    return model, [[epoch.train_loss, epoch.nats_per_char or 0] for epoch in history]


def train_in_two_processes(
    name: str, directory: Path, stop: int = 0, end: str = "os._exit(7)", **settings: Any
) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = directory / "train.py"
    script.write_text(SCRIPT.replace("END", end))
    arguments = [name, json.dumps(SETTINGS | settings), str(stop), str(directory / "model")]
    command = [sys.executable, *launch, str(script), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def read_losses(run: subprocess.CompletedProcess[str]) -> list[list[float]]:
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.strip().splitlines()
    losses: list[list[float]] = json.loads(line)
    return losses


@pytest.mark.parametrize(
    "name", ["gru-char", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lstm-char", "transformer-char"))]
)
def test_two_processes_train_the_same_model_as_one(name: str, tmp_path: Path) -> None:
    one, losses_of_one = train(name)
    losses_of_two = read_losses(train_in_two_processes(name, tmp_path))
    tolerance = 1e-3 if name == "transformer-char" else 1e-4  # for rounding in bfloat16
    assert np.allclose(losses_of_one, losses_of_two, atol=tolerance)
    two = revgen.load(tmp_path / "model")
    assert one.score("the song").total == pytest.approx(two.score("the song").total, abs=1e-2)


def test_callback_of_the_first_process_stops_all_processes(tmp_path: Path) -> None:
    losses = read_losses(
        train_in_two_processes("gru-char", tmp_path, 3, "return int(os.environ['RANK']) == 0", epochs=50)
    )
    assert len(losses) == 1


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("lstm-char", {}, 1e-4),
        ("gru-char", {}, 1e-4),
        ("awd-lstm-char", {"alpha": 1.0, "beta": 1.0}, 1e-3),  # bfloat16 rounds its large sums
        ("transformer-char", {"context": 16, "num_heads": 2}, 1e-4),
        ("mlp-char", {"context": 4}, 3e-3),
    ],
)
def test_gradient_accumulation_gives_the_same_steps(
    name: str, options: dict[str, Any], tolerance: float, reviews: list[str]
) -> None:
    sizes = {"hidden_size": 16, "num_layers": 2, "dropout": 0.3} | options
    models = revgen.create(name, **sizes), revgen.create(name, **sizes)
    history = models[0].fit(reviews[:15], 0.1, **SETTINGS)
    accumulated = models[1].fit(reviews[:15], 0.1, gradient_accumulation_steps=4, **SETTINGS)
    assert [e.train_loss for e in history] == pytest.approx([e.train_loss for e in accumulated], abs=tolerance)
    with pytest.raises(revgen.OptionError, match="batch_size must be a multiple of 3"):
        models[1].fit(reviews[:15], gradient_accumulation_steps=3, **SETTINGS)


def test_dead_process_ends_the_run_and_one_process_resumes_it(tmp_path: Path) -> None:
    _, expected = train("lstm-char")
    checkpoint = str(tmp_path / "run")
    died = train_in_two_processes("lstm-char", tmp_path, stop=20, checkpoint=checkpoint)
    assert died.returncode != 0
    assert not (tmp_path / "model").exists()
    assert len(CheckpointConfig(checkpoint).paths) == 2
    _, resumed = train("lstm-char", checkpoint=checkpoint, resume=True)
    assert np.allclose(resumed, expected, atol=1e-4)
