"""Residual models: a network that was trained to predict what a model of counts does not know.

    log p = log softmax(a log p_counts + b logits)

The counts know whatever occurs literally in the training text, so the network learns the rest. In training, a document
is predicted by the counts of the other folds (``architectures.out_of_fold``), because counts predict a document that
they contain far too well. The model itself has the counts of all training documents. The exponents a and b are trained.
(Fitting one model to the residual of another: Friedman 2001, *Greedy function approximation*; networks and n-grams in
one log-linear model: Mikolov et al. 2011, *Strategies for training large scale neural network language models*.)
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.mixture import Mixture, check_array
from revgen.architectures.neural import NeuralModel, prefers_torch
from revgen.architectures.out_of_fold import FOLDS, bounded_logprobs, out_of_fold, whole_documents, write_logprobs
from revgen.architectures.wrapper import check_count, check_partner, spec_of
from revgen.errors import OptionError
from revgen.language_model import LanguageModel
from revgen.model import Model, Weights
from revgen.options import as_float, check, is_int
from revgen.registry import register_model
from revgen.sequences import Forward, score_sequences
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.corpus import Corpus
    from revgen.corpus.tokens import Tokens
    from revgen.networks.network import FunctionalModule
    from revgen.networks.residual import ResidualNetwork
    from revgen.training.recipe import Recipe

EXPONENTS = "exponents"
TRAINING_DEFAULTS = "learning_rate", "optimizer", "sequence_length", "max_batch_size", "weight_averaging"


@dataclass(frozen=True)
class ResidualConfig:
    """The architecture and configuration of the base and of the network, and the number of folds in training."""

    models: Sequence[Mapping[str, Any]] = field(default_factory=list)
    folds: int = FOLDS

    def __post_init__(self) -> None:
        check("models", self.models, len(self.models) == 2, "a base and a network")
        check_count(self.models)
        check("folds", self.folds, is_int(self.folds, 2) and as_float(self.folds) <= 1000, "from 2 to 1,000")


@register_model("residual")
class ResidualModel(Mixture):
    """A network on top of a model of counts; ``network.fit(texts, base=counts)`` creates one.

    log p = log softmax(a log p_counts + b logits)     with a and b in the weight ``exponents``
    """

    Config = ResidualConfig
    learning_rate: float
    optimizer: str
    sequence_length: int
    max_batch_size: int
    weight_averaging: float

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        check("the network", self.network_model.name, isinstance(self.network_model, NeuralModel), "a network")
        for name in TRAINING_DEFAULTS:
            setattr(self, name, getattr(self.network_model, name))
        self.exponents = np.full(2, 0.5 if self.is_fitted else 1.0, np.float32)
        """The exponents a of the base and b of the network, (2,)."""
        self.has_counts = False
        """Whether the base has counted the training text."""

    @classmethod
    def combine(cls, network: LanguageModel, base: LanguageModel) -> Self:
        """Return the residual model of a network before its training. Raises OptionError and VocabularyError."""
        if isinstance(network, cls):
            network = network.network_model
        network = copy.copy(network)
        network.metadata = dict(network.metadata)
        check_partner(network, base, "base")
        model = cls(
            "residual", network.level, ResidualConfig([spec_of(base), spec_of(network)]), models=[base, network]
        )
        model._tokenizer = network._tokenizer
        model.tokenizer_options = network.tokenizer_options
        model.metadata = dict(network.metadata)
        return model

    # Training

    fit: Any = NeuralModel.fit
    unpublish = NeuralModel.unpublish

    @property
    def network_model(self) -> Any:
        """The network."""
        return self.models[1]

    def labels_for(self, texts: Corpus) -> tuple[str | int, ...]:
        """Return no labels: counts cannot be conditioned on them."""
        return ()

    def suggest_sizes(self, recipe: Recipe, tokens: int) -> dict[str, Any]:
        """Return sizes for the network, as ``NeuralModel.suggest_sizes`` does."""
        sizes: dict[str, Any] = self.network_model.suggest_sizes(recipe, tokens)
        return sizes

    def prepare(
        self, tokenizer: Tokenizer, seed: int, labels: Sequence[str | int] = (), sizes: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare the network, as ``NeuralModel.prepare`` does. The ``sizes`` of a checkpoint are a configuration."""
        sizes = sizes or {}
        saved = sizes["models"][1]["config"] if "models" in sizes else {}
        self.network_model.prepare(tokenizer, seed, labels, {**sizes, **saved})
        self._tokenizer = tokenizer
        self.config = dataclasses.replace(self.config, models=[spec_of(model) for model in self.models])

    def training_tokens(
        self, train: Tokens, held_out: Tokens | None, seed: int, say: Callable[[str], None]
    ) -> tuple[Tokens, Tokens | None]:
        """Count the training documents, and compute the predictions of the base. Returns ids that carry their rows."""
        from revgen.networks.residual import number_tokens

        base, tokenizer, folds = self.models[0], self.tokenizer, self.config.folds
        documents, held_out_documents = [*train.documents()], [] if held_out is None else [*held_out.documents()]
        say(f"{base.name} predicts the training text: {folds} times, it counts all but one of the folds")
        counted = base.recount(documents, tokenizer)
        parts = chain(
            out_of_fold(base, documents, tokenizer, folds, seed),
            whole_documents(counted, held_out_documents, len(documents)),
        )
        self._logprobs = write_logprobs(parts, [*documents, *held_out_documents], tokenizer, self.device)
        self.models[0], self.has_counts = counted, True
        first, vocab = sum(map(len, documents)), len(tokenizer)
        return number_tokens(train, 0, vocab), None if held_out is None else number_tokens(held_out, first, vocab)

    def make_network(self) -> ResidualNetwork:
        """Return the network that is trained. It needs the ids of ``training_tokens``."""
        from revgen.networks.residual import ResidualNetwork

        network = self.network_model.make_network()
        return ResidualNetwork(network, self.exponents, self._logprobs)

    training_network = make_network

    def find_lr(self, texts: Any, *args: Any, **options: Any) -> Any:
        raise OptionError("find_lr works for a network without a base: call it before fit(base=…)")

    # Prediction

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        return self.wrapped("dynamic-evaluation", settings)

    def network_parts(self) -> tuple[LanguageModel, FunctionalModule, NDArray[np.float32]]:
        """Return the base, the network on the model's device, and their exponents."""
        return self.models[0], self.network_model.network, self.exponents

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        return self._forward(self.network_model.forward, tokens, state)

    def _forward(self, network: Forward, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        a, b = self.exponents
        base_logits, base_state = self.models[0].forward(tokens, state[0])
        logits, network_state = network(tokens, state[1])
        return a * bounded_logprobs(base_logits) + b * logits, (base_state, network_state)

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        return Model.next_logits(self, tokens, state)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        if not prefers_torch(sum(map(len, sequences))):
            return Model.logprobs(self, sequences)
        from revgen.networks.network import network_forward

        forward = network_forward(self.network_model.network)
        return score_sequences(
            partial(self._forward, forward), lambda n: (self.models[0].initial_state(n), None), sequences
        )

    def browser_network(self) -> Any:
        return LanguageModel.browser_network(self)

    # Weights

    @property
    def is_fitted(self) -> bool:
        """Whether the network has weights."""
        return bool(self.network_model.is_fitted)

    @property
    def weights(self) -> Weights:
        return super().weights | {EXPONENTS: self.exponents}

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self.exponents = weights[EXPONENTS]
        for model, part in zip(self.models, self._split_weights(weights), strict=True):
            if part:  # training changes the network only
                model.weights = part
        self.has_counts = True

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().weight_shapes() | {EXPONENTS: (2,)}

    def validate_weights(self, arrays: Weights) -> str | None:
        if problem := check_array(arrays, EXPONENTS, (2,)):
            return problem
        return super().validate_weights(arrays)
