"""Token ids on disk: a corpus of any size as one memory-mapped stream with its documents' borders."""

from __future__ import annotations

import array
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus.readers import Corpus
from revgen.errors import CorpusError, OptionError
from revgen.tokenizers import Tokenizer


@dataclass(frozen=True)
class Tokens:
    """Documents as ids: ``<s> … </s>`` one behind the other in ``ids``, (tokens,).

    Document i of this part of the corpus lies from ``spans[i, 0]`` to ``spans[i, 1]``, (documents, 2).
    """

    ids: NDArray[np.unsignedinteger[Any]]
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of tokens."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def documents(self) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """The ids of each document."""
        for start, end in self.spans:
            yield self.ids[start:end]

    def split(self, share: float, seed: int) -> tuple[Tokens, Tokens]:
        """Hold out about this share of the tokens: whole documents drawn by chance, or where there are
        fewer than 20, or one is longer than that, the end of each."""
        starts, ends = self.spans.T
        if len(self.spans) < 20 or (ends - starts).max() > len(self) * share:
            borders = ends - np.maximum(((ends - starts) * share).astype(np.int64), 2)
            return Tokens(self.ids, np.stack([starts, borders], 1)), Tokens(self.ids, np.stack([borders, ends], 1))
        order = np.random.default_rng(seed).permutation(len(self.spans))
        sizes = np.cumsum((ends - starts)[order])
        count = max(int(np.searchsorted(sizes, len(self) * share)), 1)
        return Tokens(self.ids, self.spans[np.sort(order[count:])]), Tokens(
            self.ids, self.spans[np.sort(order[:count])]
        )


def tokenize(corpus: Corpus, tokenizer: Tokenizer) -> Tokens:
    """Encode a corpus block by block into a temporary file that is gone with the process.

    Raises CorpusError where there is no text in it.
    """
    borders = array.array("q", [0])
    size = 0
    start = np.array([tokenizer.start], tokenizer.dtype).tobytes()
    end = np.array([tokenizer.end], tokenizer.dtype).tobytes()
    with tempfile.TemporaryFile() as file:
        begins = True
        for text, last in corpus.blocks():
            ids = tokenizer.encode(text)
            file.write(start * begins + ids.tobytes() + end * last)
            size += len(ids) + begins + last
            begins = last
            if last:
                borders.append(size)
        if not size:
            raise CorpusError("the corpus is empty: no text in it")
        file.flush()
        ids = np.memmap(file, tokenizer.dtype, "r", shape=(size,))
    marks = np.array(borders, np.int64)
    return Tokens(ids, np.stack([marks[:-1], marks[1:]], 1))


def tokenize_parts(
    texts: Corpus, valid: Corpus | float | None, tokenizer: Tokenizer, seed: int
) -> tuple[Tokens, Tokens | None]:
    """What to train on and what to validate on: another corpus, or a share of ``texts`` that is held out."""
    if isinstance(valid, int | float) and not 0 <= valid < 1:
        raise OptionError(f"valid must be text, or a share in 0 ≤ valid < 1, not {valid!r}")
    tokens = tokenize(texts, tokenizer)
    if isinstance(valid, Corpus):
        return tokens, tokenize(valid, tokenizer)
    return tokens.split(valid, seed) if valid else (tokens, None)
