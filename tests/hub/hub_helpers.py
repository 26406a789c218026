"""Functions that several of the Hub tests use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import revgen

ROOT = Path(revgen.__file__).parents[1]


def python_blocks(text: str) -> list[str]:
    """Return the Python code blocks of a Markdown text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run_processes(code: str, count: int = 1) -> list[tuple[int, str, str]]:
    """Run Python code in ``count`` processes at once, and return the exit status, output and errors of each."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stdout=-1, stderr=-1)
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]
