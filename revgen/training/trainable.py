"""``TrainableModel``: the interface that the training loop requires of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from revgen.corpus import Corpus
from revgen.corpus.tokens import Tokens
from revgen.model import Weights
from revgen.networks.network import Network
from revgen.tokenizers import Tokenizer
from revgen.training.recipe import Recipe


class TrainableModel(Protocol):
    """A model that a PyTorch network trains; ``architectures.neural.NeuralModel`` is the base class of such models."""

    config: Any
    device: str
    metadata: dict[str, Any]
    weights: Weights

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def is_fitted(self) -> bool: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...

    def tokenizer_for(self, texts: Corpus, extend: bool = False, progress: bool = False) -> Tokenizer: ...
    def suggest_sizes(self, recipe: Recipe, tokens: int) -> dict[str, Any]: ...
    def labels_for(self, texts: Corpus) -> tuple[str | int, ...]: ...
    def prepare(
        self, tokenizer: Tokenizer, seed: int, labels: Sequence[str | int] = (), sizes: Mapping[str, Any] | None = None
    ) -> None: ...
    def training_tokens(
        self, train: Tokens, held_out: Tokens | None, seed: int, say: Callable[[str], None]
    ) -> tuple[Tokens, Tokens | None]: ...
    def training_network(self) -> Network: ...
    def generate(self, prompt: str = "", *, max_tokens: int, seed: int) -> str: ...
    def save(self, directory: str | Path) -> Path: ...
