"""N-grams by maximum likelihood: what followed the last words in the text, in the shares in which it did.

    p(w | h) = count(h w) / count(h),   h the last order - 1 tokens

Nothing is smoothed: a word that never followed has probability 0, so a text with an unseen n-gram has perplexity
infinity, and a sample of high order copies the text. (Shannon 1948; the unsmoothed character model is Goldberg's
answer of 2015 to recurrent networks.)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import checked
from revgen.errors import OptionError
from revgen.language_model import LanguageModel
from revgen.model import Weights, derived
from revgen.ngrams import Counts, Estimate, Floats, Trie, count, text_loss, to_weights
from revgen.options import ReadOptions, as_float, check, is_int
from revgen.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from revgen.history import History
    from revgen.networks.compiled import CompiledNetwork

MAX_ORDER = 20
LARGEST_LOG = {"logp": 1e-2, "backoff": 50.0}
"""Above the logarithm of 1 by an error of rounding; a backoff can be more than 1 where n-grams were left out."""


@dataclass(frozen=True)
class NGramConfig:
    """``order`` counts the predicted token too; ``unseen`` says what a context that never stood in the text does:
    ``"back_off"`` to the longest shorter one that did, or ``"end"`` the document."""

    order: int = 6
    unseen: str = "back_off"

    def __post_init__(self) -> None:
        check_order(self.order)
        known = isinstance(self.unseen, str) and self.unseen in ("back_off", "end")
        check("unseen", self.unseen, known, '"back_off" or "end"')


@register_model("ngram")
class NGramModel(LanguageModel):
    """Counts of n-grams, unsmoothed (Shannon 1948)."""

    Config: ClassVar[type[Any]] = NGramConfig

    def estimate(self, orders: list[Counts]) -> Estimate:
        """From counts: the n-grams to keep, the probability of each, what each context leaves to the order below."""
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

    @checked
    def fit(  # type: ignore[override]  # counting takes some of the options
        self,
        texts: Any,
        valid: Any = None,
        *,
        labels: Any = None,
        seed: int = 0,
        extend_vocabulary: bool = False,
        progress: bool = True,
        index_texts: bool = False,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Count the n-grams of texts, and forget what was counted before.

        A tokenizer that is there stays; with ``extend_vocabulary`` it gets tokens for new characters and words.
        ``texts``, ``valid`` and the options of ``reading`` are what a neural model's ``fit`` takes. ``seed`` chooses
        the documents that a fraction ``valid`` holds out; ``index_texts`` keeps the texts with the model. The history
        has one epoch.
        """
        from revgen.corpus import Corpus, read
        from revgen.corpus.summary import summarize
        from revgen.corpus.tokens import tokenize_train_valid
        from revgen.evaluation.likelihood import measure
        from revgen.history import EpochMetrics, History
        from revgen.training.progress import Progress

        if labels is not None:
            raise OptionError(f"{self.name} cannot be conditioned on labels")
        began = time.perf_counter()
        corpus = read(texts, **reading)
        if not (valid is None or isinstance(valid, int | float)):
            valid = read(valid, **reading)
        tokenizer = self.tokenizer_for(corpus, extend_vocabulary, progress)
        train, held_out = tokenize_train_valid(corpus, valid, tokenizer, seed, progress=progress)
        summary = summarize(corpus, train, None if isinstance(valid, Corpus) else held_out, tokenizer)
        shown = Progress(progress)
        for line in filter(None, (str(summary), summary.note)):
            shown.say(line)
        orders = count(train.documents(), len(tokenizer), self.config.order)
        kept, probabilities, backoffs = self.estimate(orders)
        self._tokenizer, self.weights = tokenizer, to_weights(kept, probabilities, backoffs)
        seconds = time.perf_counter() - began
        self._index = self._read_index = None
        if index_texts:
            self.index_texts(corpus)

        figures: dict[str, Any] = {}
        if held_out is not None:
            evaluation = measure(self.logprobs, tokenizer, held_out.documents())
            figures = {name: getattr(evaluation, name) for name in ("nats_per_char", "bits_per_char", "perplexity")}
            self.metadata["evaluation"] = {name: figures[name] for name in ("nats_per_char", "bits_per_char")}
        self.metadata["spelled"] = round(summary.spelled, 6)
        sample = self.generate("", max_tokens=80, seed=seed)
        loss = (
            text_loss(orders, probabilities)
            if kept is orders
            else -float(np.concatenate(self.trie.logprobs([*train.documents()])).mean())
        )
        epoch = EpochMetrics(1, loss, 0.0, len(train) / seconds, seconds, **figures, best=True, sample=sample)
        notes = [summary.note] if summary.note else []
        history = History([epoch], settings={"tokens": len(train), "seed": seed}, notes=notes)
        self.metadata["training"] = history.settings | {"seconds": round(seconds, 2)}
        shown.on_epoch_end(epoch)
        shown.close()
        return history

    @derived
    def trie(self) -> Trie:
        """The n-grams as they are read."""
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

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"1.logp": (len(self.tokenizer),)}

    def validate_weights(self, arrays: Weights) -> str | None:
        return validate_trie(arrays, len(self.tokenizer), self.config.order)

    def initial_state(self, batch: int) -> Any:
        return np.zeros((batch, 3), np.int64)  # depth and place of the context, tokens read

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        time_steps, batch = tokens.shape
        trie, end = self.trie, self.tokenizer.eos_id
        logits = np.empty((time_steps, batch, trie.vocab), np.float32)
        state = state.copy()
        for row in range(batch):
            depth, place, read = state[row].tolist()
            for step, word in enumerate(tokens[:, row].tolist()):
                depth, place = trie.advance(depth, place, word)
                read += 1
                if self.ends_unseen and depth < min(read, trie.order - 1):
                    p = np.eye(trie.vocab)[end]
                else:
                    p = trie.distribution(depth, place)
                with np.errstate(divide="ignore"):
                    np.log(p, out=logits[step, row], casting="same_kind")
            state[row] = depth, place, read
        return logits, state

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        state = state.copy()
        for row, words in enumerate(tokens[:-1].T.tolist()):
            depth, place, read = state[row].tolist()
            for word in words:
                depth, place = self.trie.advance(depth, place, word)
            state[row] = depth, place, read + len(words)
        logits, state = self.forward(tokens[-1:], state)
        return logits[-1], state

    @property
    def ends_unseen(self) -> bool:
        """Whether a context that was never seen ends the document."""
        return getattr(self.config, "unseen", None) == "end"

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        if self.ends_unseen:
            return super().logprobs(sequences)
        return iter(enumerate(self.trie.logprobs(sequences)))


def check_order(order: object) -> None:
    """Raise OptionError for an order that there is not."""
    check("order", order, is_int(order, 1) and as_float(order) <= MAX_ORDER, f"a whole number from 1 to {MAX_ORDER}")


def validate_trie(arrays: Weights, vocab: int, order: int) -> str | None:
    """What is wrong with arrays that should be a trie's; None where they can be read without harm."""
    size, known = 1, set[str]()
    for n in range(1, order + 1):
        wanted = ["logp", "backoff", *(["begins", "words"] if n > 1 else []), *(["suffixes"] if 1 < n < order else [])]
        known |= {f"{n}.{kind}" for kind in wanted}
        for kind in wanted:
            if f"{n}.{kind}" not in arrays:
                return f"the array {n}.{kind} is missing"
            if arrays[f"{n}.{kind}"].dtype.kind != ("f" if kind in LARGEST_LOG else "u"):
                return f"the array {n}.{kind} is of the type {arrays[f'{n}.{kind}'].dtype}"
        found = {kind: arrays[f"{n}.{kind}"] for kind in wanted}
        count = vocab if n == 1 else len(found["words"])
        lengths = {"logp": count, "backoff": size, "begins": size + 1, "words": count, "suffixes": count}
        for kind, array in found.items():
            if array.shape != (lengths[kind],):
                return f"the array {n}.{kind} has the shape {array.shape}, not {(lengths[kind],)}"
            if kind in LARGEST_LOG and not (array <= LARGEST_LOG[kind]).all():
                return f"the array {n}.{kind} holds values that are no logarithms of probabilities"
        if n > 1:
            begins, words = found["begins"].astype(np.int64), found["words"]
            if begins[0] != 0 or begins[-1] != count or (np.diff(begins) < 0).any() or (words >= vocab).any():
                return f"the arrays {n}.begins and {n}.words do not belong together"
            if "suffixes" in found and (found["suffixes"] >= size).any():
                return f"the array {n}.suffixes points outside"
        size = count
    unknown = sorted(arrays.keys() - known)
    return f"the array {unknown[0]} belongs to no order of the {order}" if unknown else None
