"""The error for a missing PyTorch, which an installation for inference alone does not have.

Many modules import PyTorch. So the error is raised here, by the last import finder: Python asks it for what no other
finder has found.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from revgen.errors import MissingExtraError


class MissingTorchFinder:
    """An import finder that raises MissingExtraError when a module of revgen imports PyTorch."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torch" and importing_module().partition(".")[0] == "revgen":
            raise MissingExtraError(
                "this needs PyTorch, which is not installed: pip install torch (training, GPUs, and cells that are "
                "modules of PyTorch need it)"
            )


def importing_module() -> str:
    """Return the name of the module that called the import system, which called the caller."""
    frame = sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(IMPORT_SYSTEM):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


IMPORT_SYSTEM = ("importlib._bootstrap", "_frozen_importlib")


def install() -> None:
    """Add the finder after all others."""
    if MissingTorchFinder not in sys.meta_path:
        sys.meta_path.append(MissingTorchFinder)
