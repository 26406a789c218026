"""``Trainer`` of transformers trains networks of revgen, resumes, and writes checkpoints that revgen loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import same_model

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.tokenizers import CharTokenizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

NAMES = ["Abelisaurus", "Allosaurus", "Anzu", "Mei", "Minmi", "Khaan", "Haya", "Proa", "Aorun", "Almas"] * 4


def make_trainer(lm: Any, directory: Path, **options: Any) -> Any:
    """Return a ``Trainer`` that writes a checkpoint after each epoch."""
    examples = [lm.tokenizer(name) for name in NAMES]
    arguments = transformers.TrainingArguments(
        str(directory),
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="epoch",
        **options,
    )
    collator = transformers.DataCollatorForLanguageModeling(lm.tokenizer, mlm=False)
    return transformers.Trainer(
        lm, arguments, train_dataset=examples, eval_dataset=examples[:10], data_collator=collator
    )


@pytest.fixture(scope="module")
def untrained_model() -> NeuralModel:
    """A network with dropout, so that resumed training has to restore the state of the random number generators."""
    tokenizer = CharTokenizer.train([*NAMES, "<s>"], min_count=1)
    model = revgen.create("gru-char", tokenizer=tokenizer, hidden_size=16, num_layers=1, dropout=0.1)
    assert isinstance(model, NeuralModel)
    model.weights = model.init_params(np.random.default_rng(0))
    return model


class StopAfterTwoEpochs(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """A callback that ends training after two epochs, as an interruption would."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        control.should_training_stop = state.epoch >= 2


def test_resumed_training_ends_with_the_weights_of_uninterrupted_training(
    untrained_model: NeuralModel, tmp_path: Path
) -> None:
    options = {"num_train_epochs": 4, "learning_rate": 2e-2, "seed": 1}
    uninterrupted = revgen.to_transformers(untrained_model)
    make_trainer(uninterrupted, tmp_path / "uninterrupted", **options).train()
    stopped = make_trainer(revgen.to_transformers(untrained_model), tmp_path / "resumed", **options)
    stopped.add_callback(StopAfterTwoEpochs())
    stopped.train()
    assert stopped.state.epoch == 2

    resumed = revgen.to_transformers(untrained_model)
    make_trainer(resumed, tmp_path / "resumed", **options).train(resume_from_checkpoint=True)

    assert same_model(resumed.to_revgen(), uninterrupted.to_revgen())
    assert not same_model(resumed.to_revgen(), stopped.model.to_revgen())


class NegateAfterTwoEpochs(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """A callback that negates all weights after two epochs, so that the last epoch is not the best."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **options: Any) -> None:
        if state.epoch == 2:
            for weight in model.parameters():
                weight.data.neg_()


def test_best_checkpoint_is_loaded_when_training_ends(untrained_model: NeuralModel, tmp_path: Path) -> None:
    lm = revgen.to_transformers(untrained_model)
    options = {"num_train_epochs": 3, "learning_rate": 2e-2}
    trainer = make_trainer(lm, tmp_path, eval_strategy="epoch", load_best_model_at_end=True, **options)
    trainer.add_callback(NegateAfterTwoEpochs())
    trainer.train()

    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert min(losses) < losses[-1], "the last epoch is the best, so this test proves nothing"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-4)
    assert same_model(revgen.load(trainer.state.best_model_checkpoint), lm.to_revgen())


@pytest.mark.slow  # it trains in several processes
def test_training_resumed_in_another_process_ends_with_the_same_weights(
    untrained_model: NeuralModel, tmp_path: Path
) -> None:
    untrained_model.save(tmp_path / "untrained")
    code = f"""
import sys
from pathlib import Path
from test_trainer import StopAfterTwoEpochs, make_trainer
import revgen
from transformers import AutoModelForCausalLM
lm = AutoModelForCausalLM.from_pretrained({str(tmp_path / "untrained")!r})
trainer = make_trainer(lm, Path(sys.argv[1]), num_train_epochs=4, learning_rate=2e-2)
if sys.argv[2] == "stop": trainer.add_callback(StopAfterTwoEpochs())
trainer.train(resume_from_checkpoint=sys.argv[2] == "resume" or None)
lm.save_pretrained(sys.argv[3])
"""
    test_directory = Path(__file__).parent
    import_path = (test_directory, test_directory.parent, test_directory.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, import_path))}
    for run, action in [("uninterrupted", "train"), ("interrupted", "stop"), ("interrupted", "resume")]:
        arguments = [str(tmp_path / run), action, str(tmp_path / f"{run}-{action}")]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, capture_output=True)

    assert same_model(revgen.load(tmp_path / "interrupted-resume"), revgen.load(tmp_path / "uninterrupted-train"))


def test_checkpoint_of_the_trainer_is_a_model_directory(untrained_model: NeuralModel, tmp_path: Path) -> None:
    trainer = make_trainer(revgen.to_transformers(untrained_model), tmp_path, num_train_epochs=1)
    trainer.train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")

    lm = trainer.model
    assert same_model(revgen.load(checkpoint), lm.to_revgen())
    assert json.loads((checkpoint / "config.json").read_text("utf-8"))["architectures"] == ["RevgenForCausalLM"]
    assert transformers.AutoTokenizer.from_pretrained(checkpoint).encode("Anzu") == lm.tokenizer.encode("Anzu")
