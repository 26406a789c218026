"""``revgen evaluate`` and ``revgen novelty``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run, run_failing


def test_evaluate_takes_the_field_and_the_documents_of_a_file(
    model_directory: str, texts_file: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one line\nanother line\n", encoding="utf-8")

    body = json.loads(run(capsys, "evaluate", model_directory, texts_file, "--field", "body", "--json"))
    by_line = json.loads(run(capsys, "evaluate", model_directory, str(lines), "--documents", "line", "--json"))
    both = json.loads(run(capsys, "evaluate", model_directory, texts_file, str(lines), "--json"))

    assert body["characters"] == sum(len(text.upper()) for text in reviews[:15])
    assert by_line["documents"] == 2
    assert both["documents"] == 16


def test_malformed_lines_are_an_error_or_skipped(
    model_directory: str, texts_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(texts_file).open("a", encoding="utf-8") as file:
        file.write("{broken\n")

    line = run_failing(capsys, "evaluate", model_directory, texts_file)
    figures = json.loads(run(capsys, "evaluate", model_directory, texts_file, "--errors", "skip", "--json"))

    assert f"{texts_file}, line 16" in line
    assert figures["documents"] == 15


def test_novelty_reports_the_copied_spans_of_each_text(
    model_directory: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, sample = tmp_path / "training.txt", tmp_path / "sample.jsonl"
    training.write_text("\n\n".join(reviews[:5]), "utf-8")
    texts = ["Nothing.", f"Here it says: {reviews[3][:50]}#"]
    sample.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    arguments = ("novelty", model_directory, str(sample), "--training", str(training))

    rows = [json.loads(line) for line in run(capsys, *arguments, "--json").splitlines()]
    table = run(capsys, *arguments).splitlines()

    assert [row["text"] for row in rows] == [1, 2]
    assert rows[0]["spans"] == [] and rows[0]["longest"] < 8
    assert rows[1]["longest"] in (50, 51) and rows[1]["spans"][-1][1] == 64
    assert len(table) == 4 and " ".join(reviews[3][:50].split()) in table[3]
    assert "has no index of its training text" in run_failing(capsys, "novelty", model_directory, str(sample))
