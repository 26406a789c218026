"""Mixtures: several models that share a tokenizer vote on each token.

    p(w | h) = Σ_i λ_i p_i(w | h)

The weights λ are given, or learnt on held-out text by expectation maximization: each step sets them to the share of
the tokens that each model is responsible for (Jelinek & Mercer 1980). A model that counts and one that is trained
err in different places, so their mixture is better than both.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import checked
from revgen.errors import OptionError, VocabularyError
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.ops import log_softmax
from revgen.options import ReadOptions, as_float, check, shown
from revgen.registry import architecture_class, register_model

if TYPE_CHECKING:
    from revgen.history import History

STEPS, TOLERANCE = 1000, 1e-7
MAX_MODELS = 64
"""Models of a mixture, those of mixtures in it among them."""


@dataclass(frozen=True)
class MixtureConfig:
    """The architecture and configuration of each model, and the weight of each in the mixture."""

    models: Sequence[Mapping[str, Any]] = field(default_factory=list)
    shares: Sequence[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.models or len(self.models) != len(self.shares):
            raise OptionError(f"a mixture needs a weight for each of its models, not {len(self.shares)} weights")
        check("the number of models", many := count_models(self.models), many <= MAX_MODELS, f"at most {MAX_MODELS}")
        numbers = all(0 <= as_float(share) <= 1 for share in self.shares)
        if not numbers or abs(sum(self.shares) - 1) > 1e-6:
            raise OptionError(f"weights must be 0 or more and sum to 1, not {shown(list(self.shares))}")


@register_model("mixture")
class Mixture(LanguageModel):
    """An interpolation of models that share a tokenizer; made by ``revgen.mix``."""

    Config = MixtureConfig
    levels: ClassVar[tuple[str, ...] | None] = ()  # not made by name

    def __init__(self, *args: Any, models: Sequence[LanguageModel] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.models = list(models) or [self._empty(part) for part in self.config.models]

    def _empty(self, part: Mapping[str, Any]) -> LanguageModel:
        model_class = architecture_class(part["architecture"])
        config = model_class.Config(**part["config"])
        model: LanguageModel = model_class(part["architecture"], self.level, config, self.tokenizer)
        return model

    @property
    def explained_by(self) -> tuple[type, ...]:
        return *super().explained_by, *dict.fromkeys(kind for model in self.models for kind in model.explained_by)

    @property
    def mixing_weights(self) -> NDArray[np.float64]:
        """The weight of each model, (models,)."""
        return np.array(self.config.shares, float)

    @checked
    def fit(  # type: ignore[override]  # the models are trained already
        self,
        texts: Any,
        valid: Any = None,
        *,
        progress: bool = True,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Learn the weights on text that none of the models has seen; the models stay as they are.

        ``texts`` and the options of ``reading`` are what ``revgen.read`` takes; ``valid`` is text to validate on.
        """
        from revgen.corpus import read
        from revgen.corpus.tokens import tokenize
        from revgen.history import EpochMetrics, History

        began = time.perf_counter()
        tokens = tokenize(read(texts, **reading), self.tokenizer)
        given = self._component_logprobs([np.asarray(ids) for ids in tokens.documents()])
        shares, nats = fit_weights_em(np.concatenate([parts for _, parts in given], 1), self.mixing_weights)
        self.config = dataclasses.replace(self.config, shares=shares.tolist())
        seconds = time.perf_counter() - began
        figures: dict[str, Any] = {}
        if valid is not None:
            evaluation = self.evaluate(valid, **reading)
            figures = {name: getattr(evaluation, name) for name in ("nats_per_char", "bits_per_char", "perplexity")}
        epoch = EpochMetrics(1, nats, 0.0, len(tokens) / seconds, seconds, **figures, best=True)
        names = ", ".join(f"{m.name} {share:.3f}" for m, share in zip(self.models, shares, strict=True))
        history = History([epoch], notes=[f"weights: {names}"])
        if progress:
            from revgen.training.progress import Progress

            Progress(shown=True).say(history.notes[0])
        return history

    def _component_logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (index, the log-probability that each model gives to each token, (models, tokens))."""
        parts = [dict(model.logprobs(sequences)) for model in self.models]
        for i in range(len(sequences)):
            yield i, np.stack([part[i] for part in parts])

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        for i, given in self._component_logprobs(sequences):
            yield i, mixed(given, self.mixing_weights[:, None])

    def initial_state(self, batch: int) -> Any:
        return tuple(model.initial_state(batch) for model in self.models)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        parts, states = zip(*(m.forward(tokens, s) for m, s in zip(self.models, state, strict=True)), strict=True)
        given = np.stack([log_softmax(part) for part in parts])  # (models, time, batch, vocab)
        return mixed(given, self.mixing_weights[:, None, None, None]), states

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        found = [model.next_logits(tokens, part) for model, part in zip(self.models, state, strict=True)]
        parts, states = zip(*found, strict=True)
        given = np.stack([log_softmax(part) for part in parts])  # (models, batch, vocab)
        return mixed(given, self.mixing_weights[:, None, None]), states

    @checked
    def to(self, device: str) -> Self:
        for model in self.models:
            model.to(device)
        self.device = device
        return self

    @property
    def weights(self) -> Weights:
        return {f"{i}.{name}": array for i, m in enumerate(self.models) for name, array in m.weights.items()}

    @weights.setter
    def weights(self, weights: Weights) -> None:
        for model, part in zip(self.models, self._parts(weights), strict=True):
            model.weights = part

    @property
    def is_fitted(self) -> bool:
        return all(model.is_fitted for model in self.models)

    def _parts(self, weights: Weights) -> list[Weights]:
        prefixes = [f"{i}." for i in range(len(self.models))]
        return [{n.removeprefix(p): array for n, array in weights.items() if n.startswith(p)} for p in prefixes]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{i}.{name}": s for i, model in enumerate(self.models) for name, s in model.weight_shapes().items()}

    def validate_weights(self, arrays: Weights) -> str | None:
        for model, part in zip(self.models, self._parts(arrays), strict=True):
            if problem := model.validate_weights(part):
                return f"{model.name}: {problem}"
        return None


@checked
def mix(models: Sequence[LanguageModel], weights: Sequence[float] | None = None) -> Mixture:
    """Interpolate fitted models that share a tokenizer, with these weights, or equal ones until ``fit`` learns them.

    Raises VocabularyError where a tokenizer is another one, OptionError for weights that do not sum to 1.
    """
    check("models", models, len(models) > 0, "a list of at least one model")
    first = models[0]
    for model in models:
        if model.tokenizer != first.tokenizer:
            raise VocabularyError(
                f"{model.name} has another tokenizer than {first.name}: make it with "
                f"revgen.create({model.name!r}, tokenizer=first.tokenizer)"
            )
    parts = [{"architecture": m.architecture, "config": dataclasses.asdict(m.config)} for m in models]
    shares = [1 / len(models)] * len(models) if weights is None else [float(weight) for weight in weights]
    mixture = Mixture("mixture", first.level, MixtureConfig(parts, shares), first.tokenizer, models=models)
    mixture.metadata["spelled"] = min(as_float(model.metadata.get("spelled", 0)) for model in models)
    return mixture


def count_models(models: Sequence[Mapping[str, Any]]) -> int:
    """How many models there are, in mixtures within mixtures too."""
    return sum(max(1, count_models(part["config"].get("models", ()))) for part in models)


def fit_weights_em(given: NDArray[Any], shares: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The weights that make text likeliest, and its nats per token with them.

    ``given`` are the log-probabilities of each model for each token, (models, tokens); ``shares`` where to begin.
    """
    likelihoods = np.exp(given - _highest(given))
    shares = np.maximum(shares, 1e-6)
    for _ in range(STEPS):
        joint = shares[:, None] * likelihoods
        new = (joint / joint.sum(0)).mean(1)
        done = np.abs(new - shares).max() < TOLERANCE
        shares = new
        if done:
            break
    shares /= shares.sum()
    return shares, -float(mixed(given, shares[:, None]).mean())


def mixed(given: NDArray[Any], shares: NDArray[np.float64]) -> NDArray[Any]:
    """log Σ_i λ_i exp(given_i) over the first axis."""
    highest = _highest(given)
    with np.errstate(divide="ignore"):
        logarithm: NDArray[Any] = np.log((shares * np.exp(given - highest)).sum(0)) + highest
    return logarithm


def _highest(given: NDArray[Any]) -> NDArray[Any]:
    """The largest over the first axis; 0 where that is the logarithm of 0."""
    highest: NDArray[Any] = given.max(0)
    return np.where(np.isfinite(highest), highest, 0)
