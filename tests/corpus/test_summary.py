"""The summary of a corpus, and the advice in the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import revgen

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
