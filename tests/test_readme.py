"""Tests that code, commands, tables and paths in the README and the documentation are correct."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub

import revgen
from revgen.cli import main
from revgen.registry import architectures, cells, filters
from revgen.testing import check_cell

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "revgen"


def code_blocks(path: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / path).read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: list[str], hub: Hub) -> Path:
    """The current directory, with the files that the README mentions, and a Hub."""
    monkeypatch.chdir(tmp_path)
    Path("reviews.txt").write_text("\n".join(reviews[:40]), "utf-8")
    Path("held_out.txt").write_text("\n".join(reviews[40:50]), "utf-8")
    Path("more.txt").write_text("\n".join(reviews[:20]), "utf-8")
    Path("names.txt").write_text("\n".join(list(revgen.datasets.load("dinosaurs"))[:60]), "utf-8")
    Path("my_cells.py").write_text(code_blocks("README.md", "python")[-1], "utf-8")
    return tmp_path


def test_the_python_code_in_the_readme_runs(folder: Path) -> None:
    scope: dict[str, object] = {}
    for block in code_blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), scope)
    assert cells.get("relu-rnn").__name__ == "ReluRNN"
    check_cell("relu-rnn")
    cells.unregister("relu-rnn")


def test_the_commands_in_the_readme_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line for block in code_blocks("README.md", "sh") for line in block.splitlines() if line.startswith("revgen ")
    ]
    assert len(lines) == 12
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    assert "the " in capsys.readouterr().out
    cells.unregister("relu-rnn")


def docstring_modules() -> list[str]:
    """Return the names of the modules with examples in docstrings."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text("utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("name", docstring_modules())
def test_the_examples_in_docstrings_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))

    assert results.attempted > 0 and results.failed == 0


def test_the_python_code_in_the_generation_page_runs() -> None:
    scope: dict[str, Any] = {}
    for block in code_blocks("docs/generation.md", "python"):
        exec(compile(block, "docs/generation.md", "exec"), scope)
    assert 0 <= scope["text"].copied.fraction <= 1


def test_the_python_code_in_the_extending_page_runs() -> None:
    scope: dict[str, object] = {}
    for block in code_blocks("docs/extending.md", "python"):
        exec(compile(block, "docs/extending.md", "exec"), scope)
    scope["test_leaky"]()  # type: ignore[operator]
    check_cell("leaky", scale=0.5)
    check_cell("torch-gru")
    for name in ("leaky", "torch-gru"):
        cells.unregister(name)
    filters.unregister("epsilon")
    for name in ("window", "unigram"):
        architectures.unregister(name)


def test_the_pages_about_pretrained_models_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "examples" / "pretrain_pages.py"))["updated_pages"]()

    assert len(pages) == 2
    for path, text in pages.items():
        assert path.read_text("utf-8") == text
        assert all(name in text for name in revgen.list_models(pretrained=True))


def test_the_table_of_generation_options_is_up_to_date() -> None:
    page = (ROOT / "docs" / "generation.md").read_text("utf-8")

    assert page == runpy.run_path(str(ROOT / "docs" / "options_table.py"))["with_table"](page)
    assert all(f"| `{option.name}` |" in page for option in dataclasses.fields(revgen.GenerationConfig))


def definitions(file: Path) -> set[str]:
    """Return the functions and classes of a file, and the methods as ``Class.method``."""
    names = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


def test_the_architecture_page_names_every_module_and_only_existing_functions() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for path in re.findall(r"`([\w/]+(?:\.py|/))`", page):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (`[^|]+) \|", page, re.MULTILINE)
    assert len(rows) > 20
    for path, names in rows:
        assert set(re.findall(r"`([\w.]+)`", names)) <= definitions(PACKAGE / path), path
    for path in PACKAGE.iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        if not name.startswith("__") and path.name != "py.typed":
            assert f"`{name}`" in page, f"docs/architecture.md does not mention {name}"


def test_ci_runs_the_test_command_in_the_readme() -> None:
    tests = next(block for block in code_blocks("README.md", "sh") if "pytest" in block)
    assert tests.strip() in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", ".github/workflows/tests.yml"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    paths = re.findall(r"(?<![\w/])(?:tests|revgen|docs|examples)/[\w/.-]*\w", (ROOT / page).read_text("utf-8"))

    assert paths
    assert all((ROOT / path).exists() for path in paths if "NAME" not in path), paths


def test_the_version_is_not_repeated_in_pyproject() -> None:
    assert revgen.__version__ not in (ROOT / "pyproject.toml").read_text("utf-8")
