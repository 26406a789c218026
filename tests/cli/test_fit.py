"""``revgen fit``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import run, run_failing

import revgen
from revgen.cli import main
from revgen.language_model import LanguageModel

SMALL = ("--set", "hidden_size=12", "--set", "num_layers=1", "--epochs", "1")


def test_fit_saves_a_model_that_generates_and_can_be_evaluated(
    texts_file: str, held_out_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "fitted")

    printed = run(capsys, "fit", "gru-char", texts_file, *SMALL, "--valid", "0.2", "--out", out)
    text = run(capsys, "generate", out, "--prompt", "the ", "--seed", "1", "--max-tokens", "9")
    figures = json.loads(run(capsys, "evaluate", out, held_out_file, "--json"))
    line = run(capsys, "evaluate", out, held_out_file)

    model = revgen.load(out)
    assert "nats_per_char" in printed and f"revgen generate {out}" in printed
    assert (model.name, model.config.hidden_size, model.config.num_layers) == ("gru-char", 12, 1)
    assert text == model.generate("the ", seed=1, max_tokens=9) + "\n"
    assert figures == model.evaluate(held_out_file).to_dict()
    assert {"nats_per_char", "bits_per_char", "perplexity", "tokens", "characters"} <= figures.keys()
    assert line == f"{model.evaluate(held_out_file)}\n"


def test_fit_prints_json_and_validates_on_a_file(
    texts_file: str, held_out_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fitted"

    command = ("fit", "rnn-char", texts_file, *SMALL, "--epochs", "2", "--valid", held_out_file)
    report = json.loads(run(capsys, *command, "--out", str(out), "--json"))

    assert report["directory"] == str(out)
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2]
    best = min(epoch["nats_per_char"] for epoch in report["epochs"])
    assert revgen.load(out).evaluate(held_out_file).nats_per_char == pytest.approx(best, abs=1e-3)


def test_fit_without_validation_reports_the_training_loss(
    texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "fit", "gru-char", texts_file, *SMALL, "--out", str(tmp_path / "fitted"))

    assert "train_loss" in printed and "nats_per_char" not in printed


def test_fit_fine_tunes_a_saved_model(
    model_directory: str, texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "finer")

    run(capsys, "fit", model_directory, texts_file, "--epochs", "1", "--out", out)

    before, after = revgen.load(model_directory), revgen.load(out)
    assert (after.config, after.tokenizer) == (before.config, before.tokenizer)
    assert after.evaluate(texts_file).nats_per_char < before.evaluate(texts_file).nats_per_char


def test_fit_overwrites_the_model_that_it_fine_tunes(
    model_directory: str, texts_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = revgen.load(model_directory).evaluate(texts_file).nats_per_char

    run(capsys, "fit", model_directory, texts_file, "--epochs", "1", "--out", model_directory)

    assert revgen.load(model_directory).evaluate(texts_file).nats_per_char < before


def test_fit_pretrained_fine_tunes_the_pretrained_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The band plays the song again and again. " * 60, "utf-8")
    command = ["fit", "lstm-char", str(text), "--epochs", "1", "--out", str(tmp_path / "model"), "--json"]

    assert main(command) == 0
    assert "--pretrained" in capsys.readouterr().err
    new_model = revgen.load(tmp_path / "model")
    assert main([*command, "--pretrained", "--overwrite"]) == 0
    fine_tuned = revgen.load(tmp_path / "model")
    assert fine_tuned.config == revgen.load("lstm-char").config != new_model.config


def test_fit_extend_vocabulary_adds_new_characters(
    model_directory: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "new.txt", str(tmp_path / "wider")
    path.write_text("漢字漢字漢字" + "\n".join(reviews[:10]), encoding="utf-8")

    run(capsys, "fit", model_directory, str(path), "--epochs", "1", "--out", out)
    assert not {"漢", "字"} & set(revgen.load(out).tokenizer.vocabulary)

    run(capsys, "fit", model_directory, str(path), "--epochs", "1", "--extend-vocabulary", "--overwrite", "--out", out)
    assert {"漢", "字"} <= set(revgen.load(out).tokenizer.vocabulary)


def test_fit_index_texts_saves_the_text_with_the_model(
    tmp_path: Path, reviews: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", str(tmp_path / "model")
    text.write_text("\n".join(reviews[:10]), "utf-8")

    run(capsys, "fit", "kneser-ney-char", str(text), "--index-texts", "--out", out)

    assert revgen.load(out).novelty(reviews[3]).fraction == 1


def test_fit_set_takes_values_of_every_type(
    texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ("nonlinearity=relu", "residual=false", "dropout=0", "embedding_size=7", 'tokenizer={"min_count": 1}')
    out = str(tmp_path / "fitted")

    run(capsys, "fit", "rnn-char", texts_file, *SMALL, *(f"--set={text}" for text in values), "--out", out)

    config = revgen.load(out).config
    assert (config.cell_options, config.residual, config.dropout) == ({"nonlinearity": "relu"}, False, 0)
    assert config.embedding_size == 7


def test_fit_takes_the_training_options(texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "fitted")
    options = "--batch-size 3 --sequence-length 50 --learning-rate 0.001 --patience 2 --seed 7 --max-seconds 60"

    run(capsys, "fit", "gru-char", texts_file, *SMALL, *options.split(), "--out", out)

    training = revgen.load(out).metadata["training"]
    expected = {"batch_size": 3, "sequence_length": 50, "learning_rate": 0.001, "patience": 2, "seed": 7}
    assert training | expected == training


def test_fit_resumes_from_a_checkpoint(texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("fit", "gru-char", texts_file, *SMALL, "--epochs", "2", "--out", str(tmp_path / "out"), "--json")
    checkpoint = ("--checkpoint", str(tmp_path / "checkpoint"))

    first = json.loads(run(capsys, *common, *checkpoint))
    again = json.loads(run(capsys, *common, *checkpoint, "--resume"))

    assert again["epochs"] == first["epochs"], "the finished run is not trained again"


def test_fit_refuses_a_directory_into_which_another_process_trains(
    texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = f"import revgen.files as f, pathlib\nwith f.lock(pathlib.Path({str(out)!r})): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()

        error = run_failing(capsys, "fit", "gru-char", texts_file, *SMALL, "--quiet", "--out", str(out))

        assert "another process is writing to it" in error
        other.communicate(b"\n")
    run(capsys, "fit", "gru-char", texts_file, *SMALL, "--quiet", "--out", str(out))


def test_fit_names_an_option_that_the_architecture_does_not_have(
    texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counting(LanguageModel):
        """A model that counts."""

        def fit(self, texts: Any, valid: Any = None, *, labels: Any = None) -> Any:  # type: ignore[override]
            raise NotImplementedError

    Counting.__abstractmethods__ = frozenset()
    Counting.Config = type(revgen.create("gru-char").config)
    revgen.register_model("counting")(Counting)
    try:
        line = run_failing(capsys, "fit", "counting-char", texts_file, "--epochs", "2", "--out", str(tmp_path / "out"))
    finally:
        revgen.registry.architectures.unregister("counting")

    assert "counting-char is not trained with --epochs" in line
