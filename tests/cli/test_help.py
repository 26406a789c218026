"""The help of the command line, and its options."""

from __future__ import annotations

import pytest
from helpers import run

import revgen
from revgen.cli import main

COMMANDS = (
    "list",
    "info",
    "generate",
    "synthesize",
    "write",
    "fit",
    "compare",
    "evaluate",
    "explain",
    "novelty",
    "check",
)
HUB_COMMANDS = ("push", "pull", "export", "cache")


def test_help_lists_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])

    text = capsys.readouterr().out
    assert end.value.code == 0
    assert {*COMMANDS, *HUB_COMMANDS} < set(text.split())
    assert 'revgen generate lstm-char --prompt "the "' in text


@pytest.mark.parametrize("command", [*COMMANDS, *HUB_COMMANDS])
def test_help_of_a_command_shows_examples_of_that_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])

    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert end.value.code == 0
    assert len(examples.splitlines()) >= 2
    assert all(line.startswith((f"  revgen {command}", "    --")) for line in examples.splitlines())


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"revgen {revgen.__version__}\n"


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys).startswith("usage: revgen")
