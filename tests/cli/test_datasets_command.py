"""``revgen datasets``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run, run_failing
from hub_server import Hub, Repository

import revgen


def test_datasets_lists_the_corpora_in_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "datasets", "--json"))

    assert [row["name"] for row in rows] == revgen.datasets.names()
    assert json.loads(run(capsys, "datasets", "reviews", "--json")) == revgen.datasets.info("reviews").to_dict()
    assert "82.1 kB  MIT" in run(capsys, "datasets")


def test_datasets_writes_a_corpus_to_a_file_that_fit_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reviews.jsonl"

    run(capsys, "datasets", "reviews", "--out", str(out))

    assert out.read_bytes() == revgen.datasets.path("reviews").read_bytes()
    assert "exists already" in run_failing(capsys, "datasets", "reviews", "--out", str(out))
    run(capsys, "datasets", "reviews", "--overwrite", "--out", str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.jsonl"]


def test_datasets_does_not_follow_planted_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("precious")
    for name in (".reviews.jsonl.part", "reviews.jsonl"):
        (tmp_path / name).symlink_to("precious")

    run(capsys, "datasets", "reviews", "--overwrite", "--out", str(tmp_path / "reviews.jsonl"))

    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "reviews.jsonl").is_symlink()


def test_datasets_fetches_a_data_set_of_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    repository = Repository()
    repository.commit("main", {"train.jsonl": '{"body": "naïve\\ntext"}\n{"body": "b"}\n'.encode()}, "Add texts")
    hub.repositories["datasets/me/texts"] = repository
    hub.card_data["datasets/me/texts"] = {"license": "mit"}
    out = tmp_path / "texts.jsonl"

    assert "mit" in run(capsys, "datasets", "me/texts")
    run(capsys, "datasets", "me/texts", "--field", "body", "--out", str(out))
    assert out.read_text("utf-8") == '{"body": "naïve\\ntext"}\n{"body": "b"}\n'
    assert list(revgen.read(out, field="body")) == ["naïve\ntext", "b"]
    assert "no such data set" in run_failing(capsys, "datasets", "me/none", "--out", str(tmp_path / "none"))
