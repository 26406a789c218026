"""The summary of a corpus, and the advice in the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.cli import main

NAMES = "".join(
    f"{first}{second}\n" for first in ("Albert", "Bert", "Karl", "Norbert") for second in "ABCDEFGHIJKLMNOPQ"
)


@pytest.mark.parametrize("name", ["ngram-char", "kneser-ney-word", "gru-char"])
def test_file_of_names_is_read_line_by_line_on_advice(name: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(NAMES, "utf-8")
    sizes: dict[str, Any] = {"hidden_size": 8, "num_layers": 1} if name == "gru-char" else {}
    options: dict[str, Any] = {"epochs": 1} if name == "gru-char" else {}

    notes = revgen.create(name, **sizes).fit(path, progress=False, **options).notes
    assert any('read the file with documents="line" (on the command line, --documents line)' in note for note in notes)
    notes = revgen.create(name, **sizes).fit(path, documents="line", progress=False, **options).notes
    assert not any("documents" in note for note in notes)


def test_prose_gets_no_advice(reviews: list[str]) -> None:
    history = revgen.create("ngram-char").fit(["\n".join(reviews[:60])], progress=False)
    assert not any("documents" in note for note in history.notes)


def test_evaluation_splits_a_file_as_the_training_text_was(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "names.txt"
    path.write_text(NAMES, "utf-8")
    network = revgen.create("gru-char", hidden_size=8, num_layers=1)
    network.fit(path, documents="line", progress=False, epochs=1)
    counts = [revgen.create(name) for name in ("kneser-ney-char", "skip-ngram-char")]
    for model in counts:
        model.fit(path, documents="line", progress=False)

    for model in (network, *counts):
        assert model.evaluate(path) == model.evaluate(path, documents="line")
        assert model.evaluate(path).documents == 68
        assert model.evaluate(path, documents="file").documents == 1
    assert not recwarn


def test_evaluation_of_names_as_one_document_gets_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "names.txt"
    path.write_text(NAMES, "utf-8")
    model = revgen.create("kneser-ney-char")
    model.fit(NAMES.split(), progress=False)  # the model cannot know how a file of them is split
    model.save(tmp_path / "model")

    with pytest.warns(UserWarning, match='documents="line"'):
        assert model.evaluate(path).documents == 1
    assert main(["evaluate", str(tmp_path / "model"), str(path)]) == 0
    assert "--documents line" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "model"), str(path), "--documents", "file"]) == 0
    assert capsys.readouterr().err == ""
