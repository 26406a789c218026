"""The English of code and documentation: no word-by-word translations."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import revgen

ROOT = Path(revgen.__file__).parents[1]
WORDS = re.compile(
    r"\b(behind|stands|likeliest|held against|there is not a|that there is not|so many)\b", re.IGNORECASE
)
GENERATED = "> "
"""The beginning of the lines of generated texts in Markdown."""
OPENINGS = ("What ", "That of ", "Those of ", "Of ", "See ")
FILES = [
    path
    for pattern in ("revgen/**/*.py", "tests/**/*.py", "examples/**/*.py", "docs/*.md", "*.md")
    for path in sorted(ROOT.glob(pattern))
    if path != Path(__file__)
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_by_word_translations(path: Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith(GENERATED)]

    found = [f"{match[0]!r} in {line!r}" for line in lines for match in WORDS.finditer(line)]

    assert not found, f"use a plain word instead: {found}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_docstrings_open_with_a_verb_or_a_noun(path: Path) -> None:
    nodes = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]

    found = [text.splitlines()[0] for node in nodes if (text := ast.get_docstring(node) or "").startswith(OPENINGS)]

    assert not found, f"start with a verb: {found}"
