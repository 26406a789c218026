"""The example of a plug-in package, installed and used as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "examples" / "plugin"
SCRIPT = """
import sys, revgen
assert "leaky-word" in revgen.list_models("leaky-*")
model = revgen.create("leaky-char", hidden_size=16)
model.fit(["the song of the band. " * 40] * 3, epochs=1, progress=False)
model.save(sys.argv[1])
print(revgen.load(sys.argv[1]).generate("the "))
"""


def test_the_plug_in_installs_and_brings_its_cell(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", site, PLUGIN], check=True)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    assert run(sys.executable, "-c", SCRIPT, tmp_path / "model").stdout.startswith("the ")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", PLUGIN / "tests")


def test_a_model_without_its_cell_says_what_it_needs(tmp_path: Path) -> None:
    test_the_plug_in_installs_and_brings_its_cell(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "revgen", "generate", tmp_path / "model"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "the package 'revgen-leaky' provides it: install it if you trust it" in done.stderr
    assert "leaky" in done.stderr and "register_cell" in done.stderr and "Traceback" not in done.stderr
