"""Data sets of the Hugging Face Hub, which the library ``datasets`` downloads to its own cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from revgen.corpus import Corpus, read
from revgen.datasets.info import DatasetInfo
from revgen.errors import HubError, MissingExtraError, OptionError, RevgenError, UnknownNameError
from revgen.hub_client import clean_token, convert_error, make_api

TIMEOUT = 10.0  # seconds
LOGIN = "if it is private or gated, log in with hf auth login, set HF_TOKEN or pass token=…"


def load_remote(
    name: str,
    split: str,
    subset: str | None,
    field: str,
    revision: str | None,
    token: str | None,
    streaming: bool,
    progress: bool,
) -> Corpus:
    """Download a data set and return its texts; ``datasets.load`` describes the parameters."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "data sets of the Hub need the package datasets: pip install 'revgen[datasets]'"
        ) from None
    from huggingface_hub import constants

    token = clean_token(token)
    if not constants.HF_HUB_OFFLINE:
        info = find_info(name, revision, token)  # fails at once if the Hub cannot be reached
        if progress:
            print(describe_licence(info), file=sys.stderr)
    shows_bars = not datasets.are_progress_bars_disabled()
    if not progress:
        datasets.disable_progress_bars()
    try:
        with convert_errors(name, token):
            table = datasets.load_dataset(
                name, subset, split=split, revision=revision, token=token, streaming=streaming
            )
    finally:
        if shows_bars:
            datasets.enable_progress_bars()
    return read(table, field=field)


def find_info(name: str, revision: str | None, token: str | None) -> DatasetInfo:
    """Ask the Hub for the licence and the size of a data set."""
    from huggingface_hub import constants

    api = make_api(token)
    with convert_errors(name, api.token if isinstance(api.token, str) else None):
        found = api.dataset_info(name, revision=revision, timeout=TIMEOUT, files_metadata=True)
    card: Any = found.card_data or {}
    licence = card.get("license")
    sizes = [file.size for file in found.siblings or () if file.size is not None]
    return DatasetInfo(
        name,
        str(card.get("pretty_name") or ""),
        size=sum(sizes) if sizes else None,
        licence=", ".join(map(str, licence)) if isinstance(licence, list) else str(licence) if licence else None,
        source=f"{constants.ENDPOINT}/datasets/{name}",
    )


def describe_licence(info: DatasetInfo) -> str:
    """Return a line with the licence of a data set and where its terms are."""
    licence = f"licence {info.licence}" if info.licence else "no licence is stated, so ask its authors"
    return f"{info.name}: {licence} ({info.source})"


@contextmanager
def convert_errors(name: str, token: str | None) -> Iterator[None]:
    """Convert any exception of the libraries to a RevgenError with a one-line message, which never has the token."""
    try:
        yield
    except RevgenError:
        raise
    except Exception as error:  # the libraries raise anything
        error_class, explanation = _explain(error)
        raise convert_error(error, error_class, f"{name}: {explanation}", token)  # noqa: B904


def _explain(error: Exception) -> tuple[type[RevgenError], str]:
    """Return the class of the error to raise, and its message."""
    kind = type(error).__name__
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"):
        return UnknownNameError, f"the Hub has no such data set, or it may not be read; {LOGIN}"
    if kind == "RevisionNotFoundError":
        return HubError, "the data set has no such revision"
    if isinstance(error, ValueError):  # an unknown split or subset
        return OptionError, str(error)[:300]
    return HubError, f"the data set could not be downloaded: {kind}: {str(error)[:300]}"
