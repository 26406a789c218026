"""Tests of the Hub commands and of the code in the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_helpers import ROOT, python_blocks
from hub_server import Hub, Repository

import revgen
from revgen.cli import main
from revgen.language_model import LanguageModel


def run_command(line: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    """Run a command and return its output, or its one-line error message if it fails."""
    assert main(line.split()) == status
    out, errors = capsys.readouterr()
    assert not status or errors.count("\n") == 1
    return errors if status else out


def test_push_pull_generate_and_cache_commands(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = small_model.save(tmp_path / "model")
    assert run_command("cache", capsys).splitlines()[2:] == []

    url = run_command(f"push {directory} me/model --private --message First", capsys).strip()
    commit = url.rpartition("/")[2]
    assert hub.repositories["me/model"].messages[-1] == "First" and hub.repositories["me/model"].private

    pulled = Path(run_command("pull me/model", capsys).strip())
    assert sorted(path.name for path in pulled.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert run_command("generate me/model --prompt the --seed 1", capsys) == small_model.generate("the", seed=1) + "\n"
    assert 'revgen.load("me/model")' in run_command("info me/model --revision main", capsys)

    [line] = json.loads(run_command("cache --json", capsys))
    assert (line["name"], line["revisions"], line["commit"]) == ("me/model", ["main"], commit)
    assert "me/model  main" in run_command("cache", capsys)
    assert "freed" in run_command("cache --remove me/model", capsys)
    assert json.loads(run_command("cache --json", capsys)) == []
    assert "me/model is not in the cache" in run_command("cache --remove me/model", capsys, 2)


def test_push_command_takes_several_directories(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = small_model.save(tmp_path / "one"), small_model.save(tmp_path / "other")

    urls = json.loads(run_command(f"push {one} {other} --organization zoo --revision v1 --json", capsys))

    assert [url.split("/")[4] for url in urls] == ["one", "other"]
    assert "v1" in hub.repositories["zoo/one"].refs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("push nowhere me/model", "nowhere is not a model directory"),
        ("push one", "push takes a directory and a repository"),
        ("pull me/model", "me/model: no such directory, and no such repository on the Hub"),
        ("pull me/model --revision v1", "me/model: no such directory"),
        ("pull gru-char", "revgen/gru-char.music: no such"),
        ("generate me/model", "me/model: no such"),
        ("fit me/model texts.txt --out out", "me/model: no such"),
    ],
)
def test_errors_of_commands_are_one_line(line: str, message: str, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in run_command(line, capsys, 2)


def test_fit_command_fine_tunes_a_repository(
    pushed: Repository, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(reviews[0], "utf-8")

    run_command(f"fit me/model {texts} --epochs 1 --extend-vocabulary --out {tmp_path / 'out'} --json", capsys)

    assert revgen.load(tmp_path / "out").config.hidden_size == 32


def test_the_python_code_in_the_documentation_runs(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_model.save("my-model")
    scope: dict[str, Any] = {}
    for block in python_blocks((ROOT / "docs" / "hub.md").read_text("utf-8")):
        exec(compile(block, "docs/hub.md", "exec"), scope)

    assert "me/my-model" in hub.repositories
