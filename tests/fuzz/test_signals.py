"""SIGINT at any moment of a command: no traceback, and what was saved can be loaded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz_helpers import SEED, TEXTS, make_trained_model

import revgen

RUN = "import sys; from revgen_command import run; sys.exit(run())"
COMMANDS = {
    "generate": ["generate", "{model}", "--max-tokens", "100000"],
    "fit": [
        "fit",
        "gru-char",
        "{text}",
        "--epochs",
        "50",
        "--set",
        "hidden_size=8",
        "--out",
        "{out}",
        "--checkpoint",
        "{out}-run",
        "--resume",
    ],
    "samples": ["generate", "{model}", "-n", "20000", "--max-tokens", "9", "--out", "{out}.jsonl", "--resume"],
    "kneser-ney": ["fit", "kneser-ney-char", "{text}", "--index", "--out", "{out}"],
}


@pytest.mark.parametrize("rounds", [1, pytest.param(40, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("command", COMMANDS)
def test_interrupt_shows_no_traceback(command: str, rounds: int, tmp_path: Path) -> None:
    if rounds == 1 and command != "generate":
        pytest.skip("each command takes seconds to start")
    rng = random.Random(SEED)
    model = make_trained_model().save(tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 50))
    names = {"model": str(model), "text": str(tmp_path / "text.txt"), "out": str(tmp_path / "out")}
    arguments = [argument.format(**names) for argument in COMMANDS[command]]
    for i in range(rounds if rounds > 1 else 4):
        with subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            time.sleep(rng.uniform(0.15, 1.5 if rounds == 1 else 10))  # before, the interpreter itself has not started
            os.killpg(process.pid, signal.SIGINT) if i % 3 else process.send_signal(signal.SIGINT)
            if i % 2:
                time.sleep(rng.uniform(0, 0.05))
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=100)
        assert "Traceback" not in errors, errors
        assert process.returncode in (0, 130, 2, -signal.SIGINT), errors
        if (tmp_path / "out" / "config.json").exists():
            revgen.load(tmp_path / "out")
