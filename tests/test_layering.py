"""The layers of the package: every import points down, there are no cycles, and generation does not load PyTorch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import revgen

PACKAGE = Path(revgen.__file__).parent
LAYERS = (
    (
        "version",
        "errors",
        "missing_torch",
        "deprecation",
        "options",
        "files",
        "display",
        "registry",
        "arguments",
        "schema",
        "pending",
        "tensors",
    ),
    ("ops",),
    ("tokenizers",),
    ("corpus", "datasets", "hub_client", "pretrained"),
    ("cells",),
    ("history", "novelty", "compact_index"),
    ("derived", "sequences"),
    ("model",),
    ("card", "generation_file", "storage"),
    ("compiler",),
    ("context_mixing", "networks", "ngrams"),
    ("graphs",),
    ("generation",),
    ("html_card",),
    ("browser",),
    ("evaluation",),
    ("training",),
    ("hub", "space"),
    ("language_model",),
    ("architectures",),
    ("interop",),
    ("zoo",),
    ("comparison",),
    ("testing",),
    ("serve",),
    ("cli",),
)
"""From the bottom up. A file imports only from its own layer and the layers before it."""
TOP = ("__init__", "__main__")
NEEDS_TORCH = (
    "comparison",
    "interop.onnx",
    "interop.transformers",
    "interop.transformers_config",
    "interop.transformers_tokenizer",
    "networks.awd",
    "networks.distillation",
    "networks.dynamic",
    "networks.fused",
    "networks.module_cell",
    "networks.network",
    "networks.precision",
    "networks.reading",
    "networks.cuda_graphs",
    "networks.recurrent",
    "networks.residual",
    "testing",
    "training",
)
"""The modules that may import PyTorch (or ``transformers``) when they are loaded; all others must not."""

FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module) for every import of a file, within functions and for type checkers too."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{FILES[module]}, line {node.lineno}: write the absolute name of the module"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_module = submodule.removeprefix("revgen.") in FILES
                yield node.lineno, submodule if is_module else str(node.module)


def imports_within(module: str) -> list[tuple[int, str]]:
    """Return (line, module) for the imports of a file that are modules of the package, without its prefix."""
    return [(line, name.removeprefix("revgen.")) for line, name in imports(module) if name.startswith("revgen.")]


def layer(module: str) -> int:
    """Return the number of a module's layer, 0 for the lowest."""
    name = module.partition(".")[0]
    assert any(name in names for names in LAYERS), f"{name} is in no layer: add it to LAYERS"
    return next(i for i, names in enumerate(LAYERS) if name in names)


def may_load_torch(module: str) -> bool:
    """Return whether a module is in ``NEEDS_TORCH``, or in a package that is."""
    return any(module == name or module.startswith(f"{name}.") for name in NEEDS_TORCH)


@pytest.mark.parametrize("module", [name for name in FILES if name not in TOP])
def test_imports_point_down(module: str) -> None:
    upward = [f"line {line}: {name}" for line, name in imports_within(module) if layer(name) > layer(module)]

    assert not upward, f"{module} imports from a higher layer: {upward}"


def test_no_import_cycles() -> None:
    graph = {module: {name for _, name in imports_within(module) if name != module} for module in FILES}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_generation_does_not_load_torch() -> None:
    modules = [f"revgen.{name}" for name in FILES if not may_load_torch(name) and name not in TOP]
    run_python(
        f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'"
    )


def test_text_is_generated_without_loading_torch_or_numba() -> None:
    run_python(
        "import revgen, sys\nrevgen.load('lstm-char').generate('the ', max_tokens=600)\n"
        "assert not {'torch', 'numba'} & sys.modules.keys()"
    )


def run_python(code: str) -> None:
    """Run code in a new process, with this checkout of the package."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert result.returncode == 0, result.stderr
