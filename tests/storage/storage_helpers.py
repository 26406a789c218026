"""Functions that change saved models, and that run code in a new process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load, save

import revgen

FILES = ("config.json", "vocabulary.json", "model.safetensors")


def change_config(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to the content of config.json."""
    path = directory / "config.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(directory: Path, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    """Apply a change to the weights, and update their hash in config.json."""
    path = directory / "model.safetensors"
    arrays = load(path.read_bytes())
    change(arrays)
    replace_file(directory, "weights", save(arrays))


def replace_file(directory: Path, entry: str, data: bytes) -> None:
    """Replace the content of the tokenizer or the weights file, and update its hash in config.json."""

    def update(content: dict[str, Any]) -> None:
        (directory / content[entry]["file"]).write_bytes(data)
        content[entry]["sha256"] = hashlib.sha256(data).hexdigest()

    change_config(directory, update)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process."""
    root = str(Path(revgen.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
