"""Token ids on disk: a corpus of any size as one memory-mapped stream with its documents' borders."""

from __future__ import annotations

import array
import tempfile
from collections.abc import Iterator, Sequence
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

    Document i of this part of the corpus lies from ``spans[i, 0]`` to ``spans[i, 1]``, (documents, 2). Where documents
    have labels, an id is that of the token plus ``shift(label)``, and ``vocab`` is the size of the vocabulary.
    """

    ids: NDArray[np.unsignedinteger[Any]]
    spans: NDArray[np.int64]
    vocab: int | None = None

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
            return self._part(np.stack([starts, borders], 1)), self._part(np.stack([borders, ends], 1))
        order = np.random.default_rng(seed).permutation(len(self.spans))
        sizes = np.cumsum((ends - starts)[order])
        count = max(int(np.searchsorted(sizes, len(self) * share)), 1)
        return self._part(self.spans[np.sort(order[count:])]), self._part(self.spans[np.sort(order[:count])])

    def _part(self, spans: NDArray[np.int64]) -> Tokens:
        return Tokens(self.ids, spans, self.vocab)


def shift(label: str | None, labels: Sequence[str], vocab: int) -> int:
    """What a label adds to the ids of its text: a token with the n-th label, from 1 on, has the id token + n * vocab.

    So every token carries its label wherever the text is cut; ``divmod(id, vocab)`` tells both. Raises OptionError.
    """
    if label is None:
        return 0
    if label not in labels:
        raise OptionError(f"label must be one that was learnt ({', '.join(labels) or 'none was'}), not {label!r}")
    return (1 + labels.index(label)) * vocab


def tokenize(corpus: Corpus, tokenizer: Tokenizer, labels: Sequence[str] = ()) -> Tokens:
    """Encode a corpus block by block into a temporary file that is gone with the process.

    Without ``labels``, those of the corpus do not matter. Raises CorpusError where there is no text in it.
    """
    borders = array.array("q", [0])
    size = 0
    dtype: type[np.unsignedinteger[Any]] = np.uint32 if labels else tokenizer.dtype
    marks = np.array([tokenizer.start, tokenizer.end], tokenizer.dtype)
    with tempfile.TemporaryFile() as file:
        begins = True
        for text, last in corpus.blocks():
            ids = np.concatenate([marks[: int(begins)], tokenizer.encode(text), marks[1 : 1 + int(last)]])
            if labels:
                ids = ids + dtype(shift(corpus.label, labels, len(tokenizer)))
            file.write(ids.tobytes())
            size += len(ids)
            begins = last
            if last:
                borders.append(size)
        if not size:
            raise CorpusError("the corpus is empty: no text in it")
        file.flush()
        ids = np.memmap(file, dtype, "r", shape=(size,))
    spans = np.stack([borders[:-1], borders[1:]], 1)
    return Tokens(ids, spans, len(tokenizer) if labels else None)


def tokenize_parts(
    texts: Corpus, valid: Corpus | float | None, tokenizer: Tokenizer, seed: int, labels: Sequence[str] = ()
) -> tuple[Tokens, Tokens | None]:
    """What to train on and what to validate on: another corpus, or a share of ``texts`` that is held out."""
    if isinstance(valid, int | float) and not 0 <= valid < 1:
        raise OptionError(f"valid must be text, or a share in 0 ≤ valid < 1, not {valid!r}")
    tokens = tokenize(texts, tokenizer, labels)
    if isinstance(valid, Corpus):
        return tokens, tokenize(valid, tokenizer, labels)
    return tokens.split(valid, seed) if valid else (tokens, None)
