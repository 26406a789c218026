"""``examples/zoo_table.py``: every network gets the same budget, and a run that is in the file is not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import revgen


@pytest.fixture
def corpus(reviews: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(reviews[:20]), "utf-8")
    return path


def test_last_tenth_of_a_text_is_held_out_and_the_budget_is_counted_in_tokens(
    corpus: Path, tmp_path: Path, run_example: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["hidden_size=8", "batch_size=4", "dropout=0"]
    arguments = [corpus, *options, "--models", "elman-char", "--seconds", 2, "--busy", "--rate", 500, "--out", out]
    run_example("zoo_table.py", *arguments)
    (row,) = [json.loads(line) for line in out.read_text("utf-8").splitlines()]

    text = corpus.read_text("utf-8")
    boundary = len(text) * 9 // 10
    model: Any = revgen.create("elman-char", hidden_size=8, dropout=0)
    model.fit([text[:boundary]], token_budget=1000, batch_size=4, progress=False)
    assert row["last tenth"] == model.evaluate([text[boundary:]]).nats_per_char
    assert row["options"] == {"hidden_size": 8, "batch_size": 4, "dropout": 0}

    run_example("zoo_table.py", *arguments)
    assert len(out.read_text("utf-8").splitlines()) == 1
    capsys.readouterr()
    run_example("zoo_table.py", "--show", out)
    assert f"| {row['last tenth']:.4f} |" in capsys.readouterr().out
