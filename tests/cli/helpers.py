"""Functions that run the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import revgen
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


def run_in_terminal(*arguments: str, columns: int = 80, encoding: str = "utf-8", **environment: str) -> tuple[int, str]:
    """Run a command in a process whose output is a terminal; return its exit status and what the terminal gets."""
    import fcntl
    import pty
    import struct
    import termios

    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        [sys.executable, "-m", "revgen", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=inherited
        | {"PYTHONPATH": str(Path(revgen.__file__).parents[1]), "PYTHONIOENCODING": encoding, "TERM": "xterm-256color"}
        | environment,
    )
    os.close(child)
    output = b""
    while True:
        try:
            received = os.read(terminal, 1 << 16)
        except OSError:  # on Linux, the end
            received = b""
        if not received:
            break
        output += received
    os.close(terminal)
    return process.wait(), output.decode(encoding).replace("\r\n", "\n")
