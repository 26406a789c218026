"""Functions that run the command line in this process."""

from __future__ import annotations

from typing import Any

import pytest

from revgen.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def run_failing(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """Run a command that fails with this status, and return its one line on standard error."""
    try:
        returned: Any = main(arguments)
    except SystemExit as end:  # argparse exits by itself
        returned = end.code
    captured = capsys.readouterr()
    assert returned == status
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("revgen"), captured.err
    return captured.err
