"""N-gram heads: a recurrent network that looks up what followed the last tokens where they occurred before.

    x_t = E[token_t] + Σ_n E_n[token_(s+1)]

For each length n, s < t is the last position in the document, at most 1,024 tokens back, at which the n tokens up to s
are the n tokens up to t. If there is none, E_n has a row for that. A recurrent state stores little of a long text
verbatim, so the network alone must remember how a name is spelled that it read ten sentences earlier. A head finds the
name, and the network learns how far to trust the heads of each length.

(Akyürek et al. 2024, *In-context language learning: architectures and algorithms*, where a head attends to all earlier
occurrences; the last occurrence alone is the match model of Mahoney 2005.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.networks.functional import Backend
from revgen.networks.stack import Stack
from revgen.ops import Array
from revgen.tokenizers import Tokenizer

CONTEXT = 1024
"""The number of positions before a token at which an earlier occurrence may end."""
BLOCK_SIZE = 128
"""The number of tokens for which n-grams are looked up at once, which limits the memory."""


class NgramStack(Stack):
    """Layers with n-gram heads, which look up what followed the last tokens where they occurred before in the document.

    x = E[token] + heads.0.embedding[f_0] + heads.1.embedding[f_1] + …

    f_i is 1 plus the id of the token after the last earlier occurrence of the last ``ngram_heads[i]`` tokens, or 0 if
    they did not end at one of the 1,024 positions before in the document. The state is that of the cells and the last
    tokens, (batch, tokens): ids plus 1, or 0 before the first token.
    """

    @property
    def num_recent(self) -> int:
        """The number of tokens in the state: those of all n-grams that are looked up."""
        return CONTEXT + int(max(self.config.ngram_heads)) - 1

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        heads = range(len(self.config.ngram_heads))
        return super().param_shapes() | {f"heads.{i}.embedding": (1 + self.vocab, self.embedding_size) for i in heads}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        return np.zeros(shape) if name.startswith("heads.") else super().init_weight(name, shape, rng)

    def initial_state(self, batch: int, zeros: Callable[[tuple[int, ...]], Array]) -> Any:
        recent = zeros((batch, self.num_recent))
        return super().initial_state(batch, zeros), ops.type_as(recent, ops.arange(1, recent))  # integers

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        layers, recent = state
        text = ops.concatenate([recent, ops.type_as(tokens.swapaxes(0, 1), recent) + 1], 1)
        x = ops.embedding(p.embedding, tokens)
        for head, found in zip(p.heads, self.look_up(text), strict=True):
            x = x + ops.embedding(head.embedding, found)
        x, layers = self.run_blocks(p, backend.dropout(x, 0), layers, tokens, backend)
        return x, (layers, text[:, -self.num_recent :])

    def look_up(self, text: Array) -> list[Array]:
        """Return the token that each head finds, plus 1, or 0: text (batch, recent + time) -> (time, batch) each."""
        blocks = [
            following_tokens(
                text[:, begin : begin + self.num_recent + BLOCK_SIZE], self.config.ngram_heads, 1 + self.vocab
            )
            for begin in range(0, text.shape[1] - self.num_recent, BLOCK_SIZE)
        ]
        return [ops.concatenate(parts, 1).swapaxes(0, 1) for parts in zip(*blocks, strict=True)]

    def precompute(self, p: SimpleNamespace) -> None:
        """Do nothing: the first layer's input depends on the text, so there is no table with one row per token."""


def following_tokens(text: Array, lengths: Sequence[int], vocab: int) -> list[Array]:
    """Return the token after the last earlier occurrence of each n-gram: text (batch, tokens) -> (batch, time) each.

    There are no results for the first ``CONTEXT + max(lengths) - 1`` tokens. A result is 0 if the n-gram did not end at
    one of the ``CONTEXT`` positions before in its document. All numbers in the text are less than ``vocab``.
    """
    longest, size = max(lengths), text.shape[1]
    time = size - (CONTEXT + longest - 1)
    order = ops.arange(size, text)
    ends, earlier_ends = order[size - time :, None], order[longest - 1 : -1]
    documents = (text == 1 + Tokenizer.bos_id).cumsum(1)
    is_same = documents[:, size - time :, None] == documents[:, None, longest - 1 : -1]
    is_same = is_same & (earlier_ends < ends) & (earlier_ends >= ends - CONTEXT)
    equal = text[:, size - time - longest + 1 :, None] == text[:, None]
    following = (earlier_ends * vocab + text[:, longest:])[:, None]  # the largest has the last position
    found = []
    for n in range(1, longest + 1):  # (batch, time, earlier ends): whether the last n tokens are the same
        skipped = longest - n
        is_same = is_same & equal[:, skipped : skipped + time, skipped : size - n]
        if n in lengths:
            found.append(ops.amax(is_same * following)[..., 0] % vocab)
    return found
