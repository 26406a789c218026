"""``examples/search.py``: every combination is trained once, and compared on documents that no run trains on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def corpus(reviews: list[str], tmp_path: Path) -> Path:
    lines = [json.dumps({"text": text}) + "\n" for text in reviews[:40]]
    (tmp_path / "train.jsonl").write_text("".join(lines), "utf-8")
    (tmp_path / "valid.jsonl").write_text("not JSON: a search must not read it", "utf-8")
    return tmp_path


def test_interrupted_search_trains_only_what_is_missing(
    corpus: Path, tmp_path: Path, run_example: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = [corpus, "gru-char", "hidden_size=8", "optimizer=adamw,muon", "--tokens", "2e3", "--out", out]
    run_example("search.py", *arguments)
    first, second = out.read_text("utf-8").splitlines()
    assert [json.loads(line)["options"]["optimizer"] for line in (first, second)] == ["adamw", "muon"]
    assert json.loads(first)["held out"] != json.loads(second)["held out"]

    out.write_text(first + "\n", "utf-8")
    run_example("search.py", *arguments)
    assert out.read_text("utf-8").splitlines()[0] == first
    assert json.loads(out.read_text("utf-8").splitlines()[1])["held out"] == json.loads(second)["held out"]

    capsys.readouterr()
    run_example("search.py", "--show", out)
    table = capsys.readouterr().out
    assert table.count("hidden_size=8 optimizer=") == 2


def test_random_search_tries_different_combinations(
    corpus: Path, tmp_path: Path, run_example: Callable[..., None]
) -> None:
    out = tmp_path / "out.jsonl"
    values = ["hidden_size=4,8", "learning_rate=0.01,0.02", "--tokens", 500, "--random", 3, "--out", out]
    run_example("search.py", corpus, "elman-char", *values)
    options = [json.loads(line)["options"] for line in out.read_text("utf-8").splitlines()]
    assert len({json.dumps(option) for option in options}) == 3
