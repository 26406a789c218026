"""The command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import revgen
from revgen.language_model import LanguageModel

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(revgen.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}


def test_python_m_revgen_runs_the_command(model_directory: str, small_model: LanguageModel) -> None:
    command = [sys.executable, "-m", "revgen", "generate", model_directory, "--seed", "1", "--max-tokens", "20"]

    done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8", env=ENVIRONMENT)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == small_model.generate(seed=1, max_tokens=20) + "\n"


def test_error_in_a_process_is_one_line_without_traceback() -> None:
    command = [sys.executable, "-m", "revgen", "generate", "lstn-chat"]

    done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8", env=ENVIRONMENT)

    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["list", "generate {} --max-tokens 5000", "generate {} -n 50 --json", "--help"])
def test_closed_pipe_is_not_an_error(command: str, model_directory: str) -> None:
    arguments = command.format(model_directory).split()
    with subprocess.Popen(
        [sys.executable, "-m", "revgen", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read().decode()

    assert process.returncode == 0
    assert errors == ""


def test_character_that_the_terminal_cannot_encode_is_replaced(model_directory: str) -> None:
    command = [sys.executable, "-m", "revgen", "generate", model_directory, "--prompt", "the “", "--max-tokens", "3"]

    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})

    assert done.returncode == 0
    assert done.stdout.startswith(b"the ?")
    assert b"Traceback" not in done.stderr


INTERRUPTED_DESTRUCTOR = """
import os, signal, sys, time
from revgen.language_model import LanguageModel
from revgen_command import run

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)

def generate(*arguments, **options):
    Interrupted()
    time.sleep(60)

LanguageModel.generate = LanguageModel.stream = LanguageModel.generate_many = generate
sys.exit(run())
"""


def test_ctrl_c_in_a_destructor_which_python_ignores_ends_the_command(model_directory: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_DESTRUCTOR, "generate", model_directory]

    done = subprocess.run(command, capture_output=True, check=False, text=True, env=ENVIRONMENT, timeout=50)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
