"""Vectors of texts: what a network has made of a text when it predicts what follows, for texts to be compared by.

The features are those that the logits are computed from. Behind the last token they are the network's final view of the
text (Radford et al. 2017, *Learning to generate reviews and discovering sentiment*); their mean says more of all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen.options import check

if TYPE_CHECKING:
    from revgen.model import Model

ROWS, STEP = 32, 256
"""Texts side by side, and tokens of each at once."""

POOLS = ("mean", "last")


def embed(model: Model, texts: Sequence[str], pool: str = "mean") -> NDArray[np.float32]:
    """See ``LanguageModel.embed``."""
    several = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
    check("texts", texts, several, "a list of strings")
    check("pool", pool, pool in POOLS, " or ".join(map(repr, POOLS)))
    tokenizer = model.tokenizer
    sequences = [np.array([tokenizer.bos_id, *tokenizer.encode(text)]) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
    vectors: dict[int, NDArray[Any]] = {}
    for first in range(0, len(order), ROWS):
        some = order[first : first + ROWS]
        lengths = np.array([len(sequences[i]) for i in some])
        ids = np.full((lengths.max(), len(some)), tokenizer.eos_id)  # (time, batch), padded
        for row, i in enumerate(some):
            ids[: lengths[row], row] = sequences[i]
        times = np.arange(len(ids))[:, None]
        if pool == "last":
            weights = times == lengths - 1
        else:
            weights = (times < lengths) & ((times > 0) | (lengths == 1))  # the start where there is nothing else
        shares = (weights / weights.sum(0)).astype(np.float32)
        state: Any = model.initial_state(len(some))
        sums: Any = 0
        for begin in range(0, len(ids), STEP):
            features, state = model.features(ids[begin : begin + STEP], state)  # (time, batch, features)
            sums = sums + np.einsum("tb,tbf->bf", shares[begin : begin + STEP], features)
        vectors |= dict(zip(some, sums, strict=True))
    if not texts:
        return np.zeros((0, 0), np.float32)
    return np.stack([vectors[i] for i in range(len(texts))])


def similarity(model: Model, text: str, texts: Sequence[str], pool: str = "mean") -> NDArray[np.float32]:
    """See ``LanguageModel.similarity``."""
    check("text", text, isinstance(text, str), "a string")
    several = isinstance(texts, list | tuple)
    check("texts", texts, several, "a list of strings")
    one, *others = embed(model, [text, *texts], pool)
    if not others:
        return np.zeros(0, np.float32)
    lengths = np.linalg.norm(one) * np.linalg.norm(others, axis=1)
    cosines: NDArray[np.float32] = np.stack(others) @ one / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines
