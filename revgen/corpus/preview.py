"""A corpus as HTML, for notebooks: where its texts come from, and how the first documents begin."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from revgen.corpus.text import Block
from revgen.display.formatting import format_size
from revgen.display.html_tables import html_block, html_facts, html_quote, to_html
from revgen.errors import CorpusError

NUM_BLOCKS, NUM_CHARACTERS = 3, 200
"""At most this many blocks are read, and this many characters of each document are shown."""


def preview_html(sources: str, size: int, labels: Any, blocks: Iterable[Block]) -> str:
    """Return the sources of a corpus, its size in bytes and the beginning of its first documents as one HTML element.

    An error in a file is shown instead of its text.
    """
    facts = {"texts": sources or "in memory"}
    if size:
        facts["size"] = format_size(size)
    if labels is not None:
        facts["labels"] = labels if isinstance(labels, str) else "one for each text"
    quotes, is_start = [], True
    try:
        for text, is_last in islice(blocks, NUM_BLOCKS):
            if is_start:
                beginning = text[:NUM_CHARACTERS]
                quotes.append(html_quote(beginning if is_last and beginning == text else f"{beginning}…"))
            is_start = is_last
    except CorpusError as error:
        quotes.append(f"<p>{to_html(error)}</p>")
    return html_block(html_facts(facts), *quotes)
