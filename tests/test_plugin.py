"""Tests of plug-in packages: the installed example, and packages that are found by their entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import revgen

ROOT = Path(__file__).parent.parent
EXAMPLE_PLUGIN = ROOT / "examples" / "plugin"
SCRIPT = """
import sys, revgen
assert "leaky-word" in revgen.list_models("leaky-*")
model = revgen.create("leaky-char", hidden_size=16)
model.fit(["the song of the band. " * 40] * 3, epochs=1, progress=False)
model.save(sys.argv[1])
print(revgen.load(sys.argv[1]).generate("the "))
"""


def test_the_example_plugin_registers_its_cell_when_installed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", site, EXAMPLE_PLUGIN], check=True)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result

    assert run(sys.executable, "-c", SCRIPT, tmp_path / "model").stdout.startswith("the ")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE_PLUGIN / "tests")


# Packages that are found by their entry points


def run_python(code: str, *search: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process that also finds modules and distributions in ``search``."""
    path = os.pathsep.join([*map(str, search), str(Path(revgen.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"},
    )


def write_plugin(root: Path, name: str, code: str) -> Path:
    """Write an installed distribution: a module, and the entry point that names it."""
    root.mkdir(exist_ok=True)
    (root / f"{name}.py").write_text(code, encoding="utf-8")
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[revgen.plugins]\n{name} = {name}\n", encoding="utf-8")
    return root


PLUGIN_CODE = """
import revgen
from revgen.ops import tanh

@revgen.register_cell("plugged")
class Plugged(revgen.Cell):
    "A cell of another package."
    def param_shapes(self):
        return {"W": (self.input_size, self.hidden_size), "U": (self.hidden_size, self.hidden_size)}
    def project(self, p, x):
        return x @ p.W
    def step(self, p, z, h):
        h = tanh(z + h @ p.U)
        return h, h
"""


def test_the_error_for_a_missing_plugin_names_its_package(tmp_path: Path) -> None:
    write_plugin(tmp_path / "site", "friendly", PLUGIN_CODE)
    saved = run_python(
        "import revgen\n"
        "tokenizer = revgen.load('lstm-char').tokenizer\n"
        "model = revgen.create('plugged-char', hidden_size=8)\n"
        "model.prepare(tokenizer, seed=0)\n"
        f"model.save({str(tmp_path / 'model')!r})",
        tmp_path / "site",
    )
    assert saved.returncode == 0, saved.stderr

    result = subprocess.run(
        [sys.executable, "-m", "revgen", "generate", tmp_path / "model"], capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert "the package 'friendly' provides it: install it if you trust it" in result.stderr
    assert "plugged" in result.stderr and "register_cell" in result.stderr and "Traceback" not in result.stderr


def test_a_plugin_is_loaded_when_one_of_its_names_is_used(tmp_path: Path) -> None:
    write_plugin(tmp_path, "friendly", PLUGIN_CODE)

    result = run_python(
        "import revgen, sys\n"
        "revgen.create('lstm-char')\n"
        "assert 'friendly' not in sys.modules, 'loaded before it was needed'\n"
        "model = revgen.create('plugged-char', hidden_size=8)\n"
        "print(model.name, type(model).__name__)",
        tmp_path,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout == "plugged-char RecurrentModel\n"


def test_the_models_of_a_plugin_are_listed(tmp_path: Path) -> None:
    write_plugin(tmp_path, "friendly", PLUGIN_CODE)

    result = run_python(
        "import revgen; print(revgen.list_models('plug*')); print(revgen.models('plug*-word'))", tmp_path
    )

    assert "['plugged-char', 'plugged-subword', 'plugged-word']" in result.stdout
    assert "A cell of another package." in result.stdout


def test_a_plugin_that_fails_to_load_warns_and_does_not_affect_others(tmp_path: Path) -> None:
    write_plugin(tmp_path, "absent", "import a_module_that_does_not_exist")
    write_plugin(tmp_path, "broken", "1 / 0")
    write_plugin(tmp_path, "friendly", PLUGIN_CODE)
    write_plugin(tmp_path, "greedy", PLUGIN_CODE.replace('"plugged"', '"lstm"'))

    result = run_python("import revgen; print(revgen.list_models(['lstm-char', 'plugged-char']))", tmp_path)

    assert result.stdout == "['lstm-char', 'plugged-char']\n"
    assert "plug-in 'absent' (absent) could not be loaded: ModuleNotFoundError" in result.stderr
    assert "plug-in 'broken' (broken) could not be loaded: ZeroDivisionError" in result.stderr
    assert "plug-in 'greedy' (greedy) could not be loaded: RegistrationError" in result.stderr
    assert "friendly" not in result.stderr


def test_models_gives_the_same_table_before_and_after_architectures_are_imported() -> None:
    result = run_python(
        "import revgen\n"
        "first = revgen.models('lstm-char').to_dicts()\n"
        "import revgen.architectures.recurrent\n"
        "assert revgen.models('lstm-char').to_dicts() == first"
    )

    assert result.returncode == 0, result.stderr
