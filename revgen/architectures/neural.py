"""What neural models share: weights that a PyTorch network trains."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import checked
from revgen.card import history_figures
from revgen.errors import OptionError
from revgen.language_model import LanguageModel
from revgen.model import Weights, derived, score_sequences
from revgen.options import ReadOptions
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from revgen.corpus import Corpus
    from revgen.history import History
    from revgen.networks.network import Network
    from revgen.training.callbacks import Callback
    from revgen.training.checkpoint import CheckpointConfig
    from revgen.training.lr_finder import LRFinderResult


MIN_TORCH_TOKENS = 20_000
"""Tokens of text to score."""


class NeuralModel(LanguageModel):
    """A model whose weights are learnt by gradient descent; a subclass gives ``initialize`` and ``make_network``."""

    learning_rate: ClassVar[float] = 1e-2
    """The peak of the schedule that ``fit`` trains new weights by, where it is given none."""

    weight_averaging: ClassVar[float] = 0.0
    """The part of a run, at its end, over which weights are averaged where ``fit`` is not told."""

    @abstractmethod
    def init_params(self, random: np.random.Generator) -> Weights:
        """The weights before training, for this configuration and tokenizer."""

    @abstractmethod
    def make_network(self) -> Network:
        """The PyTorch network with the present weights, on the CPU."""

    @derived
    def network(self) -> Network:
        """The network on the model's device, in evaluation mode."""
        return self.make_network().to(self.device).eval()

    @checked
    def to(self, device: str) -> Self:
        if device != "cpu":
            import torch

            try:
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:
                raise OptionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.device = device
        self._clear_caches()
        return self

    def initial_state(self, batch: int) -> Any:
        return None

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        from revgen.networks.network import network_forward

        return network_forward(self.network)(tokens, state)

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Much text is worth the import of PyTorch, whose kernels read it several times as fast as NumPy."""
        if sum(map(len, sequences)) < MIN_TORCH_TOKENS:
            return super().logprobs(sequences)
        from revgen.networks.network import network_forward

        return score_sequences(network_forward(self.network), lambda batch: None, sequences)

    def labels_for(self, texts: Corpus) -> tuple[str | int, ...]:
        """The labels to learn these texts with: the model's, and those that are new; none where it takes none."""
        return tuple(dict.fromkeys([*self.labels, *texts.label_names()])) if self.takes_labels else ()

    def prepare(
        self, tokenizer: Tokenizer, seed: int, labels: Sequence[str | int] = (), sizes: Mapping[str, Any] | None = None
    ) -> None:
        """Be ready to train with this tokenizer and these labels: with first weights, or with those that are there.

        ``sizes`` are for what the configuration leaves open.
        """
        self._tokenizer = tokenizer
        chosen = {name: size for name, size in (sizes or {}).items() if getattr(self.config, name, size) is None}
        self.config = dataclasses.replace(self.config, **chosen, **({"labels": tuple(labels)} if labels else {}))
        if self.is_fitted:
            self.extend()
        else:
            self.weights = self.init_params(np.random.default_rng(seed))

    def extend(self) -> None:
        """Make rows for tokens and labels that were added; they begin as the mean of the others."""
        old = self.weights
        weights: Weights = {}
        for name, shape in self.weight_shapes().items():
            array = old[name]
            more = shape[0] - len(array)
            rows = np.repeat(array.mean(0, keepdims=True), more, 0)
            weights[name] = np.concatenate([array, rows]) if more else array
        self.weights = weights

    @checked
    def fit(
        self,
        texts: Any,
        valid: Any = None,
        *,
        labels: Any = None,
        epochs: int | None = None,
        max_seconds: float | None = None,
        batch_size: int | None = None,
        sequence_length: int = 100,
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
        """Train on texts: from scratch, or from the weights that the model has (fine-tuning).

        Args:
            texts: a path, a directory, strings: what ``revgen.read`` takes.
            valid: text to validate on after each epoch, in the same forms, or the share of ``texts`` to hold
                out for it (whole documents). With it the best epoch's weights are kept, otherwise the last's.
            labels: for architectures that can be conditioned on one, the label of each text, as ``revgen.read`` takes
                them: one for each text or file, or the name of the field that holds them. Whole numbers stay numbers.
            epochs: passes over the text; where neither this nor ``max_seconds`` is given, as many as ``preset`` takes
                for the size of the corpus.
            max_seconds: a budget that the schedule of the learning rate is fitted to, validation included.
            batch_size: rows of text read side by side; chosen from the size of the corpus where not given.
            sequence_length: tokens that gradients reach back over, about: drawn anew for each step.
            learning_rate: the peak of a one-cycle schedule, for AdamW; where not given, the architecture's own (of
                recurrent networks 1e-2), and a fifth of it for fitted weights.
            weight_decay: of the matrices, decoupled.
            averaging: the part of the run, at its end, over whose steps the weights are averaged; the average
                is validated and kept. The architecture's choice where not given, for most 0: none.
            patience: stop after so many epochs without a better one; None: never.
            seed: of the first weights, the order of the text and dropout: the same seed gives the same
                weights on one CPU.
            extend_vocabulary: give characters (and words) that a fitted model does not know tokens of their
                own; without it, such characters are a VocabularyError.
            accumulate: in how many parts, one after the other, each batch is computed: for less memory; the steps are
                the same.
            preset: "quick", "balanced" or "best": how much text is read in all, where neither ``epochs`` nor
                ``max_seconds`` says so, and the width and dropout of a new network that has been left open.
            checkpoint: a directory to keep the state of training in, after each epoch and each minute; for another
                rhythm, ``revgen.CheckpointConfig``.
            resume: go on from the last state in ``checkpoint``, if there is one, to the same end.
            callbacks: ``revgen.Callback`` objects, or functions called with the model and the ``Epoch`` after each
                epoch.
            progress: show a bar, the figures and a sample after each epoch.
            sample: the prompt of these samples.
            index: remember ``texts``, a held-out share among them, to tell what the model copies: see ``index_texts``.
            reading: how ``texts`` and ``valid`` are read; ``revgen.read`` describes these options.

        Ctrl-C ends training and keeps the best weights. A loss that diverges takes training back to the last
        good weights with half the learning rate; after three times it is a TrainingError, and the model keeps
        the last good weights. Raises CorpusError for text that cannot be read, is empty or too short.
        """
        from revgen.corpus import read
        from revgen.training.loop import fit
        from revgen.training.recipe import Recipe

        recipe = Recipe(
            epochs,
            max_seconds,
            batch_size,
            sequence_length,
            learning_rate,
            weight_decay,
            weight_averaging=self.weight_averaging if weight_averaging is None else weight_averaging,
            patience=patience,
            seed=seed,
            preset=preset,
        )
        if labels is not None:
            self.check_labels()
        if not (valid is None or isinstance(valid, int | float)):
            named = labels if isinstance(labels, str) else None  # a list is of the texts alone
            valid = read(valid, labels=named, **reading)
        published = self.is_fitted and "load_as" in self.metadata
        corpus = read(texts, labels=labels, **reading)
        history = fit(
            self,
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
        if published:
            self.unpublish()
        self.metadata["history"] = history_figures(history)
        if index_texts:
            self.index_texts(corpus)
        return history

    def unpublish(self) -> None:
        """Forget what the card tells of other weights than the present ones."""
        self.metadata = {k: v for k, v in self.metadata.items() if k not in ("load_as", "description", "samples")}

    @checked
    def find_lr(
        self,
        texts: Any,
        *,
        low: float = 1e-5,
        high: float = 1.0,
        steps: int = 100,
        labels: Any = None,
        batch_size: int | None = None,
        sequence_length: int = 100,
        seed: int = 0,
        **reading: Unpack[ReadOptions],
    ) -> LRFinderResult:
        """Try learning rates from ``low`` to ``high`` in ``steps`` steps of one short run (Smith 2017).

        The model stays as it is. The result has a ``suggestion`` for ``fit(learning_rate=…)``, and a ``plot``. The
        other parameters are those of ``fit``.
        """
        from revgen.corpus import read
        from revgen.training.lr_finder import find_lr
        from revgen.training.recipe import Recipe

        corpus = read(texts, labels=labels, **reading)
        recipe = Recipe(epochs=1, batch_size=batch_size, sequence_length=sequence_length, seed=seed)
        return find_lr(self, corpus, recipe, low, high, steps)
