"""N-grams by maximum likelihood: the relative frequency of each token after the last ``order - 1`` tokens.

    p(w | h) = count(h w) / count(h),   h the last order - 1 tokens

There is no smoothing: a token that never followed h has probability 0, so a text with an unseen n-gram has infinite
perplexity, and a model of high order copies its training text.
(Shannon 1948, *A mathematical theory of communication*; for characters: Goldberg 2015, *The unreasonable effectiveness
of character-level language models*.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.counting import CountingModel, recounted
from revgen.corpus.tokens import Tokens
from revgen.derived import derived
from revgen.model import Weights
from revgen.ngrams import Counts, Estimate, Floats, Trie, count, text_loss, to_weights
from revgen.options import as_float, check, is_int
from revgen.registry import register_model
from revgen.sequences import SCORE_BLOCK_LOGITS, slices
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from revgen.browser.network import BrowserNetwork
    from revgen.networks.compiled import CompiledNetwork

MAX_ORDER = 20
MIN_BLOCK = 32
"""The number of tokens of a text from which it is faster to look up all of them at once."""
MAX_LOG = {"logp": 1e-2, "backoff": 50.0}
"""The upper limits of the logarithms in a file. A probability is at most 1, apart from rounding; a backoff weight can
exceed 1 after pruning."""


@dataclass(frozen=True)
class NGramConfig:
    """The order of the n-grams, which includes the predicted token, and the treatment of unseen contexts.

    After an unseen context, the model uses the longest suffix that was seen if ``unseen`` is ``"back_off"``, and ends
    the document if it is ``"end"``.
    """

    order: int = 6
    unseen: str = "back_off"

    def __post_init__(self) -> None:
        check_order(self.order)
        is_valid = isinstance(self.unseen, str) and self.unseen in ("back_off", "end")
        check("unseen", self.unseen, is_valid, '"back_off" or "end"')


@register_model("ngram")
class NGramModel(CountingModel):
    """Unsmoothed counts of n-grams (Shannon 1948).

    p(w | h) = exp(n.logp)                                      if the n-gram h w is known
             = exp(n.backoff) p(w | h without its first word)   otherwise, with the backoff weight of h
    """

    Config: ClassVar[type[Any]] = NGramConfig

    def estimate(self, orders: list[Counts]) -> Estimate:
        """Return for each order the n-grams to keep, their probabilities, and the backoff weights of the contexts."""
        probabilities: list[Floats] = []
        backoffs: list[Floats] = []
        contexts = 1
        for counted in orders:
            totals = np.bincount(counted.contexts, counted.counts, contexts)
            with np.errstate(invalid="ignore", divide="ignore"):
                p = counted.counts / totals[counted.contexts]
            probabilities.append(np.nan_to_num(p))
            backoffs.append(np.where(totals > 0, 0.0, 1.0))
            contexts = len(counted.counts)
        return orders, probabilities, backoffs

    def count_texts(self, tokens: Tokens, tokenizer: Tokenizer) -> Callable[[], float]:
        orders = count(tokens.documents(), len(tokenizer), self.config.order)
        kept, probabilities, backoffs = self.estimate(orders)
        self.tokenizer, self.weights = tokenizer, to_weights(kept, probabilities, backoffs)

        def train_loss() -> float:
            if kept is orders:
                return text_loss(orders, probabilities)
            return -float(np.concatenate(self.trie.logprobs([*tokens.documents()])).mean())

        return train_loss

    @derived
    def trie(self) -> Trie:
        """The n-grams, ready to look up."""
        return Trie(self.weights)

    def build_compiled(self) -> CompiledNetwork:
        from revgen.networks.compiled import CompiledNetwork
        from revgen.networks.layouts import TrieNet

        trie = self.trie
        return CompiledNetwork(
            TrieNet(
                order=trie.order,
                begins=tuple(trie.begins),
                words=tuple(trie.words),
                suffixes=tuple(trie.suffixes),
                p=tuple(trie.p),
                backoff=tuple(trie.backoff),
                ends_unseen=self.ends_unseen,
                eos_id=self.tokenizer.eos_id,
            )
        )

    def browser_network(self) -> BrowserNetwork:
        from revgen.browser.network import network_of_trie

        return network_of_trie(self.weights, self.config.order, self.ends_unseen)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"1.logp": (len(self.tokenizer),)}

    def validate_weights(self, arrays: Weights) -> str | None:
        return validate_trie(arrays, len(self.tokenizer), self.config.order)

    def initial_state(self, batch: int) -> Any:
        return np.zeros((batch, 3), np.int64)  # depth and index of the context, number of tokens read

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        trie = self.trie
        logits = np.empty((*tokens.shape, trie.vocab), np.float32)
        contexts = self._read_contexts(tokens, state)
        for block in slices(len(tokens), SCORE_BLOCK_LOGITS // (tokens.shape[1] * trie.vocab)):
            depths, indices, num_read = np.moveaxis(contexts[block].reshape(-1, 3), -1, 0)
            p = trie.distributions(depths, indices)
            if self.ends_unseen:
                p[depths < np.minimum(num_read, trie.order - 1)] = np.eye(trie.vocab)[self.tokenizer.eos_id]
            with np.errstate(divide="ignore"):
                logits[block] = np.log(p).reshape(-1, tokens.shape[1], trie.vocab)
        return logits, contexts[-1].copy() if len(tokens) else state

    def _read_contexts(self, tokens: NDArray[Any], state: Any) -> NDArray[np.int64]:
        """Return the state after each token, (time, batch, 3)."""
        contexts = np.empty((*tokens.shape, 3), np.int64)
        contexts[..., 2] = state[:, 2] + 1 + np.arange(len(tokens))[:, None]
        for row, words in enumerate(tokens.T):
            depth, index, _ = state[row].tolist()
            if len(words) < MIN_BLOCK:
                for step, word in enumerate(words.tolist()):
                    depth, index = self.trie.advance(depth, index, word)
                    contexts[step, row, :2] = depth, index
            else:
                before = self.trie.context_words(depth, index)
                found = self.trie.contexts([np.concatenate([before, words]).astype(np.int64)])
                contexts[:, row, :2] = np.stack(found, 1)[len(before) :]
        return contexts

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        state = state.copy()
        for row, words in enumerate(tokens[:-1].T.tolist()):
            depth, index, num_read = state[row].tolist()
            for word in words:
                depth, index = self.trie.advance(depth, index, word)
            state[row] = depth, index, num_read + len(words)
        logits, state = self.forward(tokens[-1:], state)
        return logits[-1], state

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        orders = count(documents, len(tokenizer), self.config.order)
        return recounted(self, tokenizer, to_weights(*self.estimate(orders)))

    @property
    def copies_training_text(self) -> bool:
        return True

    @property
    def ends_unseen(self) -> bool:
        """True if an unseen context ends the document."""
        return getattr(self.config, "unseen", None) == "end"

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        if self.ends_unseen:
            return super().logprobs(sequences)
        return iter(enumerate(self.trie.logprobs(sequences)))


def check_order(order: object) -> None:
    """Raise OptionError for an order that is not from 1 to ``MAX_ORDER``."""
    check("order", order, is_int(order, 1) and as_float(order) <= MAX_ORDER, f"a whole number from 1 to {MAX_ORDER}")


def validate_trie(arrays: Weights, vocab: int, order: int) -> str | None:
    """Return a sentence that says why arrays are not a valid trie, or None if they are valid."""
    num_contexts, names = 1, set[str]()
    for n in range(1, order + 1):
        kinds = ["logp", "backoff", *(["begins", "words"] if n > 1 else []), *(["suffixes"] if 1 < n < order else [])]
        names |= {f"{n}.{kind}" for kind in kinds}
        for kind in kinds:
            if f"{n}.{kind}" not in arrays:
                return f"the array {n}.{kind} is missing"
            if arrays[f"{n}.{kind}"].dtype.kind != ("f" if kind in MAX_LOG else "u"):
                return f"the array {n}.{kind} has the type {arrays[f'{n}.{kind}'].dtype}"
        trie = {kind: arrays[f"{n}.{kind}"] for kind in kinds}
        count = vocab if n == 1 else len(trie["words"])
        lengths = {"begins": num_contexts + 1, "backoff": num_contexts}
        for kind, array in trie.items():
            shape = (lengths.get(kind, count),)
            if array.shape != shape:
                return f"the array {n}.{kind} has the shape {array.shape}, not {shape}"
            if kind in MAX_LOG and not (array <= MAX_LOG[kind]).all():
                return f"the array {n}.{kind} has values that are not logarithms of probabilities"
        if n > 1:
            begins, words = trie["begins"].astype(np.int64), trie["words"]
            if begins[0] != 0 or begins[-1] != count or (np.diff(begins) < 0).any() or (words >= vocab).any():
                return f"the arrays {n}.begins and {n}.words contradict each other"
            if "suffixes" in trie and (trie["suffixes"] >= num_contexts).any():
                return f"the array {n}.suffixes has an index out of range"
        num_contexts = count
    unknown = sorted(arrays.keys() - names)
    return f"the array {unknown[0]} belongs to none of the {order} orders" if unknown else None
