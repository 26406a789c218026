"""Small models, and calls in forked processes that may be killed, hang or take much memory."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import revgen
from revgen.language_model import LanguageModel

SEED = int(os.environ.get("REVGEN_FUZZ_SEED", "0"))
"""Another seed gives other damage, in the short and in the long tests."""
PROCESSOR_SECONDS, SECONDS, MEMORY = 200, 1200.0, 2 << 30
"""The limits of one call: time of the processor, time on a busy machine, and bytes of additional memory."""
TEXTS = [f"the band of the song {i}, the song of the band. " * 3 for i in range(8)]
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 2, "sequence_length": 16, "progress": False}


def make_model(name: str = "gru-char", **options: Any) -> LanguageModel:
    """Return a small model that is not trained."""
    sizes: dict[str, Any] = {} if name.startswith("kneser") else {"hidden_size": 8, "num_layers": 1}
    return revgen.create(name, tokenizer={"min_count": 1}, **sizes, **options)


def make_trained_model(name: str = "gru-char", **options: Any) -> LanguageModel:
    """Return a small trained model."""
    model = make_model(name)
    training = {"progress": False} if name.startswith("kneser") else QUICK
    model.fit(TEXTS, **training | options)
    return model


def fork(function: Callable[[], Any]) -> tuple[int, int]:
    """Call a function in a forked process, and return its process id and a pipe that gets its outcome.

    The outcome is the result as JSON, ``RevgenError: …``, or another exception.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
        try:
            outcome = json.dumps(function())
        except revgen.RevgenError as error:
            outcome = f"RevgenError: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        os.write(writer, outcome.encode("utf-8", "replace")[:60_000])
    finally:
        os._exit(0)


def wait(process: int, reader: int) -> str:
    """Return the outcome of a forked process: see ``fork``; "killed", or "hangs" if it took too long."""
    data, deadline = b"", time.monotonic() + SECONDS
    while select.select([reader], [], [], max(deadline - time.monotonic(), 0))[0]:
        if not (piece := os.read(reader, 1 << 16)):
            break
        data += piece
    else:
        data = b"hangs"
        os.kill(process, signal.SIGKILL)
    os.close(reader)
    os.waitpid(process, 0)
    return data.decode() or "killed"


def call(function: Callable[[], Any]) -> str:
    """Return the outcome of a function in a forked process."""
    return wait(*fork(function))


def leftovers(directory: Path) -> list[str]:
    """Return the names of the temporary and pending files in a directory."""
    return sorted(path.name for path in directory.iterdir() if path.suffix in (".part", ".new", ".lock"))


def plant(path: Path, kind: str) -> None:
    """Put a special file at a path; a kind without a name of its own is the path that a link leads to."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "empty":
        path.touch()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to({"loop": path.name, "broken": "/nonexistent/x"}.get(kind, kind))
