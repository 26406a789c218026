"""Embeddings: one vector for each text, for comparing texts.

A network computes its logits from a vector of features for each token. The features of the last token summarize the
text (Radford et al. 2017, *Learning to generate reviews and discovering sentiment*). The mean of the features over all
tokens represents the beginning of the text as well as its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.model import Model
from revgen.options import check

BATCH_SIZE, BLOCK_SIZE = 32, 256
"""The number of texts in a batch, and the number of tokens of each text that are read at a time."""

POOLS = ("mean", "last")


def embed(model: Model, texts: Sequence[str], pool: str = "mean") -> NDArray[np.float32]:
    """Return a vector for each text, (texts, features).

    ``pool`` is "mean" for the mean of the features over all tokens of a text, or "last" for the features of its last
    token. Raises OptionError for a model that is not a network.
    """
    is_list = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
    check("texts", texts, is_list, "a list of strings")
    check("pool", pool, pool in POOLS, " or ".join(map(repr, POOLS)))
    tokenizer = model.tokenizer
    sequences = [np.array([tokenizer.bos_id, *tokenizer.encode(text)]) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
    vectors: dict[int, NDArray[Any]] = {}
    for first in range(0, len(order), BATCH_SIZE):
        batch = order[first : first + BATCH_SIZE]
        lengths = np.array([len(sequences[i]) for i in batch])
        ids = np.full((lengths.max(), len(batch)), tokenizer.eos_id)  # (time, batch), padded
        for row, i in enumerate(batch):
            ids[: lengths[row], row] = sequences[i]
        weights = _pooling_weights(lengths, pool)
        state: Any = model.initial_state(len(batch))
        sums: Any = 0
        for begin in range(0, len(ids), BLOCK_SIZE):
            features, state = model.features(ids[begin : begin + BLOCK_SIZE], state)  # (time, batch, features)
            sums = sums + np.einsum("tb,tbf->bf", weights[begin : begin + BLOCK_SIZE], features)
        vectors |= dict(zip(batch, sums, strict=True))
    if not texts:
        return np.zeros((0, 0), np.float32)
    return np.stack([vectors[i] for i in range(len(texts))])


def _pooling_weights(lengths: NDArray[np.int_], pool: str) -> NDArray[np.float32]:
    """Return the weight of each token's features, (time, batch); the weights of a text sum to 1."""
    times = np.arange(lengths.max())[:, None]
    if pool == "last":
        is_used = times == lengths - 1
    else:
        is_used = (times < lengths) & ((times > 0) | (lengths == 1))  # the start token counts only in an empty text
    weights: NDArray[np.float32] = (is_used / is_used.sum(0)).astype(np.float32)
    return weights


def similarity(model: Model, text: str, texts: Sequence[str], pool: str = "mean") -> NDArray[np.float32]:
    """Return the cosine similarity between the vectors of a text and of each of ``texts``, (texts,)."""
    check("text", text, isinstance(text, str), "a string")
    check("texts", texts, isinstance(texts, list | tuple), "a list of strings")
    vector, *others = embed(model, [text, *texts], pool)
    if not others:
        return np.zeros(0, np.float32)
    lengths = np.linalg.norm(vector) * np.linalg.norm(others, axis=1)
    cosines: NDArray[np.float32] = np.stack(others) @ vector / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines
