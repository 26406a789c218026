"""Mixtures: the probability of each token is the weighted mean over several models with the same tokenizer.

    p(w | h) = Σ_i λ_i p_i(w | h)

The weights λ are chosen by hand, or fitted to held-out text by expectation maximization: each step sets λ_i to the mean
probability that a token came from model i. An n-gram model and a network make different mistakes, so their mixture is
better than either.
(Jelinek & Mercer 1980, *Interpolated estimation of Markov source parameters from sparse data*.)
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.wrapper import as_part, check_count, spec_of_fitted, unfitted
from revgen.arguments import validate_call
from revgen.corpus import read
from revgen.corpus.tokens import tokenize
from revgen.errors import OptionError
from revgen.history import EpochMetrics, History
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.ops import log_softmax
from revgen.options import ReadOptions, as_float, safe_repr
from revgen.registry import register_model
from revgen.sequences import ADAPTATIONS, Adaptation
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.browser.network import BrowserNetwork

MAX_EM_STEPS, EM_TOLERANCE = 1000, 1e-7


@dataclass(frozen=True)
class MixtureConfig:
    """The architecture and configuration of each model in ``models``, and the weight of each model in ``shares``."""

    models: Sequence[Mapping[str, Any]] = field(default_factory=list)
    shares: Sequence[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.models or len(self.models) != len(self.shares):
            raise OptionError(
                f"a mixture needs at least one model, and one weight for each model, not {len(self.shares)} weights"
            )
        check_count(self.models)
        in_range = all(0 <= as_float(weight) <= 1 for weight in self.shares)
        if not in_range or abs(sum(self.shares) - 1) > 1e-6:
            raise OptionError(f"weights must not be negative and must sum to 1, not {safe_repr(list(self.shares))}")


@register_model("mixture")
class Mixture(LanguageModel):
    """A linear interpolation of models that share a tokenizer; ``revgen.mix`` creates one.

    p(w | h) = Σ_i λ_i p_i(w | h)     with the weights λ_i in ``config.shares``
    """

    Config: ClassVar[type[Any]] = MixtureConfig
    levels: ClassVar[tuple[str, ...] | None] = ()  # ``create`` cannot create a mixture

    def __init__(self, *args: Any, models: Sequence[LanguageModel] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.models = [as_part(model) for model in models] or [
            unfitted(spec, self.level, self.tokenizer) for spec in self.config.models
        ]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"models": [as_part(model) for model in self.models]}

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        models = [model.with_dynamic_evaluation(settings) or model for model in self.models]
        if models == self.models:
            return None
        mixture = copy.copy(self)
        mixture.models, mixture.saved_hashes = models, frozenset()
        mixture.config = dataclasses.replace(self.config, models=[spec_of_fitted(model) for model in models])
        return mixture

    @property
    def explained_by(self) -> tuple[type, ...]:
        return *super().explained_by, *dict.fromkeys(kind for model in self.models for kind in model.explained_by)

    @property
    def mixing_weights(self) -> NDArray[np.float64]:
        """The weight of each model, (models,)."""
        return np.array(self.config.shares, float)

    @validate_call
    def fit(  # type: ignore[override]  # only the weights of the mixture are fitted
        self,
        texts: Any,
        valid: Any = None,
        *,
        progress: bool = True,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Fit the mixing weights to text that none of the models was trained on. The models do not change.

        ``texts`` and ``reading`` are as in ``revgen.read``; ``valid`` is text to validate on.
        """
        start_time = time.perf_counter()
        tokens = tokenize(read(texts, **reading), self.tokenizer)
        logprobs = self._component_logprobs([np.asarray(ids) for ids in tokens.documents()])
        weights, nats = fit_weights_em(np.concatenate([array for _, array in logprobs], 1), self.mixing_weights)
        self.config = dataclasses.replace(self.config, shares=weights.tolist())
        summary = ", ".join(f"{m.name} {weight:.3f}" for m, weight in zip(self.models, weights, strict=True))
        seconds = time.perf_counter() - start_time
        epoch = EpochMetrics(1, nats, 0.0, len(tokens) / seconds, seconds, best=True)
        return self._finish_fit(epoch, f"weights: {summary}", valid, reading, progress)

    def _finish_fit(
        self, epoch: EpochMetrics, note: str, valid: Any, reading: Mapping[str, Any], progress: bool
    ) -> History:
        """Add the metrics on the validation text to an epoch, print a note, and return the history with both."""
        metrics = {} if valid is None else self.evaluate(valid, **reading).metrics()
        if progress:
            from revgen.training.progress import Progress

            Progress(shown=True).say(note)
        return History([dataclasses.replace(epoch, **metrics)], notes=[note])

    def _component_logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield ``(index, logprobs)`` for each sequence; ``logprobs`` (models, tokens) has one row per model."""
        by_model = [dict(model.logprobs(sequences)) for model in self.models]
        for i in range(len(sequences)):
            yield i, np.stack([logprobs[i] for logprobs in by_model])

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        for i, logprobs in self._component_logprobs(sequences):
            yield i, interpolate(logprobs, self.mixing_weights[:, None])

    def initial_state(self, batch: int) -> Any:
        return tuple(model.initial_state(batch) for model in self.models)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        results = [model.forward(tokens, part) for model, part in zip(self.models, state, strict=True)]
        logits, states = zip(*results, strict=True)
        logprobs = np.stack([log_softmax(array) for array in logits])  # (models, time, batch, vocab)
        return interpolate(logprobs, self.mixing_weights[:, None, None, None]), states

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        results = [model.next_logits(tokens, part) for model, part in zip(self.models, state, strict=True)]
        logits, states = zip(*results, strict=True)
        logprobs = np.stack([log_softmax(array) for array in logits])  # (models, batch, vocab)
        return interpolate(logprobs, self.mixing_weights[:, None, None]), states

    @property
    def adaptation(self) -> Adaptation:
        return max((model.adaptation for model in self.models), key=ADAPTATIONS.index)

    @property
    def has_large_states(self) -> bool:
        return any(model.has_large_states for model in self.models)

    @property
    def copies_training_text(self) -> bool:
        return any(model.copies_training_text for model in self.models)

    def join_states(self, states: Sequence[Any]) -> Any:
        parts = zip(self.models, zip(*states, strict=True), strict=True)
        return tuple(model.join_states(part) for model, part in parts)

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        mixture = copy.copy(self)
        mixture.models = [model.recount(documents, tokenizer, keep_networks=keep_networks) for model in self.models]
        mixture.tokenizer = tokenizer
        return mixture

    @validate_call
    def with_counts(self, texts: Any, **reading: Unpack[ReadOptions]) -> Self:
        """Return a copy of the mixture whose models of counts count these texts, instead of those that they counted.

        A mixture is fitted to text that none of its models knows. Then its models may count this text too. Networks and
        the weights of the mixture stay the same. ``texts`` and ``reading`` are as in ``revgen.read``.
        """
        documents = [*tokenize(read(texts, **reading), self.tokenizer).documents()]
        mixture = self.recount(documents, self.tokenizer, keep_networks=True)
        mixture.config = dataclasses.replace(self.config, models=[spec_of_fitted(model) for model in mixture.models])
        mixture.saved_hashes = frozenset()
        return mixture

    def browser_network(self) -> BrowserNetwork:
        from revgen.browser.network import BrowserNetwork

        weights = self.mixing_weights.tolist()
        return BrowserNetwork("mixture", {"weights": weights}, parts=[model.browser_network() for model in self.models])

    @validate_call
    def to(self, device: str) -> Self:
        for model in self.models:
            model.to(device)
        self.device = next((model.device for model in self.models if model.device != "cpu"), "cpu")
        return self

    @property
    def weights(self) -> Weights:
        return {f"{i}.{name}": array for i, m in enumerate(self.models) for name, array in m.weights.items()}

    @weights.setter
    def weights(self, weights: Weights) -> None:
        for model, part in zip(self.models, self._split_weights(weights), strict=True):
            model.weights = part

    @property
    def is_fitted(self) -> bool:
        return all(model.is_fitted for model in self.models)

    def _split_weights(self, weights: Weights) -> list[Weights]:
        """Return the weights of each model."""
        prefixes = [f"{i}." for i in range(len(self.models))]
        return [{n.removeprefix(p): array for n, array in weights.items() if n.startswith(p)} for p in prefixes]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{i}.{name}": s for i, model in enumerate(self.models) for name, s in model.weight_shapes().items()}

    def validate_weights(self, arrays: Weights) -> str | None:
        for model, part in zip(self.models, self._split_weights(arrays), strict=True):
            if problem := model.validate_weights(part):
                return f"{model.name}: {problem}"
        return None


def check_array(arrays: Weights, name: str, shape: tuple[int, ...]) -> str | None:
    """Return a sentence that says why a weight of a mixture itself is invalid, or None if it is valid."""
    if name not in arrays or arrays[name].shape != shape:
        return f"the weight {name} is missing, or does not have the shape {shape}"
    if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
        return f"the weight {name} has values that are not finite numbers"
    return None


def fit_weights_em(logprobs: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the mixing weights that maximize the likelihood of a text, and its nats per token with them.

    ``logprobs`` (models, tokens) are the log-probabilities of the text's tokens, and ``weights`` (models,) the initial
    weights of expectation maximization.
    """
    likelihoods = np.exp(logprobs - _finite_max(logprobs))
    weights = np.maximum(weights, 1e-6)
    for _ in range(MAX_EM_STEPS):
        joint = weights[:, None] * likelihoods
        new_weights = (joint / joint.sum(0)).mean(1)
        converged = np.abs(new_weights - weights).max() < EM_TOLERANCE
        weights = new_weights
        if converged:
            break
    weights /= weights.sum()
    return weights, -float(interpolate(logprobs, weights[:, None]).mean())


def interpolate(logprobs: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[Any]:
    """Return log Σ_i λ_i exp(logprobs_i), the sum over the first axis."""
    highest = _finite_max(logprobs)
    with np.errstate(divide="ignore"):
        mixed: NDArray[Any] = np.log((weights * np.exp(logprobs - highest)).sum(0)) + highest
    return mixed


def _finite_max(logprobs: NDArray[Any]) -> NDArray[Any]:
    """Return the maximum over the first axis, or 0 if it is not finite."""
    highest: NDArray[Any] = logprobs.max(0)
    return np.where(np.isfinite(highest), highest, 0)
