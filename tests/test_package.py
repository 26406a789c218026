"""Tests of the package as users get it: its weights, and the wheel in a new environment."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import revgen

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command offline, without the checkout on the module search path, and return its output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, f"{command}: {result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_models_of_music_prefer_english_words() -> None:
    names = {"lstm-char", "gru-char", "rnn-char", "lstm-word", "gru-subword", "transformer-subword", "textgenrnn-char"}
    assert {f"{name}.music" for name in names} <= set(revgen.list_models(pretrained=True))
    for name in names:
        model = revgen.load(name)
        assert model.generate("The band ", max_tokens=20, seed=1).startswith("The band ")
        assert model.score("The band plays a song.").total > model.score("Eht nabd syapl a gnos.").total


@pytest.mark.slow
def test_the_wheel_generates_text_in_a_new_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    wheel, sdist = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=tmp_path)
    assert wheel.stat().st_size <= 45_000_000
    names = zipfile.ZipFile(wheel).namelist()
    assert {"revgen/py.typed", "revgen/datasets/reviews.jsonl", "revgen/pretrained/lstm-char.music/config.json"} <= {
        *names
    }
    assert all(name.startswith(("revgen/", "revgen-")) for name in names if name != "revgen_command.py")

    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    run(scripts / "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    text = run(scripts / "revgen", "generate", "lstm-char", "--prompt", "the ", cwd=tmp_path)
    assert text.startswith("the ") and len(text) > 20
    code = 'import revgen; print(revgen.load("lstm-char").generate("the "))'
    assert run(scripts / "python", "-c", code, cwd=tmp_path).startswith("the ")
