"""``revgen completion``, in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_revgen
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["eval"], {"evaluate"}),
        (["generate", "lstm-"], {"lstm-char", "lstm-subword", "lstm-word"}),
        (["generate", "my-m"], {"my-model"}),
        (["generate", "lstm-char", "--temp"], {"--temperature"}),
        (["synthesize", "lstm-char", "gru-w"], {"gru-word"}),
        (["fit", "gru-char", "revi"], {"reviews.txt"}),
        (["fit", "gru-char", "reviews.txt", "--conf"], {"--config"}),
        (["evaluate", "gru-char", "reviews.txt", "--documents", "b"], {"blank"}),
        (["datasets", "r"], {"reviews"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes_commands_models_options_and_files(
    words: list[str], completions: set[str], bash_script: Path
) -> None:
    command = ["bash", "-c", COMPLETE, "bash", str(bash_script), "revgen", *words]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bash_script.parent)
    assert set(printed.stdout.split()) == completions


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the script for bash, in a directory with a text and a model directory."""
    directory = tmp_path_factory.mktemp("completion")
    (directory / "my-model").mkdir()
    (directory / "reviews.txt").write_text("a text", "utf-8")
    script = directory / "revgen.bash"
    command = [sys.executable, "-m", "revgen", "completion", "bash"]
    script.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout, "utf-8")
    return script


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells_have_the_names_of_models(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = run(capsys, "completion", shell)
    assert "gru-word" in script and "_revgen_models" in script and "evaluate" in script
