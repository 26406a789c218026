"""Reading sequences of tokens in parts, with any function that computes logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.ops import log_softmax
from revgen.tokenizers import Tokenizer

Forward = Callable[[NDArray[Any], Any], tuple[NDArray[Any], Any]]
"""Token ids (time, batch) and a state -> logits (time, batch, vocab) and the next state."""

READ_BLOCK_SIZE = 4096
"""Tokens that a model reads at once when only the logits after the last token are needed."""
SCORE_BATCH_SIZE, SCORE_MIN_STEPS, SCORE_VALUES = 32, 16, 1 << 18
"""Sequences that are scored together, the fewest tokens of each at a time, and the number of logits that fit into the
processor's caches."""


def iter_blocks(tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield token ids (time, batch) in consecutive parts of about ``READ_BLOCK_SIZE`` tokens."""
    step = max(1, READ_BLOCK_SIZE // tokens.shape[1])
    for begin in range(0, len(tokens), step):
        yield tokens[begin : begin + step]


def score_sequences(
    forward: Forward, initial_state: Callable[[int], Any], sequences: list[NDArray[Any]]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield ``(index, logprobs)`` for each sequence of ids; ``logprobs`` has one entry per token after the first.

    Sequences of similar length are scored together, in batches.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), SCORE_BATCH_SIZE):
        batch = order[first : first + SCORE_BATCH_SIZE]
        longest = len(sequences[batch[-1]])
        ids = np.full((longest, len(batch)), Tokenizer.eos_id, np.int64)  # (time, batch), padded
        for row, i in enumerate(batch):
            ids[: len(sequences[i]), row] = sequences[i]
        inputs, targets = ids[:-1], ids[1:]
        logprobs = np.empty(targets.shape, np.float32)
        state = initial_state(len(batch))
        begin, step = 0, 1
        while begin < len(inputs):
            logits, state = forward(inputs[begin : begin + step], state)
            wanted = targets[begin : begin + step] % logits.shape[-1]  # without labels
            logprobs[begin : begin + step] = np.take_along_axis(log_softmax(logits), wanted[..., None], -1)[..., 0]
            begin += step
            step = max(SCORE_MIN_STEPS, SCORE_VALUES // (len(batch) * logits.shape[-1]))
        for row, i in enumerate(batch):
            yield i, logprobs[: len(sequences[i]) - 1, row]
