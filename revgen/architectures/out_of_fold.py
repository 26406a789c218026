"""Predictions of training documents by counts of the other training documents.

The documents are divided into folds. The documents of a fold are predicted by a model that counted all other folds
(Stone 1974, *Cross-validatory choice and assessment of statistical predictions*; for training a second model on such
predictions: Wolpert 1992, *Stacked generalization*).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.logprob_file import LogprobFile
from revgen.errors import CorpusError
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax
from revgen.options import check_at_least
from revgen.sequences import iter_blocks
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 8
"""The default number of folds."""
PARTS_PER_FOLD = 4
"""A document longer than a fold divided by this number is cut into parts, which may belong to different folds."""
WARM_UP = 512
"""The number of tokens before a part that a model reads before it predicts the part."""
MIN_LOGPROB = -30.0
"""Smaller log-probabilities are replaced by this one, because exponents may be negative."""


class Part(NamedTuple):
    """A part of a document, mostly all of it, and a model that has not counted this part."""

    document: int
    """The index of the document."""
    start: int
    """The position of the part in its document."""
    ids: NDArray[Any]
    """The tokens of the part, after those that the model reads first."""
    warm_up: int
    """The number of tokens that the model reads first."""
    model: Any


def out_of_fold(
    model: LanguageModel,
    documents: Sequence[NDArray[Any]],
    tokenizer: Tokenizer,
    folds: int,
    seed: int,
    *,
    keep_networks: bool = False,
) -> Iterator[Part]:
    """Yield the parts of all documents of ids, fold by fold. ``seed`` divides them into folds.

    Raises OptionError for a model that does not count, or, with ``keep_networks``, uses it as it is. Raises CorpusError
    for a single short document.
    """
    check_at_least("folds", folds, 2)
    max_size = max(1, sum(map(len, documents)) // (folds * PARTS_PER_FOLD))
    spans = [
        (i, *np.array([part, part + 1]) * len(ids) // parts)
        for i, ids in enumerate(documents)
        for parts in [-(-len(ids) // max(max_size, WARM_UP))]
        for part in range(parts)
    ]
    if len(spans) < folds:
        raise CorpusError(f"the text is too short for {folds} folds: it has {len(spans)} documents, or parts of one")
    fold_of = np.random.default_rng(seed).permutation(len(spans)) % folds
    for fold in range(folds):
        counted = [_as_document(documents[i][start:end]) for i, start, end in _select(spans, fold_of != fold)]
        fold_model = model.recount(counted, tokenizer, keep_networks=keep_networks)
        for i, start, end in _select(spans, fold_of == fold):
            begin = max(0, start - WARM_UP)
            yield Part(i, int(start), documents[i][begin:end], int(start - begin), fold_model)


def whole_documents(model: LanguageModel, documents: Sequence[NDArray[Any]], first: int = 0) -> Iterator[Part]:
    """Yield documents as parts that a model predicts as it is. ``first`` is the index of the first document."""
    return (Part(i, 0, ids, 0, model) for i, ids in enumerate(documents, first))


def _select(spans: list[Any], mask: NDArray[np.bool_]) -> list[Any]:
    return [span for span, is_selected in zip(spans, mask, strict=True) if is_selected]


def _as_document(ids: NDArray[Any]) -> NDArray[Any]:
    """Return a part of a document with a start token."""
    return ids if ids[0] == Tokenizer.bos_id else np.concatenate([[Tokenizer.bos_id], ids]).astype(ids.dtype)


def read_logprobs(model: LanguageModel, ids: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Yield the log-probabilities of all tokens after each token of a document, (time, vocab), in blocks."""
    state = model.initial_state(1)
    for block in iter_blocks(ids[:, None].astype(np.int64)):
        logits, state = model.forward(block, state)
        yield bounded_logprobs(logits[:, 0]).astype(np.float32)


def write_logprobs(
    parts: Iterable[Part], documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, device: str
) -> Tensor:
    """Return the log-probabilities after each token of all documents, (tokens, vocab), in a temporary file.

    ``parts`` are the parts of the documents, in any order. Raises CorpusError if the file cannot be written.
    """
    import torch

    starts = np.cumsum([0, *map(len, documents)]).tolist()
    file = LogprobFile(starts[-1], len(tokenizer))
    for part in parts:
        row, warm_up = starts[part.document] + part.start, part.warm_up
        for logprobs in read_logprobs(part.model, part.ids):
            skipped, warm_up = min(warm_up, len(logprobs)), max(0, warm_up - len(logprobs))
            row = file.write(row, logprobs[skipped:])
    return torch.from_numpy(file.to_array()).to(device)


def bounded_logprobs(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the log-probabilities of logits, which are at least ``MIN_LOGPROB``."""
    bounded: NDArray[np.floating[Any]] = log_softmax(logits).clip(MIN_LOGPROB, None)
    return bounded
