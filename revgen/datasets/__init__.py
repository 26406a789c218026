"""The corpora that ship in the package."""

from __future__ import annotations

from pathlib import Path

from revgen.arguments import validate_call
from revgen.corpus import Corpus, read
from revgen.errors import UnknownNameError
from revgen.registry import unknown_name_message

_HERE = Path(__file__).parent


@validate_call
def load(name: str) -> Corpus:
    """A corpus by its name: ``"reviews"``, 166 short reviews of music that does not exist (66,000 characters,
    written for this package, MIT). Iterate over it, or hand it to ``fit``."""
    if name not in names():
        raise UnknownNameError(unknown_name_message("data set", name, names()))
    return read(path(name))


def names() -> list[str]:
    """What ``load`` takes."""
    return sorted(file.stem for file in _HERE.glob("*.jsonl"))


def path(name: str) -> Path:
    """The file of a corpus; beside ``text`` its objects hold ``artist``, ``title`` and ``genre``."""
    return _HERE / f"{name}.jsonl"
