"""``revgen list`` and ``revgen info``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run

import revgen
from revgen.language_model import LanguageModel


def test_list_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "list", "gru-*")

    assert printed == f"{revgen.models('gru-*')}\n"


def test_list_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "list", "--json"))

    assert [row["name"] for row in rows] == revgen.list_models()


def test_list_pretrained_shows_only_models_with_weights(
    capsys: pytest.CaptureFixture[str], small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.pretrained.DIRECTORY", tmp_path)
    small_model.save(tmp_path / "lstm-char.music")

    rows = json.loads(run(capsys, "list", "--pretrained", "--json"))

    assert [row["name"] for row in rows] == ["lstm-char.music"]


def test_list_without_matches_prints_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "nothing-*", "--json") == "[]\n"
    assert len(run(capsys, "list", "nothing-*").splitlines()) == 2


def test_info_prints_the_card(model_directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = (Path(model_directory) / "README.md").read_text(encoding="utf-8")

    assert run(capsys, "info", model_directory) == card.replace("path/to/this/directory", model_directory)


def test_info_prints_json(model_directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads(run(capsys, "info", model_directory, "--json"))

    assert info["name"] == "lstm-char"
    assert info["parameters"] == small_model.num_parameters
    assert info["config"]["hidden_size"] == 32
