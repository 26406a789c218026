"""The help of the command line, and its options."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from helpers import run

import revgen
from revgen.cli import build_parser, main

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
    "datasets",
    "doctor",
    "completion",
)
HUB_COMMANDS = ("push", "pull", "export", "cache")


def test_help_lists_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])

    text = capsys.readouterr().out
    assert end.value.code == 0
    assert {*COMMANDS, *HUB_COMMANDS} < set(text.split())
    assert "revgen generate lstm-char\n" in text


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


def test_no_command_prints_a_tour_of_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys).splitlines()

    parser, commands = build_parser()
    examples = [shlex.split(line.partition("    ")[0]) for line in lines if line.startswith("  revgen ")]
    assert len(lines) < 20 and len(examples) >= 6
    for _, command, *arguments in examples:
        assert parser.parse_args([command, *arguments]).run
        assert command in commands


def test_help_and_the_tour_import_neither_numpy_nor_rich() -> None:
    code = "import sys\nfrom revgen.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    code += "print({'numpy', 'rich', 'torch', 'logging'} & sys.modules.keys())"
    for arguments in ([], ["--help"], ["--version"]):
        printed = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
        assert printed.stdout.endswith("set()\n"), arguments
