"""``NeuralModel``: a model whose weights are trained by gradient descent, with PyTorch.

``fit`` is long because its docstring describes every option.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.distillation import predict
from revgen.architectures.wrapper import check_fitted, check_partner
from revgen.arguments import validate_call
from revgen.card import history_metadata
from revgen.derived import derived
from revgen.errors import OptionError
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.options import ReadOptions
from revgen.registry import architecture_class
from revgen.sequences import score_sequences
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from revgen.corpus import Corpus
    from revgen.corpus.tokens import Tokens
    from revgen.history import History
    from revgen.networks.network import Network
    from revgen.training.callbacks import Callback
    from revgen.training.checkpoint import CheckpointConfig
    from revgen.training.lr_finder import LRFinderResult
    from revgen.training.recipe import Recipe


MIN_TORCH_TOKENS = 20_000
"""PyTorch reads texts with at least this many tokens: it saves more time than its import takes."""


def prefers_torch(num_tokens: int) -> bool:
    """Return whether PyTorch should read this many tokens rather than NumPy."""
    return num_tokens >= MIN_TORCH_TOKENS and importlib.util.find_spec("torch") is not None


class NeuralModel(LanguageModel):
    """A model that a PyTorch network trains. A subclass defines ``init_params`` and ``make_network``."""

    learning_rate: ClassVar[float] = 1e-2
    """The default peak of the learning-rate schedule for new weights."""

    optimizer: ClassVar[str] = "adamw"
    """The default optimizer: ``"adamw"`` or ``"muon"``."""

    sequence_length: ClassVar[int] = 100
    """The default average length of a chunk, in tokens."""

    max_batch_size: ClassVar[int] = 64
    """The largest default number of rows."""

    weight_averaging: ClassVar[float] = 0.0
    """The default fraction of a run, at its end, over which the weights are averaged."""

    _teacher: LanguageModel | None = None
    """The model whose predictions are learned too, during ``fit``."""
    _teacher_logprobs: Any = None

    @abstractmethod
    def init_params(self, rng: np.random.Generator) -> Weights:
        """Return the weights before training, for this configuration and tokenizer."""

    @abstractmethod
    def make_network(self) -> Network:
        """Return the PyTorch network with the current weights, on the CPU."""

    @derived
    def network(self) -> Network:
        """The PyTorch network on the model's device, in evaluation mode."""
        return self.make_network().to(self.device).eval()

    def sampler_network(self) -> Network | None:
        return None if self.device == "cpu" else self.network

    @validate_call
    def to(self, device: str) -> Self:
        self.device = find_gpu() if device == "auto" else check_device(device)
        self._clear_caches()
        return self

    def initial_state(self, batch: int) -> Any:
        return None

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        from revgen.networks.network import network_forward

        return network_forward(self.network)(tokens, state)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Score long sequences with PyTorch, whose kernels are several times as fast as NumPy."""
        if not prefers_torch(sum(map(len, sequences))):
            return super().logprobs(sequences)
        from revgen.networks.network import network_forward

        return score_sequences(network_forward(self.network), lambda batch: None, sequences)

    def labels_for(self, texts: Corpus) -> tuple[str | int, ...]:
        """Return the model's labels and the new labels of the texts, or none if the architecture takes no labels."""
        return tuple(dict.fromkeys([*self.labels, *texts.label_names()])) if self.takes_labels else ()

    def suggest_sizes(self, recipe: Recipe, tokens: int) -> dict[str, Any]:
        """Return values for the options of the configuration that are None, for a corpus of ``tokens`` tokens."""
        return recipe.suggest_sizes(tokens, self.device)

    def prepare(
        self, tokenizer: Tokenizer, seed: int, labels: Sequence[str | int] = (), sizes: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare to train with this tokenizer and these labels: initialize the weights, or extend fitted ones.

        ``sizes`` gives values for the options of the configuration that are None.
        """
        self._tokenizer = tokenizer
        missing = {name: size for name, size in (sizes or {}).items() if getattr(self.config, name, size) is None}
        self.config = dataclasses.replace(self.config, **missing, **({"labels": tuple(labels)} if labels else {}))
        if self.is_fitted:
            self.extend()
        else:
            self.weights = self.init_params(np.random.default_rng(seed))

    def extend(self) -> None:
        """Add rows to the weights for new tokens and labels. Each starts as the mean of the existing rows."""
        old = self.weights
        weights: Weights = {}
        for name, shape in self.weight_shapes().items():
            array = old[name]
            num_new = shape[0] - len(array)
            new_rows = np.repeat(array.mean(0, keepdims=True), num_new, 0)
            weights[name] = np.concatenate([array, new_rows]) if num_new else array
        self.weights = weights

    def training_tokens(
        self, train: Tokens, held_out: Tokens | None, seed: int, say: Callable[[str], None]
    ) -> tuple[Tokens, Tokens | None]:
        """Return the tokens as the network that is trained reads them. ``say`` prints a message."""
        if self._teacher is None:
            return train, held_out
        train, held_out, self._teacher_logprobs = predict(self._teacher, train, held_out, seed, self.device, say)
        return train, held_out

    def training_network(self) -> Network:
        """Return the network that is trained, with the current weights."""
        network = self.make_network()
        if self._teacher is None:
            return network
        from revgen.networks.distillation import DistilledNetwork

        return DistilledNetwork(network, self._teacher_logprobs, self.tokenizer.eos_id)

    @validate_call
    def fit(
        self,
        texts: Any,
        valid: Any = None,
        *,
        base: LanguageModel | None = None,
        teacher: LanguageModel | None = None,
        labels: Any = None,
        epochs: int | None = None,
        max_seconds: float | None = None,
        token_budget: int | None = None,
        batch_size: int | None = None,
        sequence_length: int | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        weight_decay: float = 0.2,
        weight_averaging: float | None = None,
        patience: int | None = 5,
        seed: int = 0,
        extend_vocabulary: bool = False,
        gradient_accumulation_steps: int = 1,
        preset: str = "balanced",
        checkpoint: str | Path | CheckpointConfig | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback | Callable[[Self, Any], None]] = (),
        progress: bool = True,
        sample_prompt: str = "",
        index_texts: bool = False,
        **reading: Unpack[ReadOptions],
    ) -> History:
        """Train on texts: from scratch, or from the model's own weights (fine-tuning).

        Args:
            texts: a path, a directory or strings; anything that ``revgen.read`` accepts.
            valid: text to validate on after each epoch, or the fraction of the documents of ``texts`` to hold out for
                validation. With validation, the weights of the best epoch are kept, otherwise those of the last.
            base: a model of counts, fitted or not, for example Kneser-Ney or a mixture of several orders. The network
                is then trained to predict what the counts do not know, and this model becomes a ``residual`` model:
                the network together with the base, which counts the training text. The counts with which a document is
                trained are those of other documents. First train the network without a base: it learns more.
            teacher: a fitted model with the same tokenizer, such as a larger network or a mixture. Its predictions and
                the text are learned with equal weights (Hinton et al. 2015). A teacher that counts predicts each
                document by the counts of the other documents of ``texts``. The teacher does not change.
            labels: for architectures that can be conditioned on a label, the label of each text: a list with one label
                per text or file, or the name of the field that holds them. Integers stay integers.
            epochs: passes over the text. If neither this, ``max_seconds`` nor ``token_budget`` is given, ``preset`` and
                the size of the corpus decide.
            max_seconds: a time budget, validation included. The learning-rate schedule ends with it.
            token_budget: the number of tokens to read in total, over all epochs, which need not be whole. The same
                budget takes the same steps on a fast and on a slow machine.
            batch_size: rows of text read in parallel. If not given, it depends on the size of the corpus.
            sequence_length: the average length of a chunk of a row, in tokens; the exact length is random. Gradients do
                not reach back beyond a chunk. If not given, the architecture's default (100 for recurrent networks).
            optimizer: "adamw", or "muon" to train the matrices of the layers with Muon. If not given, the
                architecture's default.
            learning_rate: the peak of a one-cycle schedule. If not given, the architecture's default (1e-2 for
                recurrent networks), and a fifth of it for fine-tuning.
            weight_decay: decoupled weight decay of the matrices.
            weight_averaging: the fraction of the run, at its end, over which the weights are averaged. The average is
                validated and kept. If not given, the architecture's default, which is 0 for most.
            patience: stop after this many epochs without improvement; None to never stop early.
            seed: the seed of the initial weights, the order of the text and dropout. The same seed gives the same
                weights on the same CPU.
            extend_vocabulary: add tokens for characters and words that a fitted model does not know. Without it,
                unknown characters raise VocabularyError.
            gradient_accumulation_steps: compute each batch in this many parts to save memory. The steps are the same.
            preset: "quick", "balanced" or "best": how much text to read in total if no budget is given, and the width
                of a new network if its configuration does not set it.
            checkpoint: a directory for checkpoints, which are saved after each epoch and every minute. Give a
                ``revgen.CheckpointConfig`` for other intervals.
            resume: continue from the latest checkpoint, if there is one.
            callbacks: ``revgen.Callback`` objects, or functions that are called with the model and the
                ``EpochMetrics`` after each epoch.
            progress: show a progress bar, and the metrics and a sample after each epoch.
            sample_prompt: the prompt of these samples.
            index_texts: index ``texts``, held-out documents included, so that ``novelty`` can find copied text.
            reading: how ``texts`` and ``valid`` are read; ``revgen.read`` describes these options.

        Ctrl-C ends training and keeps the best weights. If the loss diverges, training continues from the last good
        weights with half the learning rate. After three such attempts, ``fit`` raises TrainingError, and the model
        keeps the last good weights. Raises CorpusError for text that cannot be read, is empty or is too short.
        """
        from revgen.corpus import read
        from revgen.training.fit import fit
        from revgen.training.recipe import Recipe

        recipe = Recipe(
            epochs,
            max_seconds,
            batch_size,
            self.sequence_length if sequence_length is None else sequence_length,
            optimizer,
            learning_rate,
            weight_decay,
            weight_averaging=self.weight_averaging if weight_averaging is None else weight_averaging,
            patience=patience,
            seed=seed,
            preset=preset,
            token_budget=token_budget,
        )
        if labels is not None:
            self.check_labels()
        if teacher is not None:
            if base is not None or labels is not None:
                raise OptionError("teacher does not combine with base or labels")
            check_fitted(teacher)
            check_partner(self, teacher, "teacher")
        if not (valid is None or isinstance(valid, int | float)):
            field = labels if isinstance(labels, str) else None  # a list labels ``texts`` only
            valid = read(valid, labels=field, **reading)
        was_published = self.is_fitted and "load_as" in self.metadata
        corpus = read(texts, labels=labels, **reading)
        model: Any = self if base is None else architecture_class("residual").combine(self, base)
        self._teacher = teacher
        try:
            history = fit(
                model,
                corpus,
                valid,
                recipe,
                extend_vocabulary=extend_vocabulary,
                gradient_accumulation_steps=gradient_accumulation_steps,
                checkpoint=checkpoint,
                resume=resume,
                callbacks=callbacks,
                progress=progress,
                sample_prompt=sample_prompt,
            )
        finally:
            self._teacher = self._teacher_logprobs = None
            if model is not self and model.has_counts:  # training has begun
                self.__class__, self.__dict__ = model.__class__, {**model.__dict__}  # Python 3.13.0 clears shared ones
        if was_published:
            self.unpublish()
        self.metadata["history"] = history_metadata(history)
        if index_texts:
            self.index_texts(corpus)
        return history

    def unpublish(self) -> None:
        """Remove the metadata and the prompt of the published weights, from which the current ones differ."""
        self.metadata = {k: v for k, v in self.metadata.items() if k not in ("load_as", "description", "samples")}
        self.generation_config = {k: v for k, v in self.generation_config.items() if k != "prompt"}

    @validate_call
    def find_lr(
        self,
        texts: Any,
        *,
        low: float = 1e-5,
        high: float = 1.0,
        steps: int = 100,
        labels: Any = None,
        batch_size: int | None = None,
        sequence_length: int | None = None,
        optimizer: str | None = None,
        seed: int = 0,
        **reading: Unpack[ReadOptions],
    ) -> LRFinderResult:
        """Find a learning rate: train ``steps`` steps with rates from ``low`` to ``high`` (Smith 2017).

        The model does not change. The result has a ``suggestion`` for ``fit(learning_rate=…)``, and a ``plot``.
        ``fit`` describes the other parameters.
        """
        from revgen.corpus import read
        from revgen.training.lr_finder import find_lr
        from revgen.training.recipe import Recipe

        corpus = read(texts, labels=labels, **reading)
        recipe = Recipe(
            epochs=1,
            batch_size=batch_size,
            sequence_length=self.sequence_length if sequence_length is None else sequence_length,
            optimizer=self.optimizer if optimizer is None else optimizer,
            seed=seed,
        )
        return find_lr(self, corpus, recipe, low, high, steps)


def check_device(device: str) -> str:
    """Return the name of a device unchanged. Raises OptionError if PyTorch cannot use it."""
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device).item()  # the device "meta" has no values
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def find_gpu() -> str:
    """Return "cuda" or "mps" if PyTorch can use such a GPU, otherwise "cpu"."""
    try:
        import torch
    except ImportError:
        return "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in (name for name, is_available in available.items() if is_available):
        with suppress(OptionError):  # for example, a driver that is too old
            return check_device(device)
    return "cpu"
