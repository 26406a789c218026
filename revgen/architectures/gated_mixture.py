"""Gated mixtures: a mixture whose weights depend on how certain each model is.

    p(w | h) = (1 - g) p_×(w) + g Σ_i λ_i p_i(w),   p_×(w) ∝ Π_i p_i(w)^(v_i)
    v = 1/n + z V,   λ = softmax(z L),   g = logistic(z u),   z = tanh(x W + Σ_k E_k[w_-k])

A product of powers is sharp where the models agree, and a sum is safe where one of them is wrong: the gate blends both.
The features x of a position are the entropy and the largest log-probability of each model, and how much better than
the average it predicted the last tokens of the document. The last three tokens w_-k add a vector each. So an n-gram
model gets a large weight where it has seen a long context, and a network where it has not. The weights W, E, V, L and u
are fitted by gradient descent on text that none of the models was trained on, or, for models of counts, on the training
text, where each document is predicted by the counts of others.
(Jacobs, Jordan, Nowlan & Hinton 1991, *Adaptive mixtures of local experts*; the product: Hinton 2002, *Training
products of experts by minimizing contrastive divergence*.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.logprob_file import LogprobFile
from revgen.architectures.mixture import Mixture, MixtureConfig, check_array
from revgen.architectures.out_of_fold import Part, bounded_logprobs, out_of_fold
from revgen.architectures.wrapper import spec_of_fitted
from revgen.arguments import validate_call
from revgen.corpus import read
from revgen.corpus.tokens import tokenize
from revgen.errors import VocabularyError
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Model, Weights
from revgen.ops import log_softmax, softmax
from revgen.options import ReadOptions, as_float, check, check_at_least, is_int
from revgen.registry import register_model
from revgen.sequences import slices
from revgen.tokenizers import Tokenizer

ADVANTAGE_RATE = 0.05
"""The weight of the last token in the mean advantage of a model."""
NUM_LAST_TOKENS = 3
"""The number of tokens that the gate sees."""
MAX_FITTED = 1 << 31
"""The largest number of log-probabilities that are kept to fit the gate, in a file of 4 GiB."""
MAX_BLOCK = 1 << 22
"""The largest number of log-probabilities of all models that are computed at once."""
BATCH_SIZE = 256
FIRST_RATE, LAST_RATE = 1e-2, 5e-4
MIN_SCALE = 1e-3
"""What is added to the standard deviation of a feature, by which it is divided while the gate is fitted."""
BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.99), 1e-8, 0.1
HIDDEN, TOKENS, OUTPUT = "gate.hidden", "gate.tokens", "gate.output"


@dataclass(frozen=True)
class GatedMixtureConfig(MixtureConfig):
    """The models of a mixture, their exponents without a gate in ``shares``, and the number of units of the gate."""

    units: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check("units", self.units, is_int(self.units, 1) and as_float(self.units) <= 1024, "a whole number up to 1,024")


@register_model("gated-mixture")
class GatedMixture(Mixture):
    """A mixture with a gate (Jacobs et al. 1991; Hinton 2002); ``revgen.mix(…, gated=True)`` creates one.

    p(w | h) = (1 - g) p_×(w) + g Σ_i λ_i p_i(w)     with p_×(w) ∝ Π_i p_i(w)^(v_i)
    """

    Config = GatedMixtureConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate: Weights = {name: np.zeros(shape, np.float32) for name, shape in self.gate_shapes.items()}

    @property
    def gate_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights of the gate."""
        models, units = len(self.config.models), self.config.units
        return {
            HIDDEN: (3 * models, units),
            TOKENS: (NUM_LAST_TOKENS, len(self.tokenizer), units),
            OUTPUT: (units, 2 * models + 1),
        }

    @validate_call
    def fit(  # type: ignore[override]  # only the gate is fitted
        self,
        texts: Any,
        valid: Any = None,
        *,
        epochs: int = 20,
        folds: int | None = None,
        seed: int = 0,
        progress: bool = True,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Fit the gate to text that none of the models was trained on. The models do not change.

        With ``folds``, ``texts`` are the texts on which the models were fitted, which must be models of counts: the
        documents are divided into this many folds, and each is predicted by the counts of the other folds. ``texts``
        and ``reading`` are as in ``revgen.read``; ``valid`` is text to validate on.

        The log-probabilities of all models are kept in a temporary file while the gate is fitted: 2 bytes for each
        token of the text, each model and each token of the vocabulary. The file has at most 4 GiB: of a larger text,
        only some random documents are used. Raises CorpusError if the file cannot be written.
        """
        check_at_least("epochs", epochs, 1)
        start_time = time.perf_counter()
        documents = [*tokenize(read(texts, **reading), self.tokenizer).documents()]
        features, last, logprobs, targets = self._observe(documents, folds, seed)
        shapes, shares = self.gate_shapes, self.mixing_weights
        self.gate, nats = fit_gate(shapes, shares, features, last, logprobs, targets, epochs, seed)
        self._clear_caches()
        powers, weights, sum_weight = gate_values(self.gate, shares, features, last)
        names = [model.name for model in self.models]
        summaries = [
            ", ".join(f"{name} {mean:.3f}" for name, mean in zip(names, array.mean(0), strict=True))
            for array in (powers, weights)
        ]
        note = (
            f"mean exponents: {summaries[0]}; mean weights: {summaries[1]}; weight of the sum {sum_weight.mean():.3f}"
        )
        seconds = time.perf_counter() - start_time
        epoch = EpochMetrics(epochs, nats, LAST_RATE, len(targets) / seconds, seconds, best=True)
        return self._finish_fit(epoch, note, valid, reading, progress)

    def _observe(
        self, documents: list[NDArray[Any]], folds: int | None, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float16], NDArray[np.int64]]:
        """Return the features, last tokens, log-probabilities of the models, and next tokens of many positions."""
        if folds is None:
            order = np.random.default_rng(seed).permutation(len(documents)).tolist()
            parts: Iterator[Part] = (Part(i, 0, documents[i], 0, self) for i in order)
        else:
            parts = out_of_fold(self, documents, self.tokenizer, folds, seed)
        models, vocab = len(self.models), len(self.tokenizer)
        limit = min(sum(map(len, documents)), MAX_FITTED // (models * vocab) + 1)
        file, row = LogprobFile(limit, models, vocab), 0
        observed: list[tuple[NDArray[Any], ...]] = []
        for logprobs, *values in (values for part in parts for values in part.model._read_document(part)):
            row = file.write(row, logprobs[: limit - row])
            observed.append(tuple(values))
            if row == limit:  # the other folds need not be counted
                break
        features, last, targets = (np.concatenate(arrays)[:row] for arrays in zip(*observed, strict=True))
        return features, last, file.to_array(), targets

    def _read_document(self, part: Part) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield log-probabilities, features, last tokens and next tokens of a part of a document, in blocks."""
        state, ids = self.initial_state(1), part.ids.astype(np.int64)
        for block in self._blocks(len(ids) - 1, 1):
            logprobs, features, last, state = self._read(ids[:-1, None][block], state)
            first = max(0, part.warm_up - block.start)
            yield logprobs[first:, 0], features[first:, 0], last[first:, 0], ids[1:][block][first:]

    def _blocks(self, time: int, batch: int) -> Iterator[slice]:
        """Yield the parts of a text that are read at once, because all models' log-probabilities take much memory."""
        return slices(time, MAX_BLOCK // (batch * len(self.models) * len(self.tokenizer)))

    def _read(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], Any, Any]:
        """Return log-probabilities (time, batch, models, vocab), features (time, batch, features), the last tokens at
        each position (time, batch, last tokens), and the state."""
        states, before, previous, advantage = state
        results = [model.forward(tokens, part) for model, part in zip(self.models, states, strict=True)]
        logprobs = np.stack([bounded_logprobs(logits) for logits, _ in results], 2)
        earlier = np.concatenate([previous[None], logprobs[:-1]])
        of_tokens = np.take_along_axis(earlier, tokens[..., None, None], -1)[..., 0]  # (time, batch, models)
        advantages = np.empty_like(of_tokens)
        for t, gains in enumerate(of_tokens - of_tokens.mean(-1, keepdims=True)):
            advantage = advantage + np.float32(ADVANTAGE_RATE) * (gains - advantage)
            advantages[t] = advantage
        entropies = -(np.exp(logprobs) * logprobs).sum(-1)
        features = np.concatenate([entropies, logprobs.max(-1), advantages], -1)
        read = np.concatenate([before.T, tokens])
        last = np.stack([read[k : k + len(tokens)] for k in range(NUM_LAST_TOKENS)], -1)
        state = tuple(part for _, part in results), read[len(tokens) :].T, logprobs[-1], advantage
        return logprobs, features, last, state

    def initial_state(self, batch: int) -> Any:
        models = len(self.models)
        before = np.full((batch, NUM_LAST_TOKENS - 1), Tokenizer.bos_id)
        previous = np.zeros((batch, models, len(self.tokenizer)), np.float32)
        return super().initial_state(batch), before, previous, np.zeros((batch, models), np.float32)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logprobs, features, last, state = self._read(tokens, state)
        powers, weights, sum_weight = gate_values(self.gate, self.mixing_weights, features, last)
        product = log_softmax((powers[..., None] * logprobs).sum(-2))
        total = (weights[..., None] * np.exp(logprobs)).sum(-2)
        mixed: NDArray[np.floating[Any]] = np.log((1 - sum_weight) * np.exp(product) + sum_weight * total)
        return mixed, state

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        for block in self._blocks(*tokens.shape):
            logits, state = self.forward(tokens[block], state)
        return logits[-1], state

    def join_states(self, states: Sequence[Any]) -> Any:
        parts, *arrays = zip(*states, strict=True)
        return super().join_states(parts), *map(np.concatenate, arrays)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        return Model.logprobs(self, sequences)

    def browser_network(self) -> Any:
        return LanguageModel.browser_network(self)

    @property
    def weights(self) -> Weights:
        return super().weights | self.gate

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self.gate = {name: weights[name] for name in self.gate_shapes}
        Mixture.weights.fset(self, weights)  # type: ignore[attr-defined]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().weight_shapes() | self.gate_shapes

    def validate_weights(self, arrays: Weights) -> str | None:
        for name, shape in self.gate_shapes.items():
            if problem := check_array(arrays, name, shape):
                return problem
        return super().validate_weights(arrays)


@overload
def mix(
    models: Sequence[LanguageModel], weights: Sequence[float] | None = None, *, gated: Literal[True]
) -> GatedMixture: ...


@overload
def mix(models: Sequence[LanguageModel], weights: Sequence[float] | None = None, *, gated: bool = False) -> Mixture: ...


@validate_call
def mix(models: Sequence[LanguageModel], weights: Sequence[float] | None = None, *, gated: bool = False) -> Mixture:
    """Interpolate fitted models that share a tokenizer. Without ``weights``, all models have the same weight until
    ``fit`` is called.

    With ``gated``, the mixture is a ``GatedMixture``, whose weights depend on the text.

    Raises VocabularyError if the tokenizers differ, and OptionError if the weights do not sum to 1.
    """
    check("models", models, len(models) > 0, "a list of at least one model")
    first = models[0]
    for model in models:
        if model.tokenizer != first.tokenizer:
            raise VocabularyError(
                f"{first.name} and {model.name} have different tokenizers: create the second model with "
                f"revgen.create('{model.architecture}-{first.level}', tokenizer=models[0].tokenizer)"
            )
    specs = [spec_of_fitted(model) for model in models]
    shares = [1 / len(models)] * len(models) if weights is None else [float(weight) for weight in weights]
    name, mixture_class = ("gated-mixture", GatedMixture) if gated else ("mixture", Mixture)
    mixture = mixture_class(name, first.level, mixture_class.Config(specs, shares), first.tokenizer, models=models)
    mixture.metadata["spelled"] = min(as_float(model.metadata.get("spelled", 0)) for model in models)
    return mixture


def gate_values(
    gate: Weights, shares: NDArray[Any], features: NDArray[Any], last: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the exponents, the weights, (…, models) each, and the weight of the sum, (…, 1), from (…, features) and
    (…, last tokens)."""
    return _split_outputs(_hidden(gate, features, last) @ gate[OUTPUT], shares)


def _hidden(gate: Weights, features: NDArray[Any], last: NDArray[Any]) -> NDArray[Any]:
    hidden: NDArray[Any] = np.tanh(
        features @ gate[HIDDEN] + sum(vectors[last[..., k]] for k, vectors in enumerate(gate[TOKENS]))
    )
    return hidden


def _split_outputs(outputs: NDArray[Any], shares: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    models = len(shares)
    powers = outputs[..., :models] + shares.astype(np.float32)
    weights = softmax(outputs[..., models:-1])
    return powers, weights, 1 / (1 + np.exp(-outputs[..., -1:].clip(-30, 30)))


def fit_gate(
    shapes: Mapping[str, tuple[int, ...]],
    shares: NDArray[Any],
    features: NDArray[Any],
    last: NDArray[Any],
    logprobs: NDArray[Any],
    targets: NDArray[np.int64],
    epochs: int,
    seed: int,
) -> tuple[Weights, float]:
    """Return the gate that maximizes the likelihood of a text, and its nats per token in the last epoch.

    ``features`` are (tokens, features), ``last`` (tokens, last tokens), ``logprobs`` (tokens, models, vocab), and
    ``targets`` (tokens,). The optimizer is AdamW (Loshchilov & Hutter 2019).
    """
    rng, step, total = np.random.default_rng(seed), 0, 0.0
    gate, *moments = ({name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for _ in range(3))
    gate[HIDDEN] = rng.normal(0, 0.3, shapes[HIDDEN]).astype(np.float32)
    mean, scale = features.mean(0), features.std(0) + MIN_SCALE
    steps = epochs * -(-len(targets) // BATCH_SIZE)
    for _ in range(epochs):
        total = 0.0
        order = rng.permutation(len(targets))
        for begin in range(0, len(order), BATCH_SIZE):
            rows = order[begin : begin + BATCH_SIZE]
            x = (features[rows] - mean) / scale
            nats, gradients = gate_gradient(
                gate, shares, x, last[rows], logprobs[rows].astype(np.float32), targets[rows]
            )
            total += nats
            step += 1
            rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (step / steps)
            for name, gradient in gradients.items():
                average, square = (moment[name] for moment in moments)
                average += (1 - BETAS[0]) * (gradient - average)
                square += (1 - BETAS[1]) * (gradient**2 - square)
                corrected = average / (1 - BETAS[0] ** step)
                gate[name] *= 1 - rate * WEIGHT_DECAY
                gate[name] -= rate * corrected / (np.sqrt(square / (1 - BETAS[1] ** step)) + EPSILON)
    gate[HIDDEN] /= scale[:, None]
    gate[TOKENS][0] -= mean @ gate[HIDDEN]  # of the tokens in one place, each position has exactly one
    return gate, total / len(targets)


def gate_gradient(
    gate: Weights,
    shares: NDArray[Any],
    features: NDArray[Any],
    last: NDArray[Any],
    logprobs: NDArray[Any],
    targets: NDArray[np.int64],
) -> tuple[float, Weights]:
    """Return the loss of tokens in nats, and the gradient of its mean by each weight of the gate.

    Let r be the probability that the target came from the sum. The gradient by v_i is
    (1 - r) (E_×[log p_i] - log p_i(target)), by the logit of λ_i r (λ_i - λ_i p_i(target) / Σ_j λ_j p_j(target)), and
    by the logit of g it is g - r.
    """
    hidden = _hidden(gate, features, last)
    powers, weights, g = _split_outputs(hidden @ gate[OUTPUT], shares)
    product = log_softmax((powers[:, None] @ logprobs)[:, 0])
    index = targets[:, None]
    known = np.take_along_axis(logprobs, index[..., None], 2)[..., 0]  # (tokens, models)
    parts = weights * np.exp(known)
    in_sum = g * parts.sum(1, keepdims=True)
    p = (1 - g) * np.exp(np.take_along_axis(product, index, 1)) + in_sum
    r = in_sum / p
    expected = (logprobs @ np.exp(product)[..., None])[..., 0]
    by_weight = r * (weights - parts / parts.sum(1, keepdims=True))
    by_output = np.concatenate([(1 - r) * (expected - known), by_weight, g - r], 1) / len(targets)
    by_hidden = by_output @ gate[OUTPUT].T * (1 - hidden**2)
    by_token = np.zeros_like(gate[TOKENS])
    for k, ids in enumerate(last.T):
        np.add.at(by_token[k], ids, by_hidden)
    return -float(np.log(p).sum()), {HIDDEN: features.T @ by_hidden, TOKENS: by_token, OUTPUT: hidden.T @ by_output}
