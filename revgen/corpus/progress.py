"""How far a large corpus is read, as a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from revgen.corpus.readers import Corpus

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], corpus: Corpus, what: str, progress: bool) -> Iterator[Item]:
    """The items, made from ``corpus``, as they are; meanwhile a bar says how much of the files is read, for ``what``.

    There is none for a small corpus, where ``progress`` is False, or where standard error is no terminal.
    """
    if not (progress and sys.stderr.isatty() and corpus.is_large):
        yield from items
        return
    from tqdm import tqdm

    with tqdm(total=corpus.size, desc=what, unit="B", unit_scale=True, leave=False, mininterval=0.3) as bar:
        for item in items:
            yield item
            bar.update(corpus.place - bar.n)
