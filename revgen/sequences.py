"""How sequences of tokens are read: in blocks, token by token, or by compiled code; and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from revgen.ops import log_softmax
from revgen.tokenizers import Tokenizer

Forward = Callable[[NDArray[Any], Any], tuple[NDArray[Any], Any]]
"""Token ids (time, batch) and a state -> logits (time, batch, vocab) and the next state."""

READ_BLOCK_SIZE = 4096
"""The number of tokens that a model reads at once if only the logits after the last token are needed."""
SCORE_BATCH_SIZE = 32
"""The number of sequences that are scored together by default."""
SCORE_BLOCK_LOGITS = 1 << 18
"""The number of logits that are computed at once; they fit into the processor's caches."""
MIN_SCORE_STEPS = 16
"""The smallest number of time steps that are computed at once, whatever the size of the vocabulary."""

Adaptation = Literal["fixed weights", "document state", "adapted weights"]
"""How a model uses the document that it reads: it computes a state with fixed weights, remembers its text, or changes
its weights inside the document."""
ADAPTATIONS: tuple[Adaptation, ...] = get_args(Adaptation)
"""The least adaptive first."""


class TokenReader(Protocol):
    """One text that is read token by token, from a state on."""

    def read(self, token: int, /) -> NDArray[np.floating[Any]]:
        """Return the logits after one more token, (vocab,). Reading another token may overwrite them."""

    @property
    def state(self) -> Any:
        """The state after the last token. Reading another token may overwrite it."""


class ForwardReader:
    """A ``TokenReader`` that calls ``forward``."""

    def __init__(self, forward: Forward, state: Any) -> None:
        self.forward = forward
        self.state = state

    def read(self, token: int, /) -> NDArray[np.floating[Any]]:
        """Return the logits after one more token, (vocab,)."""
        logits, self.state = self.forward(np.array([[token]]), self.state)
        last: NDArray[np.floating[Any]] = logits[0, 0]
        return last


class SamplingRule(NamedTuple):
    """How the next token of one text is sampled from its logits."""

    temperature: float
    """0 takes the most likely token."""
    log_min_p: float
    """The logarithm of ``min_p``, or minus infinity."""
    biases: NDArray[Any]
    """The numbers that are added to the logits, (vocab,)."""
    end: int
    """The token after which no other is sampled."""
    label_offset: int
    """The number that is added to a token before it is read."""


class CompiledStep(Protocol):
    """Compiled code that generates one text at a time."""

    def step(self, token: int, state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Return the logits after one more token, (1, 1, vocab), and the next state."""

    def sample_tokens(
        self, token: int, state: Any, uniforms: NDArray[Any], rule: SamplingRule
    ) -> tuple[list[int], Any]:
        """Read ``token``, then sample one token for each number in [0, 1) in ``uniforms``, or fewer if the text ends.

        Returns the tokens and the next state.
        """


def slices(size: int, step: int) -> Iterator[slice]:
    """Yield consecutive parts of an axis, each ``step`` long, or 1 if ``step`` is 0."""
    step = max(1, step)
    return (slice(begin, begin + step) for begin in range(0, size, step))


def iter_blocks(tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield token ids (time, batch) in consecutive blocks of about ``READ_BLOCK_SIZE`` tokens."""
    return (tokens[block] for block in slices(len(tokens), READ_BLOCK_SIZE // tokens.shape[1]))


def align_ends(arrays: Sequence[NDArray[Any]], fill: int = 0) -> NDArray[Any]:
    """Join arrays (batch, time, …) to one batch in which all texts end at the same time, with ``fill`` before them."""
    time = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [
            np.pad(array, ((0, 0), (time - array.shape[1], 0), *[(0, 0)] * (array.ndim - 2)), constant_values=fill)
            for array in arrays
        ]
    )


def score_sequences(
    forward: Forward,
    initial_state: Callable[[int], Any],
    sequences: list[NDArray[Any]],
    batch_size: int = SCORE_BATCH_SIZE,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield ``(index, logprobs)`` for each sequence of ids; ``logprobs`` has one entry per token after the first.

    Sequences of similar length are scored together, in batches of ``batch_size``.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        max_length = len(sequences[batch[-1]])
        ids = np.full((max_length, len(batch)), Tokenizer.eos_id, np.int64)  # (time, batch), padded
        for row, i in enumerate(batch):
            ids[: len(sequences[i]), row] = sequences[i]
        inputs, targets = ids[:-1], ids[1:]
        logprobs = np.empty(targets.shape, np.float32)
        state = initial_state(len(batch))
        begin, steps = 0, 1  # the first block is one step, which shows the size of the vocabulary
        while begin < len(inputs):
            block = slice(begin, begin + steps)
            logits, state = forward(inputs[block], state)
            vocab = logits.shape[-1]
            tokens = targets[block] % vocab  # without labels
            logprobs[block] = np.take_along_axis(log_softmax(logits), tokens[..., None], -1)[..., 0]
            begin += steps
            steps = max(MIN_SCORE_STEPS, SCORE_BLOCK_LOGITS // (len(batch) * vocab))
        for row, i in enumerate(batch):
            yield i, logprobs[: len(sequences[i]) - 1, row]
