"""Gated mixtures: a log-linear mixture whose weights depend on how certain each model is.

    p(w | h) ∝ Π_i p_i(w | h)^(v_i),   v = λ + tanh(x W) V

The features x of a position are the entropy and the largest log-probability of each model, how much better than the
average it predicted the last tokens of the document, and the class of the last character. So an n-gram model gets a
large weight where it has seen a long context, and a network where it has not. The weights W and V are fitted by
gradient descent on text that none of the models was trained on; before, the mixture is the geometric mean.
(Jacobs, Jordan, Nowlan & Hinton 1991, *Adaptive mixtures of local experts*; log-linear: Hinton 2002, *Training products
of experts by minimizing contrastive divergence*.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.mixture import Mixture, MixtureConfig, check_array
from revgen.architectures.out_of_fold import MIN_LOGPROB
from revgen.arguments import validate_call
from revgen.context_mixing.code_tree import PAUSE, token_classes
from revgen.corpus import read
from revgen.corpus.tokens import tokenize
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Model, Weights, derived
from revgen.ops import log_softmax
from revgen.options import ReadOptions, as_float, check, check_at_least, is_int
from revgen.registry import register_model

NUM_CLASSES = PAUSE + 1
ADVANTAGE_RATE = 0.05
"""The weight of the last token in the mean advantage of a model."""
MAX_FITTED = 1 << 28
"""The largest number of log-probabilities that are kept to fit the gate."""
MAX_BLOCK = 1 << 22
"""The largest number of log-probabilities of all models that are computed at once."""
BATCH_SIZE = 256
FIRST_RATE, LAST_RATE = 1e-2, 5e-4
BETAS, EPSILON = (0.9, 0.99), 1e-8
HIDDEN, OUTPUT = "gate.hidden", "gate.output"


@dataclass(frozen=True)
class GatedMixtureConfig(MixtureConfig):
    """The models of a mixture, their exponents without a gate in ``shares``, and the number of units of the gate."""

    units: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check("units", self.units, is_int(self.units, 1) and as_float(self.units) <= 1024, "a whole number up to 1,024")


@register_model("gated-mixture")
class GatedMixture(Mixture):
    """A log-linear mixture with a gate (Jacobs et al. 1991; Hinton 2002); ``revgen.mix(…, gated=True)`` creates one.

    p(w | h) ∝ Π_i p_i(w | h)^(v_i)     with v = λ + tanh(x W) V and the features x
    """

    Config = GatedMixtureConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        shapes = self.gate_shapes
        hidden = np.random.default_rng(0).normal(0, 0.3, shapes[HIDDEN]).astype(np.float32)
        self.gate: Weights = {HIDDEN: hidden, OUTPUT: np.zeros(shapes[OUTPUT], np.float32)}

    @property
    def gate_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights of the gate."""
        models, units = len(self.config.models), self.config.units
        return {HIDDEN: (3 * models + NUM_CLASSES, units), OUTPUT: (units, models)}

    @derived
    def _classes(self) -> NDArray[np.int64]:
        return token_classes(self.tokenizer.vocabulary)

    @validate_call
    def fit(  # type: ignore[override]  # only the gate is fitted
        self,
        texts: Any,
        valid: Any = None,
        *,
        epochs: int = 20,
        seed: int = 0,
        progress: bool = True,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Fit the gate to text that none of the models was trained on. The models do not change.

        ``texts`` and ``reading`` are as in ``revgen.read``; ``valid`` is text to validate on. The text after the first
        268 million log-probabilities is ignored.
        """
        check_at_least("epochs", epochs, 1)
        start_time = time.perf_counter()
        tokens = tokenize(read(texts, **reading), self.tokenizer)
        features, logprobs, targets = self._observe(np.asarray(ids) for ids in tokens.documents())
        gate, nats = fit_gate(self.gate, self.mixing_weights, features, logprobs, targets, epochs, seed)
        self.gate = gate
        self._clear_caches()
        seconds = time.perf_counter() - start_time
        metrics = {} if valid is None else self.evaluate(valid, **reading).metrics()
        epoch = EpochMetrics(epochs, nats, LAST_RATE, len(targets) / seconds, seconds, **metrics, best=True)
        mean = exponents(gate, self.mixing_weights, features).mean(0)
        summary = ", ".join(f"{m.name} {weight:.3f}" for m, weight in zip(self.models, mean, strict=True))
        history = History([epoch], notes=[f"mean exponents: {summary}"])
        if progress:
            from revgen.training.progress import Progress

            Progress(shown=True).say(history.notes[0])
        return history

    def _observe(self, documents: Iterator[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Return the features, the log-probabilities of each model, and the next token at each position."""
        parts, size = [], 0
        for part in self._read_documents(documents):
            parts.append(part)
            size += part[1].size
            if size > MAX_FITTED:
                break
        features, logprobs, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return features, logprobs, targets

    def _read_documents(
        self, documents: Iterator[NDArray[Any]]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
        for ids in documents:
            state = self.initial_state(1)
            inputs, targets = ids[:-1, None].astype(np.int64), ids[1:].astype(np.int64)
            for block in self._blocks(*inputs.shape):
                logprobs, features, state = self._read(inputs[block], state)
                yield features[:, 0], logprobs[:, 0], targets[block]

    def _blocks(self, time: int, batch: int) -> Iterator[slice]:
        """Yield the parts of a text that are read at once, because all models' log-probabilities take much memory."""
        step = max(1, MAX_BLOCK // (batch * len(self.models) * len(self.tokenizer)))
        return (slice(begin, begin + step) for begin in range(0, time, step))

    def _read(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], Any]:
        """Return log-probabilities (time, batch, models, vocab), features (time, batch, features) and the state."""
        states, last, advantage = state
        results = [model.forward(tokens, part) for model, part in zip(self.models, states, strict=True)]
        logprobs = np.stack([log_softmax(logits) for logits, _ in results], 2).clip(MIN_LOGPROB, None)
        previous = np.concatenate([last[None], logprobs[:-1]])
        of_tokens = np.take_along_axis(previous, tokens[..., None, None], -1)[..., 0]  # (time, batch, models)
        advantages = np.empty_like(of_tokens)
        for t, gains in enumerate(of_tokens - of_tokens.mean(-1, keepdims=True)):
            advantage = advantage + np.float32(ADVANTAGE_RATE) * (gains - advantage)
            advantages[t] = advantage
        entropies = -(np.exp(logprobs) * logprobs).sum(-1)
        classes = np.eye(NUM_CLASSES, dtype=np.float32)[self._classes[tokens]]
        features = np.concatenate([entropies, logprobs.max(-1), advantages, classes], -1)
        return logprobs, features, (tuple(part for _, part in results), logprobs[-1], advantage)

    def initial_state(self, batch: int) -> Any:
        models = len(self.models)
        last = np.zeros((batch, models, len(self.tokenizer)), np.float32)
        return super().initial_state(batch), last, np.zeros((batch, models), np.float32)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        logprobs, features, state = self._read(tokens, state)
        weights = exponents(self.gate, self.mixing_weights, features)
        logits: NDArray[np.floating[Any]] = log_softmax((weights[..., None] * logprobs).sum(-2))
        return logits, state

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        for block in self._blocks(*tokens.shape):
            logits, state = self.forward(tokens[block], state)
        return logits[-1], state

    def join_states(self, states: Sequence[Any]) -> Any:
        parts, last, advantages = zip(*states, strict=True)
        return super().join_states(parts), np.concatenate(last), np.concatenate(advantages)

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


def exponents(gate: Weights, shares: NDArray[Any], features: NDArray[Any]) -> NDArray[np.float32]:
    """Return the exponent of each model, (…, models), from features, (…, features)."""
    weights: NDArray[np.float32] = shares.astype(np.float32) + np.tanh(features @ gate[HIDDEN]) @ gate[OUTPUT]
    return weights


def fit_gate(
    gate: Weights,
    shares: NDArray[Any],
    features: NDArray[Any],
    logprobs: NDArray[Any],
    targets: NDArray[np.int64],
    epochs: int,
    seed: int,
) -> tuple[Weights, float]:
    """Return the gate that maximizes the likelihood of a text, and its nats per token in the last epoch.

    ``features`` are (tokens, features), ``logprobs`` (tokens, models, vocab), and ``targets`` (tokens,). The gradient
    of the loss by the exponent of model i is E[log p_i(w)] - log p_i(target), with w from the mixture. The optimizer is
    Adam (Kingma & Ba 2015).
    """
    gate = {name: array.copy() for name, array in gate.items()}
    moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in gate.items()}
    rng, step, total = np.random.default_rng(seed), 0, 0.0
    steps = epochs * -(-len(targets) // BATCH_SIZE)
    for _ in range(epochs):
        total = 0.0
        order = rng.permutation(len(targets))
        for begin in range(0, len(order), BATCH_SIZE):
            rows = order[begin : begin + BATCH_SIZE]
            x, log_p = features[rows], logprobs[rows]
            hidden = np.tanh(x @ gate[HIDDEN])
            weights = shares.astype(np.float32) + hidden @ gate[OUTPUT]
            mixed = log_softmax((weights[..., None] * log_p).sum(1))
            target = targets[rows][:, None]
            total -= float(np.take_along_axis(mixed, target, 1).sum())
            expected = (np.exp(mixed)[:, None] * log_p).sum(-1)
            gradient = (expected - np.take_along_axis(log_p, target[..., None], 2)[..., 0]) / len(rows)
            hidden_gradient = gradient @ gate[OUTPUT].T * (1 - hidden**2)
            step += 1
            rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (step / steps)
            for name, g in ((HIDDEN, x.T @ hidden_gradient), (OUTPUT, hidden.T @ gradient)):
                mean, square = moments[name]
                mean += (1 - BETAS[0]) * (g - mean)
                square += (1 - BETAS[1]) * (g**2 - square)
                corrected = mean / (1 - BETAS[0] ** step)
                gate[name] -= rate * corrected / (np.sqrt(square / (1 - BETAS[1] ** step)) + EPSILON)
    return gate, total / len(targets)
