"""The rooms of the package: each imports only from rooms above it, and none needs PyTorch before its time."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import revgen

PACKAGE = Path(revgen.__file__).parent
ROOMS = (
    "version",
    "errors",
    "formatting",
    "deprecation",
    "options",
    "files",
    "tables",
    "svg_chart",
    "plots",
    "registry",
    "arguments",
    "schema",
    "ops",
    "tokenizers",
    "corpus",
    "cells",
    "history",
    "novelty",
    "sequences",
    "model",
    "card",
    "storage",
    "compiler",
    "generation",
    "hub",
    "language_model",
    "evaluation",
    "ngrams",
    "networks",
    "architectures",
    "training",
    "interop",
    "zoo",
    "comparison",
    "datasets",
    "testing",
    "cli",
)
OUTSIDE = ("__init__", "__main__")  # the face, which imports nothing before it is used, and the door
WEIGHTLESS = (
    "architectures.neural",
    "networks.equation",
    "networks.compiled",
    "networks.stack",
    "architectures",
    "zoo",
    "datasets",
    "testing",
    "cli",
    *OUTSIDE,
)
"""Below the line, and yet without PyTorch at module level, as text is generated without it."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """``networks.stack`` for that file; a package's own file has the package's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imported_on_loading(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of what a file imports when it is loaded: not within functions, not for type checkers."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: write the module's whole name"
            if node.module == "revgen":  # `from revgen import ops` is a room, `from revgen import __version__` is none
                yield from ((node.lineno, f"revgen.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)
        pending += ast.iter_child_nodes(node)


def room(module: str) -> str:
    """The room that a module of the package lies in: ``networks`` for ``revgen.networks.stack``."""
    return module.removeprefix("revgen.").partition(".")[0]


def needs_no_torch(module: str) -> bool:
    """Whether a module is promised to load without PyTorch."""
    above = room(module) in ROOMS[: ROOMS.index("networks")]
    return above or any(module == name or module.startswith(f"{name}.") for name in WEIGHTLESS)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_room_imports_from_the_rooms_above_it_only(path: Path) -> None:
    own = room(module_name(path))
    if own in OUTSIDE:
        return
    assert own in ROOMS, f"{own} has no place among the rooms: give it one"
    allowed = ROOMS[: ROOMS.index(own) + 1]

    below = [
        f"line {line}: {module}"
        for line, module in imported_on_loading(path)
        if module.startswith("revgen.") and room(module) not in allowed
    ]

    assert not below, f"{module_name(path)} imports from below itself: {below}"


@pytest.mark.parametrize("path", [path for path in FILES if needs_no_torch(module_name(path))], ids=module_name)
def test_what_generation_needs_does_not_name_torch_at_module_level(path: Path) -> None:
    modules = [module.partition(".")[0] for _, module in imported_on_loading(path)]

    assert "torch" not in modules


def test_what_generation_needs_loads_without_torch() -> None:
    modules = [f"revgen.{name}" for name in map(module_name, FILES) if needs_no_torch(name) and name not in OUTSIDE]
    code = (
        f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )

    assert done.returncode == 0, done.stderr
