"""The output of commands on a terminal: tables that fit it, colors, and characters that it can show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run, run_failing, run_in_terminal

import revgen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
COLOR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8])(?:;[0-9]+)*m")
STYLE = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;.*?\x1b\\")  # colors, and links


@pytest.mark.parametrize("columns", [30, 80, 150])
def test_table_fits_the_terminal(columns: int) -> None:
    status, printed = run_in_terminal("list", "gru-*", columns=columns)

    text = STYLE.sub("", printed)
    assert status == 0 and COLOR.search(printed)
    assert max(map(len, text.split("\n"))) <= columns
    assert {"gru-char", "gru-subword", "gru-word", "815,712", "826.5 kB"} <= set(re.split(r"\s\s+|\n", text))
    assert ("licence" in text) == (columns != 80)  # rows one below the other, a few columns, or all columns


def test_table_in_a_pipe_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "gru-*") == f"{revgen.models('gru-*')}\n"


def test_no_color_is_respected() -> None:
    _, printed = run_in_terminal("explain", "gru-char", "a song", NO_COLOR="1")

    assert not COLOR.search(printed)
    assert "alternatives" in printed


def test_terminal_without_unicode_shows_the_rest() -> None:
    status, printed = run_in_terminal("explain", "gru-char", "ein Lied für “dich”", encoding="ascii", columns=60)

    assert status == 0
    assert "f?r" in STYLE.sub("", printed) and "logprob" in printed


@pytest.mark.parametrize("command", ["generate", "fit"])
def test_help_is_shown_on_a_terminal_without_unicode(command: str) -> None:
    status, printed = run_in_terminal(command, "--help", encoding="ascii")

    assert status == 0 and printed.startswith(f"usage: revgen {command}")


def test_tables_are_plain_text_without_rich(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError", "utf-8")
    path = os.pathsep.join([str(tmp_path), str(Path(revgen.__file__).parents[1])])

    assert run_in_terminal("list", "gru-*", PYTHONPATH=path) == (0, run(capsys, "list", "gru-*"))


def test_card_on_a_terminal_has_no_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    _, printed = run_in_terminal("info", "gru-char", columns=60)

    text = STYLE.sub("", printed)
    assert "library_name" not in text and "```" not in text and "815,712 parameters" in text
    assert max(map(len, text.split("\n"))) <= 60
    assert run(capsys, "info", "gru-char").startswith("---\nlibrary_name: revgen\n")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    model = revgen.create("ngram-char", tokenizer={"min_count": 1})
    model.fit(["\x1b]0;title\x07 a \x9b31m text. " * 30], progress=False)
    model.metadata["data"] = "\x1b[2J a corpus"
    model.save(tmp_path)

    for arguments in (["generate", str(tmp_path), "--seed", "1"], ["info", str(tmp_path)]):
        status, printed = run_in_terminal(*arguments)
        assert status == 0 and r"\x1b" in printed
        assert not {"\x1b]0", "\x07", "\x9b", "\x1b[2J"} & set(re.findall(r"\x1b\]0|\x1b\[2J|[\x07\x9b]", printed))


def test_error_on_a_terminal_is_one_line_with_a_red_name() -> None:
    status, printed = run_in_terminal("generate", "lstn-chat", columns=20)

    assert status == 2
    assert printed.startswith("\x1b[1;31mrevgen:") and printed.count("\n") == 1


def test_json_keeps_characters_that_the_output_can_represent(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", "gru-char", "--prompt", "naïve “song”", "--max-tokens", "1", "--json")

    printed = run(capsys, *command)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "revgen", *command], capture_output=True, check=True, env=environment)

    assert '"prompt": "naïve “song”"' in printed
    assert json.loads(done.stdout)["prompt"] == "naïve “song”"  # escaped


def test_quiet_prints_only_results(texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("fit", "ngram-char", texts_file, "--quiet", "--overwrite", "--out", f"{tmp_path}/model")

    assert run(capsys, *command) == ""
    assert capsys.readouterr().err == ""
    assert run(capsys, "generate", f"{tmp_path}/model", "-q", "--prompt", "漢", "--max-tokens", "2").startswith("漢")
    assert capsys.readouterr().err == ""
    assert "no such file" in run_failing(capsys, "fit", "ngram-char", "nowhere.txt", "-q", "--out", f"{tmp_path}/other")


def test_verbose_prints_details_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "generate", "gru-char", "--max-tokens", "1")
    status, printed = run_in_terminal("generate", "gru-char", "--max-tokens", "1", "--verbose", columns=300)
    _, failed = run_in_terminal("generate", "lstn-chat", "-v")

    assert status == 0
    assert re.search(r"revgen: gru-char is loaded from \S+gru-char.music", printed)
    assert re.search(r"revgen: finished after [\d.]+ s", printed)
    assert "Traceback" in failed and "did you mean lstm-char" in failed
