"""A progress bar for reading a large corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from revgen.corpus.readers import Corpus
from revgen.display.progress import progress_bar

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], corpus: Corpus, description: str, progress: bool) -> Iterator[Item]:
    """Yield ``items``, which are made while ``corpus`` is read, and show how many bytes of its files have been read.

    The bar is shown only for a large corpus, if ``progress`` is True.
    """
    if not (progress and corpus.is_large):
        yield from items
        return
    with progress_bar(total=corpus.size, desc=description, unit="B", unit_scale=True, leave=False) as bar:
        for item in items:
            yield item
            bar.update(corpus.bytes_read - bar.n)
