"""The neural cache: words that followed a similar state of the network in the document so far become more likely.

    p(w) = (1 - λ) p_network(w) + λ p_cache(w),   p_cache(w) ∝ Σ_(i < t) [w_(i+1) = w] exp(θ h_t · h_i)

h_i is the feature vector of the network after token i, divided by its norm. θ decides how similar two states must be.
The vectors need no training, so any network can have a cache. Unlike a cache of n-grams, it does not need the same
tokens before: it is better for words than for characters.
(Grave, Joulin & Usunier 2017, *Improving neural language models with a continuous cache*.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.wrapper import Wrapper, WrapperConfig
from revgen.language_model import LanguageModel
from revgen.model import Model
from revgen.ops import log_softmax
from revgen.options import as_float, check, check_fractions, is_int
from revgen.registry import register_model
from revgen.sequences import Adaptation, align_ends, score_sequences, slices

BLOCK_SIZE = 64
"""The number of tokens of each document that are compared with the memory at once."""


@dataclass(frozen=True)
class NeuralCacheConfig(WrapperConfig):
    """The wrapped network and the settings of the cache.

    ``weight`` is λ, ``sharpness`` is θ, and the cache remembers the last ``window`` tokens of the document.
    """

    weight: float = 0.1
    sharpness: float = 15.0
    window: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "weight")
        is_number = 0 <= as_float(self.sharpness) <= 1000
        check("sharpness", self.sharpness, is_number, "a number from 0 to 1,000")
        check("window", self.window, is_int(self.window, 1), "a whole number")


class Memory(NamedTuple):
    """The normalized features after each token of a batch of documents, and the tokens that followed.

    ``features`` are (batch, time, features), and ``tokens`` (batch, time). A token is -1 if it is not known yet, and
    before the beginning of a document that is shorter than others.
    """

    features: NDArray[np.float32]
    tokens: NDArray[np.int64]


@register_model("neural-cache")
class NeuralCache(Wrapper):
    """A cache of the features of a network (Grave et al. 2017); ``model.adaptive(cache="neural")`` creates one.

    p(w) = (1 - λ) p_network(w) + λ p_cache(w),   p_cache(w) ∝ Σ_(i < t) [w_(i+1) = w] exp(θ h_t · h_i)
    """

    Config = NeuralCacheConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        check("the model", self.model.name, type(self.model).features is not Model.features, "a network")

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        return None  # the features of states with other weights cannot be compared

    @property
    def adaptation(self) -> Adaptation:
        return "document state"

    def initial_state(self, batch: int) -> Any:
        empty = Memory(np.empty((batch, 0, 0), np.float32), np.empty((batch, 0), np.int64))
        return self.model.initial_state(batch), empty

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        inner, memory = state
        features, _ = self.model.features(tokens, inner)
        logits, inner = self.model.forward(tokens, inner)
        p = np.exp(log_softmax(logits), dtype=np.float64)  # (time, batch, vocab)
        for block in slices(len(tokens), BLOCK_SIZE):
            memory, cached = self._look_up(memory, tokens[block] % len(self.tokenizer), features[block])
            has_cache = cached.any(-1, keepdims=True)
            p[block] += np.where(has_cache, self.config.weight, 0) * (cached - p[block])
        return np.log(p, dtype=np.float64).astype(logits.dtype), (inner, memory)

    def _look_up(
        self, memory: Memory, tokens: NDArray[Any], features: NDArray[np.floating[Any]]
    ) -> tuple[Memory, NDArray[np.float64]]:
        """Read tokens (time, batch) with their features; return the memory and p_cache, (time, batch, vocab).

        Where the document has no earlier token, p_cache is 0.
        """
        time, batch = tokens.shape
        vectors = features.swapaxes(0, 1).astype(np.float32)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
        known, followed = memory.features.reshape(batch, -1, vectors.shape[-1]), memory.tokens
        followed = np.concatenate([followed[:, :-1], tokens.T, np.full((batch, 1), -1)], 1)
        if not known.shape[1]:
            followed = followed[:, 1:]  # no features precede the first token
        known = np.concatenate([known, vectors], 1)
        age = known.shape[1] - time + np.arange(time)[:, None] - np.arange(known.shape[1])  # (time, known)
        is_usable = (age > 0) & (age <= self.config.window) & (followed[:, None] >= 0)
        scores = np.where(is_usable, np.exp(self.config.sharpness * (vectors @ known.swapaxes(1, 2) - 1)), 0)
        vocab = len(self.tokenizer)
        rows = (np.arange(time)[:, None] * batch + np.arange(batch)).T[..., None]  # (batch, time, 1)
        cells = rows * vocab + np.maximum(followed, 0)[:, None]
        sums = np.bincount(cells.ravel(), scores.ravel(), time * batch * vocab).reshape(time, batch, vocab)
        keep = slice(-self.config.window, None)
        return Memory(known[:, keep], followed[:, keep]), sums / np.maximum(sums.sum(-1, keepdims=True), 1e-300)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        return score_sequences(self.forward, self.initial_state, sequences, batch_size=1)

    def join_states(self, states: Sequence[Any]) -> Any:
        inner, memories = zip(*states, strict=True)
        features, tokens = zip(*memories, strict=True)
        return self.model.join_states(inner), Memory(align_ends(features), align_ends(tokens, fill=-1))
