"""Tests of the pages in docs/: their links lead somewhere, their code runs, and the reference is complete."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub

import revgen
from revgen.cli import build_parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")
SMALLER = {
    "context-mixing": {"reviews[:100], epochs=2": "reviews[:6], epochs=1", "reviews[150:]": "reviews[164:]"},
    "corpora": {
        'load("owner/name", split="train[:10000]", field="text")': 'load("reviews")',
        'info("owner/name")': 'info("reviews")',
    },
    "training": {
        'create("lstm-char")': 'create("lstm-char", hidden_size=8, num_layers=1)',
        "hidden_size=1024": "hidden_size=8, num_layers=1",
        "valid=0.1)": "valid=0.1, max_seconds=0.5, progress=False)",
        "valid=0.1, max_seconds=300)": "valid=0.1, max_seconds=0.5, progress=False)",
        "valid=0.1, token_budget=5_000_000)": "valid=0.1, token_budget=1_000, progress=False)",
        "epochs=20": "epochs=1",
        '"cuda"': '"cpu"',
        ', revgen.WandB(project="reviews")': "",
        "resume=True)": "resume=True, progress=False)",
    },
}
"""What is replaced in the code of a page, so that it runs in seconds, without a GPU and without an account."""
TESTED_ELSEWHERE = {
    "export": "tests/interop",
    "extending": "tests/test_readme.py",
    "generation": "tests/test_readme.py",
    "hub": "tests/hub",
    "pages": "tests/browser/test_gallery.py",
}
"""Pages whose code needs more than a few files, and the tests that run it."""


def text_of(page: Path) -> str:
    """Return the text of a page, or of the Markdown cells of a notebook, without code blocks."""
    text = page.read_text("utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def python_blocks(page: Path) -> list[str]:
    """Return the Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Return the commands of revgen in a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].partition(" > ")[0] for line in lines if line.startswith("revgen ")]


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_between_pages_and_files_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(text_of(page)):
        path, _, anchor = link.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.stem == "training" else [], id=page.name)
        for page in PAGES
        if page.parent == DOCS and python_blocks(page) and page.stem not in TESTED_ELSEWHERE
    ],
)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: list[str], hub: Hub
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("book.txt", "reviews.txt", "a.txt", "notes/b.txt", "corpus/c.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("\n\n".join(reviews[:6]), "utf-8")
    Path("b.csv").write_text('text\n"a text"\n', "utf-8")
    monkeypatch.setattr("sys.stdin", Path("a.txt").open(encoding="utf-8"))  # noqa: SIM115
    scope: dict[str, Any] = {"__name__": "page"}
    for block in python_blocks(page):
        shutil.rmtree("runs", ignore_errors=True)  # checkpoints of the block before
        code = block
        for old, new in SMALLER.get(page.stem, {}).items():
            code = code.replace(old, new)
        exec(compile(code, page.name, "exec"), scope)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_have_options_that_exist(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        Path("my-model.toml").write_text(block, "utf-8")
    parser, _ = build_parser()
    for command in commands(page):
        assert parser.parse_args(shlex.split(command)[1:]).command


def test_every_page_is_in_the_navigation() -> None:
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    names = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"hub-library-request.md"}

    assert sorted(name for name in names if f": {name}\n" not in site) == []


def test_every_public_name_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: revgen\.(\S+)", reference, re.MULTILINE))
    errors = {name for name in dir(revgen) if name in vars(revgen.errors)}

    assert "errors" in documented
    for name in set(dir(revgen)) - errors - {"__version__", "cells", "tokenizers", "compiler"}:
        assert name in documented, f"docs/reference has no entry for revgen.{name}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs_and_opens_in_colab(notebook: Path) -> None:
    content = json.loads(notebook.read_text("utf-8"))
    repository = re.search(
        r"^repo_url: https://github.com/(\S+)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    assert repository
    path = notebook.relative_to(ROOT).as_posix()

    assert f"https://colab.research.google.com/github/{repository[1]}/blob/main/{path}" in text_of(notebook)
    for cell in content["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")
