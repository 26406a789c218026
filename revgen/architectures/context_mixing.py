"""Context mixing: many contexts predict each binary decision of a token, and a network learns which of them to trust.

A binary code for the tokens turns a token into a path of decisions. For each decision d, context i knows how often it
was followed by tokens on the left (n) and on the right (m), and a map turns these counts into a probability p_i:

    x_i = logit(p_i(n, m))                      one input for each context: orders 0 to 24, words, skipped tokens, …
    p_k = logistic(w_k,s(k) · x)                one mixer for each selector s(k), a small context that picks its weights
    p(d) = logistic(v_s · logit(p_1 … p_K))     the last mixer

    w_k,s(k) += η (d - p_k) x                   each mixer learns from each decision, while it reads
    p(d) = ½ p(d) + ¼ Σ a_c(p(d))               two maps a_c correct it, by the last tokens c

    p(token) = Π p(d) over the decisions on its path

PPM, Kneser-Ney and a cache are special cases: they weight the contexts by fixed rules. The probability of a token
sums to 1 because each decision does. The counts of a training document exclude the document itself, so the mixers learn
how far counts from other documents can be trusted. In a new document, the mixers continue to learn, and the contexts of
the document itself are counted separately. Both are part of the state, so no document affects another.

(Mahoney 2005, *Adaptive weighing of context models for lossless data compression*; Mattern 2013, *Linear and geometric
mixtures*; Veness et al. 2021, *Gated linear networks*; Knoll & de Freitas 2012, *A machine learning perspective on
predictive coding with PAQ8*.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.counting import measure_held_out, read_texts, record_texts, recounted
from revgen.arguments import validate_call
from revgen.context_mixing.parts import PARTS
from revgen.derived import derived
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.options import ReadOptions, check, check_at_least, check_tuple, is_int
from revgen.registry import register_model
from revgen.sequences import Adaptation, TokenReader
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.context_mixing.counting import Tables
    from revgen.context_mixing.predictor import Predictor


@dataclass(frozen=True)
class ContextMixingConfig:
    """Whether the model adapts to the document that it reads, and the size limit of the training text.

    Without ``adapt``, the mixers do not learn while they read, and the contexts of the document are not counted.
    ``without`` names contexts, other inputs and mixers that are not used, so that their effect can be measured:
    ``context_mixing.parts.PARTS`` lists them.
    ``max_bytes`` limits the size of the saved model: if the training text is too large, some documents are left out.
    """

    adapt: bool = True
    without: Sequence[str] = ()
    max_bytes: int = 13_000_000

    def __post_init__(self) -> None:
        check("adapt", self.adapt, isinstance(self.adapt, bool), "True or False")
        expected = f"a list of these names: {', '.join(PARTS)}"
        check_tuple(self, "without", lambda names: all(name in PARTS for name in names), expected)
        check("max_bytes", self.max_bytes, is_int(self.max_bytes, 1), "a whole number")


@register_model("cm")
class ContextMixingModel(LanguageModel):
    """Predictions of many contexts, combined by gated logistic mixers (Mahoney 2005; Veness et al. 2021).

    p(d) = logistic(v · logit(p_1 … p_K)),   p_k = logistic(w_k · logit(p_i of each context i))
    """

    Config = ContextMixingConfig

    @validate_call
    def fit(  # type: ignore[override]  # counting has only some of the options
        self,
        texts: Any,
        valid: Any = None,
        *,
        epochs: int = 3,
        labels: Any = None,
        seed: int = 0,
        extend_vocabulary: bool = False,
        progress: bool = True,
        index_texts: bool = False,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Count the contexts of texts, and train the mixers on them for a number of epochs. Earlier counts are lost.

        The model contains the training text. ``CountingModel.fit`` describes the other parameters.
        """
        from revgen.context_mixing.counting import count_contexts
        from revgen.context_mixing.mixing import initial_maps, initial_mixers, saved_arrays
        from revgen.context_mixing.training import prune_documents, train_mixers

        check_at_least("epochs", epochs, 1)
        start_time = time.perf_counter()
        corpus, tokenizer, train, held_out, summary, bar = read_texts(
            self,
            texts,
            valid,
            labels=labels,
            seed=seed,
            extend_vocabulary=extend_vocabulary,
            progress=progress,
            reading=reading,
        )
        text = prune_documents([*train.documents()], len(tokenizer), self.config.max_bytes)
        self.tokenizer, tables = tokenizer, count_contexts(text, tokenizer.vocabulary, self.is_used)
        mixers, maps = initial_mixers(), initial_maps()
        self.forget_index()
        history = History(settings={"tokens": len(text), "seed": seed, "epochs": epochs})
        try:
            run = train_mixers(tables, mixers, maps, epochs, self.config.adapt, seed, bar.on_step_end)
            for epoch, loss, rate in run:
                self.weights = {"text": text} | saved_arrays(mixers, maps)
                self._derived["predictor"] = self._make_predictor(tables)
                metrics = measure_held_out(self, held_out)
                seconds, sample = time.perf_counter() - start_time, self.generate("", max_tokens=80, seed=seed)
                speed = len(text) * epoch / seconds
                epoch_metrics = EpochMetrics(epoch, loss, rate, speed, seconds, **metrics, best=True, sample=sample)
                history.epochs.append(epoch_metrics)
                bar.on_epoch_end(epoch_metrics)
        finally:
            bar.close()
        record_texts(self, corpus, summary)
        self.metadata["training"] = history.settings | {"seconds": round(history.seconds, 2)}
        history.notes.extend(summary.hints)
        if index_texts:
            self.index_texts(corpus)
        return history

    @derived
    def predictor(self) -> Predictor:
        """The computation with the current weights. Counts the contexts of the training text."""
        return self._make_predictor()

    def _make_predictor(self, tables: Tables | None = None) -> Predictor:
        from revgen.context_mixing.predictor import Predictor

        return Predictor(self.weights, self.tokenizer.vocabulary, self.is_used, self.config.adapt, tables)

    @property
    def adaptation(self) -> Adaptation:
        return "adapted weights" if self.config.adapt else "fixed weights"

    @property
    def copies_training_text(self) -> bool:
        return True

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which of ``context_mixing.parts.PARTS`` the model uses, (parts,)."""
        return np.array([part not in self.config.without for part in PARTS])

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        from revgen.context_mixing.mixing import initial_maps, initial_mixers, saved_arrays

        return {name: array.shape for name, array in saved_arrays(initial_mixers(), initial_maps()).items()}

    def validate_weights(self, arrays: Weights) -> str | None:
        from revgen.context_mixing.counting import check_text

        if problem := check_text(arrays.get("text"), len(self.tokenizer)):
            return problem
        mixing = {name: array for name, array in arrays.items() if name != "text"}
        return super().validate_weights(mixing)

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        text = np.concatenate(documents).astype(self.weights["text"].dtype)
        return recounted(self, tokenizer, self.weights | {"text": text})

    def initial_state(self, batch: int) -> Any:
        return self.predictor.initial_state(batch)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        return self.predictor.read(tokens, state, len(tokens))

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logits, state = self.predictor.read(tokens, state, 1)
        return logits[0], state

    def join_states(self, states: Sequence[Any]) -> Any:
        from revgen.context_mixing.predictor import join_states

        return join_states(states)

    def token_reader(self, state: Any, num_tokens: int) -> TokenReader:
        from revgen.context_mixing.predictor import DocumentReader, copy_state

        return DocumentReader(self.predictor, copy_state(state, num_tokens))

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        return self.predictor.logprobs(sequences)
