"""The installation for inference alone: without PyTorch and Numba, everything but training works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
import venv
from pathlib import Path

import pytest

import revgen

ROOT = Path(__file__).parent.parent
HIDE = """
import importlib.util, sys
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
HIDDEN = ("torch", "numba", "llvmlite", "transformers")
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in HIDDEN else find_spec(name, *rest)
import revgen
"""
NAMES = ["lstm-char", "gru-subword", "lstm-word", "transformer-subword", "textgenrnn-char"]
LONG_TEXT = "The band plays a song. " * 20
USE = f"""
import json, pathlib, tempfile
result = {{}}
for name in {NAMES}:
    model = revgen.load(name)
    page = model.export(pathlib.Path(tempfile.mkdtemp()) / "page.html")
    assert page.stat().st_size > 100_000
    result[name] = model.generate("the ", max_tokens=20, seed=1), model.score("The band plays a song.").total
revgen.architectures.neural.MIN_TORCH_TOKENS = 100  # PyTorch would read longer texts
model = revgen.load("rnn-char")
assert model.generate({LONG_TEXT!r}, max_tokens=2, temperature=0).startswith("The")
counts = revgen.create("kneser-ney-char", order=3)
counts.fit(["The band plays a song."] * 9, progress=False)
result["evaluation"] = model.evaluate([{LONG_TEXT!r}]).nats_per_char
print(json.dumps(result))
"""


def run_without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, in which PyTorch, Numba and ``transformers`` cannot be imported."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, *arguments], capture_output=True, check=False, text=True, env=environment
    )


def output_without_torch(code: str) -> str:
    """Return what code prints in a process without PyTorch."""
    result = run_without_torch(code)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_models_generate_score_evaluate_and_export_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    result = json.loads(output_without_torch(USE))

    for name in NAMES:
        model = revgen.load(name)
        text, total = result[name]
        assert text == model.generate("the ", max_tokens=20, seed=1)
        assert total == pytest.approx(model.score("The band plays a song.").total)
    monkeypatch.setattr("revgen.architectures.neural.MIN_TORCH_TOKENS", 100)
    expected = revgen.load("rnn-char").evaluate([LONG_TEXT]).nats_per_char
    assert result["evaluation"] == pytest.approx(expected, abs=1e-4)


def test_error_without_torch_says_how_to_install_it() -> None:
    output_without_torch("""
for code in (
    "revgen.create('gru-char').fit(['a text'] * 20)",
    "revgen.load('gru-char').fit(['a text'] * 20)",
    "revgen.load('gru-char').find_lr(['a text'] * 20)",
    "revgen.load('gru-char', device='cuda')",
    "revgen.load('gru-char').network",
    "revgen.to_transformers(revgen.load('gru-char'))",
    "revgen.CheckpointConfig",
    "importlib.import_module('revgen.interop.onnx')",
):
    try:
        eval(code)
    except revgen.MissingExtraError as error:
        assert "PyTorch, which is not installed: pip install torch" in str(error), code
    else:
        raise AssertionError(code)
""")


def test_command_without_torch_prints_one_line() -> None:
    result = run_without_torch(
        "from revgen.cli import main\nsys.exit(main(sys.argv[1:]))",
        "fit",
        "gru-char",
        __file__,
        "--out",
        "out",
    )

    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("revgen: this needs PyTorch")


def test_each_module_says_how_to_install_torch() -> None:
    output_without_torch("""
import importlib, pkgutil
for module in pkgutil.walk_packages(revgen.__path__, "revgen."):
    if module.name != "revgen.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name in ("numba", "llvmlite", "transformers"), module.name
        except revgen.MissingExtraError as error:
            assert "pip install torch" in str(error), module.name
""")


def test_other_packages_see_the_usual_error_for_a_missing_torch() -> None:
    output_without_torch("""
assert importlib.util.find_spec("torch") is None
try:
    import torch
except ModuleNotFoundError as error:
    assert error.name == "torch"
""")


def documented_packages(page: str) -> list[str]:
    """Return the packages in the commands for an installation for inference alone, in a page of docs/."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return " ".join(re.findall(r"^pip install --no-compile (?!--no-deps)(.+)$", text, re.MULTILINE)).split()


def test_documented_packages_are_the_dependencies_that_inference_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    dependencies = [re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]]  # type: ignore[index]

    assert sorted(documented_packages("installation.md")) == sorted(
        {*dependencies} - {"torch", "numba", "rich", "shtab"}
    )


@pytest.mark.slow
def test_an_installation_for_inference_alone_works_and_is_small(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    [wheel] = tmp_path.glob("*.whl")
    commands: list[list[str | Path]] = [
        ["-c", ROOT / "constraints.txt", *documented_packages("serving.md")],
        ["--no-deps", wheel],
    ]
    for arguments in commands:
        subprocess.run([scripts / "pip", "install", "--quiet", "--no-compile", *arguments], check=True)
    subprocess.run([scripts / "pip", "uninstall", "--quiet", "--yes", "hf-xet"], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)

    result = run(scripts / "python", "-c", f"import revgen\n{USE}")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["lstm-char"][0].startswith("the ")
    assert run(scripts / "revgen", "generate", "lstm-char", "--prompt", "the ").stdout.startswith("the ")
    assert "pip install torch" in run(scripts / "revgen", "fit", "gru-char", ROOT / "README.md", "--out", "out").stderr
    with subprocess.Popen(
        [scripts / "revgen", "serve", "rnn-char", "--port", "8793"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        assert any("running on" in line for line in server.stderr)
        body = json.dumps({"model": "rnn-char", "prompt": "the ", "max_tokens": 5}).encode()
        request = urllib.request.Request(
            "http://127.0.0.1:8793/v1/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            assert len(json.load(response)["choices"][0]["text"]) == 5
        server.terminate()
    size = installed_bytes(tmp_path / "venv")
    print(f"{size / 1e6:.1f} MB")
    assert size < 120e6


def installed_bytes(environment: Path) -> int:
    """Return the size of the packages in a virtual environment, without those that are in every new one."""
    [packages] = environment.glob("lib/python*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file()]
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
    return sum(path.stat().st_size for path in files if not path.relative_to(packages).parts[0].startswith(tools))
