"""``Model``: the computation of a language model, without the methods that users call.

A model is a tokenizer, a configuration and weights. It reads token ids and returns logits and a state. Sampling,
evaluation, training, storage and the Hub depend on this class; ``LanguageModel`` adds ``fit``, ``generate`` and so on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from revgen.arguments import validate_call
from revgen.compact_index import TextIndex
from revgen.corpus import Corpus
from revgen.corpus.cache import train_or_load
from revgen.corpus.progress import with_progress
from revgen.corpus.tokens import label_offset
from revgen.derived import derived
from revgen.errors import NotFittedError, NotTraceableError, OptionError, VocabularyError
from revgen.novelty import SuffixIndex
from revgen.ops import concatenate, tree_map
from revgen.options import as_float, convert_fields, safe_repr, to_builtins
from revgen.registry import package_of, tokenizers
from revgen.sequences import Adaptation, CompiledStep, ForwardReader, TokenReader, iter_blocks, score_sequences
from revgen.tensors import describe_misfit
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.hex_fallback import MIN_SPELLED_FRACTION

Weights = dict[str, NDArray[Any]]


class Model(ABC):
    """A tokenizer, a configuration, and weights as NumPy arrays by name.

    A subclass defines ``Config`` (a frozen dataclass of plain values), ``weight_shapes``, ``forward`` and
    ``initial_state``.
    """

    Config: ClassVar[type[Any]]
    levels: ClassVar[tuple[str, ...] | None] = None
    """The tokenizer levels that the architecture works with; None for all."""
    takes_labels: ClassVar[bool] = False
    """Whether the architecture can be conditioned on labels. If so, ``Config`` has a field ``labels``, which ``fit``
    sets, and ``forward`` accepts ids that carry a label (``corpus.tokens.label_offset``)."""

    _compile_requested = False

    def __init__(
        self,
        architecture: str,
        level: str,
        config: Any,
        tokenizer: Tokenizer | None = None,
        tokenizer_options: dict[str, Any] | None = None,
    ) -> None:
        self.architecture = architecture
        self.level = level
        self.config = config
        self.tokenizer_options = to_builtins(tokenizer_options or {})
        self.metadata: dict[str, Any] = {}
        """Facts about the model that are saved with it: licence, corpus, training, evaluation."""
        self.generation_config: dict[str, Any] = {}
        """A ``prompt`` and options of ``generate`` for calls that give none. They are saved with the model."""
        self.device = "cpu"
        self.saved_hashes: frozenset[str] = frozenset()
        """The hashes of the files from which the weights were loaded, and in which they were saved."""
        self._tokenizer = tokenizer
        self._weights: Weights | None = None
        self._derived: dict[str, Any] = {}
        self._index: TextIndex | Callable[[], TextIndex] | None = None  # a function reads it from its file on first use
        self._warned = False

    # Methods that subclasses define

    @abstractmethod
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight by name, for this configuration and tokenizer."""

    @abstractmethod
    def initial_state(self, batch: int) -> Any:
        """Return the state at the start of ``batch`` documents. Only the model looks inside a state."""

    @abstractmethod
    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Compute logits (time, batch, vocab) and the next state from token ids (time, batch) and a state."""

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Read token ids (time, batch) and return the logits after the last one, (batch, vocab), and the next state.

        Unlike ``forward``, this needs the same amount of memory for texts of any length.
        """
        for block in iter_blocks(tokens):
            logits, state = self.forward(block, state)
        return logits[-1], state

    def join_states(self, states: Sequence[Any]) -> Any:
        """Return one state for the texts of several states, in this order. Each text has read at least one token."""
        return tree_map(lambda *arrays: concatenate(arrays, 0), *states)

    def token_reader(self, state: Any, num_tokens: int) -> TokenReader:
        """Return a reader of ``num_tokens`` tokens of one text, from a state on, with the logits of ``forward``."""
        return ForwardReader(self.forward, state)

    def validate_config(self) -> None:  # noqa: B027  most configurations validate themselves
        """Raise OptionError if no model can be built from the configuration. ``create`` calls this."""

    def check_generation_config(self) -> None:  # noqa: B027  the options are defined in a higher layer
        """Raise OptionError unless ``generation_config`` holds a prompt and options of ``generate`` for this model."""

    def validate_weights(self, arrays: Weights) -> str | None:
        """Return a sentence that says why these arrays cannot be the weights of this model, or None if they can."""
        return describe_misfit(arrays, self.weight_shapes())

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Yield ``(index, logprobs)`` for each sequence of ids, in any order: one entry per token after the first."""
        return score_sequences(self.forward, self.initial_state, sequences)

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        """Return a copy of this model with the counts of other documents of ids, and with this tokenizer.

        Whatever is not a count, such as the weights of a mixture, stays the same. Raises OptionError for a model that
        does not count; with ``keep_networks``, it stays the same too.
        """
        if keep_networks:
            return self
        raise OptionError(f"{self.name} has no counts, as kneser-ney and mixtures of such models have")

    def features(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Compute the input of the output layer, (time, batch, features), and the next state.

        Raises OptionError for a model that is not a network.
        """
        raise OptionError(f"{self.name} is not a network, so it cannot compute vectors of texts")

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return the attention weights of a document, (layers, heads, time, time), from its ids, (time,).

        Raises OptionError for a model without attention, and for a document that is too long.
        """
        raise OptionError(f"{self.name} has no attention weights")

    def build_compiled(self) -> CompiledStep | None:
        """Build compiled code with the current weights; return None if the architecture has none.

        Raises NotTraceableError for an equation that cannot be traced.
        """
        return None

    def sampler_network(self) -> Any:
        """Return the PyTorch network that can sample many tokens at once on its device, or None if there is none."""
        return None

    # Tokenizer and labels

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises NotFittedError if there is none yet."""
        if self._tokenizer is None:
            raise NotFittedError(f"{self.name} has no tokenizer yet: fit it, or create it with tokenizer=…")
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._clear_caches()

    @property
    def has_tokenizer(self) -> bool:
        """Whether the model has a tokenizer."""
        return self._tokenizer is not None

    def tokenizer_for(self, texts: Corpus, extend: bool = False, progress: bool = False) -> Tokenizer:
        """Return the tokenizer to train with: the model's own, or one trained on the texts if the model has none.

        ``extend`` adds the new tokens of the texts to it; ``progress`` shows how much of a large corpus has been read.
        Raises VocabularyError if the tokenizer of a fitted model cannot represent a character of the texts.
        """
        if not self.has_tokenizer:
            return train_or_load(tokenizers.get(self.level), texts, self.tokenizer_options, progress)
        if not extend and (self.tokenizer.is_lossless or not self.is_fitted):
            return self.tokenizer
        pieces = with_progress(texts.pieces(), texts, "vocabulary", progress)
        if extend:
            return self.tokenizer.extend(pieces)
        if unknown := self.tokenizer.unknown_characters(pieces):
            raise VocabularyError(
                f"{self.name} does not know {len(unknown)} characters of this text: {' '.join(unknown[:20])!r}. "
                "Pass extend_vocabulary=True to learn them, or remove them from the text"
            )
        return self.tokenizer

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return ``bos_id`` and the ids of a prompt. Warns once about unknown characters."""
        ids = self.tokenizer.encode(prompt).tolist()
        if self.tokenizer.unk_id in ids and not self._warned:
            self._warned = True
            unknown = sorted({c for c in {*prompt} if self.tokenizer.unk_id in self.tokenizer.encode(c)})
            names, token = ", ".join(map(repr, unknown)), self.tokenizer.vocabulary[2]
            warnings.warn(f"{self.name} does not know {names} and reads {token} instead", stacklevel=6)
        return [self.tokenizer.bos_id, *ids]

    @property
    def can_spell(self) -> bool:
        """Whether ``generate`` may spell characters outside the vocabulary.

        A character is spelled as a sequence of digit tokens (``tokenizers.hex_fallback``). Unless more than 5 % of the
        training text was spelled, a model has seen too few of these tokens to predict them.
        """
        return bool(as_float(self.metadata.get("spelled", 0)) > MIN_SPELLED_FRACTION)

    @property
    def suppressed_tokens(self) -> list[int]:
        """The ids of the tokens that are never sampled, unless ``regex`` or ``choices`` requires a digit token."""
        tokenizer = self.tokenizer
        return [tokenizer.bos_id, tokenizer.unk_id, *([] if self.can_spell else tokenizer.digit_ids)]

    @property
    def adaptation(self) -> Adaptation:
        """How the model adapts to the document that it reads. A model that does is evaluated on whole documents."""
        return "fixed weights"

    @property
    def has_large_states(self) -> bool:
        """Whether the state of a text may take so much memory that few texts can be generated together."""
        return False

    @property
    def copies_training_text(self) -> bool:
        """Whether the model counts the training text: it predicts this text far too well, and generates parts of it."""
        return False

    @property
    def labels(self) -> tuple[str | int, ...]:
        """The labels that the model was fitted with."""
        return tuple(getattr(self.config, "labels", ()))

    def check_labels(self) -> None:
        """Raise OptionError if the architecture cannot be conditioned on labels."""
        if not self.takes_labels:
            raise OptionError(f"{self.name} cannot be conditioned on labels")

    def label_offset(self, label: str | float | bool | None) -> int:
        """Return the number that a label adds to token ids. Raises OptionError for an unknown label."""
        if label is not None:
            self.check_labels()
        return label_offset(label, self.labels, len(self.tokenizer))

    # Configuration and weights

    @property
    def config(self) -> Any:
        """The configuration. NumPy numbers in it become Python numbers."""
        return self._config

    @config.setter
    def config(self, config: Any) -> None:
        if dataclasses.is_dataclass(config):
            convert_fields(config)
        self._config = config

    @property
    def name(self) -> str:
        """The name of the model: ``<architecture>-<level>``."""
        return f"{self.architecture}-{self.level}"

    @property
    def weights(self) -> Weights:
        """The weights by name. Raises NotFittedError if there are none yet."""
        if self._weights is None:
            raise NotFittedError(f"{self.name} has no weights yet: fit it, or load one that was saved")
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self._weights = weights
        self._clear_caches()

    def _clear_caches(self) -> None:
        """Drop all values that were computed from earlier weights or for another device."""
        self._derived = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to copy or pickle, without the values that can be computed again."""
        return self.__dict__ | {"_derived": {}}

    @property
    def is_fitted(self) -> bool:
        """Whether the model has weights."""
        return self._weights is not None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of architecture, configuration, tokenizer and weights. Equal models generate equal texts."""
        parts = [self.architecture, self.level, dataclasses.asdict(self.config), self.tokenizer.fingerprint]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        for name, array in sorted(self.weights.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def num_parameters(self) -> int:
        """The number of values in the weights."""
        return sum(array.size for array in self.weights.values())

    @property
    def explained_by(self) -> tuple[type, ...]:
        """The classes whose docstrings explain the computation, from the outermost to the innermost."""
        return (type(self),)

    @property
    def package(self) -> str | None:
        """The plug-in package that provides the architecture, a cell or the tokenizer; None if they are built in."""
        classes = (*self.explained_by, type(self.tokenizer))
        return next(filter(None, map(package_of, classes)), None)

    def __repr__(self) -> str:
        size = f"{self.num_parameters:,} parameters, {len(self.tokenizer):,} tokens" if self.is_fitted else "not fitted"
        return f"<revgen model {self.name}: {size}>"

    # Device and compiled code

    @validate_call
    def to(self, device: str) -> Self:
        """Compute on this device from now on: "cpu", "cuda", "cuda:1" or "mps". Raises OptionError if it is missing.

        "auto" is a GPU if there is one that the model can use, otherwise the CPU.
        """
        if device not in ("cpu", "auto"):
            raise OptionError(f"{self.name} computes on the CPU only: device must be 'cpu', not {safe_repr(device)}")
        return self

    def compile(self) -> Self:
        """Use compiled code from now on to generate single texts on the CPU. Logits agree to float32 precision.

        This works for every network whose equation runs on NumPy, your own cells included, and for n-gram models. The
        first text takes a few seconds longer; the compiled code is cached on disk. Raises MissingExtraError without
        Numba, and OptionError for other models.
        """
        try:
            step = self._compiled_step
        except NotTraceableError as error:
            raise OptionError(f"{self.name} cannot be compiled: {error}") from error
        if step is None:
            raise OptionError(f"{self.name} cannot be compiled")
        self._compile_requested = True
        return self

    @derived
    def _compiled_step(self) -> CompiledStep | None:
        return self.build_compiled()

    @property
    def compiled(self) -> CompiledStep | None:
        """The compiled code, if ``compile`` was called."""
        return self._compiled_step if self._compile_requested else None

    # The index of the training text

    @property
    def has_index(self) -> bool:
        """Whether the model has an index of its training text."""
        return self._index is not None

    def forget_index(self) -> None:
        """Remove the index of the training text, for example because the model is trained on another one."""
        self._index = None

    @property
    def index(self) -> SuffixIndex:
        """The index with the training text. Raises NotFittedError if there is none, or only a compact one."""
        index = self.text_index
        if not isinstance(index, SuffixIndex):
            raise NotFittedError(
                f"{self.name} has a compact index, without the training text, which only max_copied_chars and "
                "known_words can use: call index_texts(texts)"
            )
        return index

    @property
    def text_index(self) -> TextIndex:
        """The index of the training text, compact or not. Raises NotFittedError if there is none."""
        index = self._index
        if index is None:
            raise NotFittedError(
                f"{self.name} has no index of its training text: fit it with index_texts=True, or call "
                "index_texts(texts) with the texts that it was fitted on",
                command=f"{self.name} has no index of its training text: fit it with index_texts=True",
            )
        if callable(index):
            index = self._index = index()
        return index
