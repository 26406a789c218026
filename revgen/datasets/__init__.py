"""Corpora by name: the ones in the package, and data sets of the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

from revgen.arguments import validate_call
from revgen.corpus import Corpus, read
from revgen.datasets.info import DatasetInfo as DatasetInfo
from revgen.errors import OptionError, UnknownNameError
from revgen.hub_client import is_repository
from revgen.registry import unknown_name_message

_FOLDER = Path(__file__).parent
_DESCRIPTIONS = {
    "dinosaurs": ("names of dinosaurs and their relatives", "CC0-1.0"),
    "reviews": ("short reviews of fictional music, with artist, title and genre", "MIT"),
}
"""The description and the licence of each corpus in the package."""


@validate_call
def load(
    name: str,
    *,
    split: str = "train",
    subset: str | None = None,
    field: str = "text",
    revision: str | None = None,
    token: str | None = None,
    streaming: bool = False,
    progress: bool = True,
) -> Corpus:
    """Return a corpus by name, for ``fit`` or to iterate over its texts.

    ``"reviews"`` is 166 short reviews of fictional music (66,000 characters, written for this package, MIT licence).
    ``"dinosaurs"`` is 600 names of dinosaurs and their relatives, from the collection "corpora" by Darius Kazemi (CC0).
    A name like ``"owner/name"`` is a data set of the Hub: the library ``datasets`` downloads it, and its licence is
    printed. Nothing in a data set is executed.

    Raises UnknownNameError for any other name, MissingExtraError without ``datasets``, and HubError for a data set that
    cannot be downloaded.

    Args:
        name: the name of a corpus in the package, or the repository of a data set.
        split: the part of a data set, as ``datasets`` names it: ``"train"``, ``"test"``, ``"train[:1%]"``.
        subset: the name of a configuration, for data sets that have several.
        field: the column with the text.
        revision: a branch, a tag or a commit; by default, the default branch.
        token: an access token; by default, the token from ``hf auth login`` or ``HF_TOKEN``.
        streaming: read the texts over the network whenever they are needed, instead of downloading all of them first.
        progress: print the licence, and show the progress of downloads.
    """
    if name in names():
        return read(path(name), field=field)
    _check_repository(name)
    from revgen.datasets.remote import load_remote

    return load_remote(name, split, subset, field, revision, token, streaming, progress)


@validate_call
def info(name: str, *, revision: str | None = None, token: str | None = None) -> DatasetInfo:
    """Return the size, the licence and the source of a corpus in the package, or of a data set of the Hub.

    Raises UnknownNameError for an unknown name, and HubError if the Hub cannot be reached.
    """
    if name in names():
        texts = list(load(name))
        description, licence = _DESCRIPTIONS.get(name, ("", None))
        size = path(name).stat().st_size
        return DatasetInfo(name, description, len(texts), sum(map(len, texts)), size, licence, "package")
    _check_repository(name)
    from revgen.datasets.remote import find_info

    return find_info(name, revision, token)


def names() -> list[str]:
    """Return the names of the corpora in the package, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.jsonl"))


def path(name: str) -> Path:
    """Return the path of a corpus: JSON lines with a ``text``; reviews also have ``artist``, ``title``, ``genre``."""
    return _FOLDER / f"{name}.jsonl"


def _check_repository(name: str) -> None:
    """Raise an error unless a name can be a repository of the Hub."""
    if name and os.path.exists(name):  # noqa: PTH110  Path.exists raises for a name that is too long
        raise OptionError(f"{name} is a file or a directory here: read it with revgen.read({name!r})")
    if not is_repository(name):
        message = unknown_name_message("data set", name, names())
        raise UnknownNameError(f"{message} The name of a data set on the Hub is owner/name")
