"""Standard output that cannot be written, and options that name what cannot be used: one line, and the status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from revgen.cli import main


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_of_standard_output_is_an_error_in_one_line() -> None:
    command = [sys.executable, "-m", "revgen", "generate", "gru-char", "--max-tokens", "3", "--seed", "1"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)

    assert result.returncode == 2
    assert result.stderr == "revgen: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the shell closes standard output")
def test_a_closed_standard_output_causes_no_traceback() -> None:
    command = f"{sys.executable} -m revgen list 'gru-*' >&-"
    result = subprocess.run(command, check=False, shell=True, stderr=subprocess.PIPE, text=True, timeout=100)

    assert result.returncode == 0
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["explain", "gru-char", "a song", "--html", "."], ["generate", "gru-char", "--device", "meta"]]
)
def test_an_option_that_cannot_be_used_is_an_error_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
