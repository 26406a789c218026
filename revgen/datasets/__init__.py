"""The corpora in the package."""

from __future__ import annotations

from pathlib import Path

from revgen.arguments import validate_call
from revgen.corpus import Corpus, read
from revgen.errors import UnknownNameError
from revgen.registry import unknown_name_message

_FOLDER = Path(__file__).parent


@validate_call
def load(name: str) -> Corpus:
    """Return a corpus by name, for ``fit`` or to iterate over its texts.

    ``"reviews"`` is 166 short reviews of fictional music (66,000 characters, written for this package, MIT licence).
    ``"dinosaurs"`` is 600 names of dinosaurs and their relatives, from the collection "corpora" by Darius Kazemi (CC0).
    Raises UnknownNameError for any other name.
    """
    if name not in names():
        raise UnknownNameError(unknown_name_message("data set", name, names()))
    return read(path(name))


def names() -> list[str]:
    """Return the names of the corpora, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.jsonl"))


def path(name: str) -> Path:
    """Return the path of a corpus: JSON lines with a ``text``; reviews also have ``artist``, ``title``, ``genre``."""
    return _FOLDER / f"{name}.jsonl"
