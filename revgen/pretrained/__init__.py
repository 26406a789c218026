"""The pretrained models in the package: a model directory each, named ``<architecture>-<level>.<corpus>``."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
DEFAULT_CORPUS = "music"
"""The corpus of a name without one: ``lstm-char`` is ``lstm-char.music``."""


def names() -> list[str]:
    """Return the names of the models, with their corpora, sorted."""
    return sorted(path.parent.name for path in DIRECTORY.glob("*/config.json"))


def add_corpus(name: str) -> str:
    """Return the name of a pretrained model with its corpus."""
    return name if "." in name else f"{name}.{DEFAULT_CORPUS}"


def find(name: str) -> Path | None:
    """Return the directory of a model in the package, or None if the package does not have it."""
    return DIRECTORY / add_corpus(name) if add_corpus(name) in names() else None
