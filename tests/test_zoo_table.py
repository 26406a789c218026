"""``examples/zoo_table.py``: every network gets the same budget, and a run that is in the file is not repeated."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import revgen

ROOT = Path(__file__).parents[1]


@pytest.fixture
def corpus(reviews: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(reviews[:20]), "utf-8")
    return path


def measure(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo_table.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples" / "zoo_table.py"), run_name="__main__")


def test_last_tenth_of_a_text_is_held_out_and_the_budget_is_counted_in_tokens(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["hidden_size=8", "batch_size=4", "dropout=0"]
    arguments = [corpus, *options, "--models", "elman-char", "--seconds", 2, "--busy", "--rate", 500, "--out", out]
    measure(monkeypatch, *arguments)
    (row,) = [json.loads(line) for line in out.read_text("utf-8").splitlines()]

    text = corpus.read_text("utf-8")
    boundary = len(text) * 9 // 10
    model: Any = revgen.create("elman-char", hidden_size=8, dropout=0)
    model.fit([text[:boundary]], token_budget=1000, batch_size=4, progress=False)
    assert row["last tenth"] == model.evaluate([text[boundary:]]).nats_per_char
    assert row["options"] == {"hidden_size": 8, "batch_size": 4, "dropout": 0}

    measure(monkeypatch, *arguments)
    assert len(out.read_text("utf-8").splitlines()) == 1
    capsys.readouterr()
    measure(monkeypatch, "--show", out)
    assert f"| {row['last tenth']:.4f} |" in capsys.readouterr().out
