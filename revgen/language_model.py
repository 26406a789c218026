"""The interface that every model of the zoo has, and the directory that holds one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, Unpack, cast, overload

import numpy as np
from numpy.typing import NDArray

from revgen import schema
from revgen.arguments import checked
from revgen.errors import (
    CheckpointError,
    MissingExtraError,
    NotFittedError,
    OptionError,
    UnknownNameError,
    VocabularyError,
)
from revgen.files import HeldFile, is_first_process, to_json, write_atomically
from revgen.generation.settings import DEFAULTS, GenerationOptions
from revgen.options import ReadOptions, as_float, at_least, check, make_plain, plain, shown
from revgen.registry import package_of, tokenizers
from revgen.schema import check_options, join_names, truncate
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.spelled import MIN_SPELLED_FRACTION
from revgen.version import __version__

if TYPE_CHECKING:
    from revgen.corpus import Corpus
    from revgen.evaluation.attention import Attention
    from revgen.evaluation.likelihood import Evaluation, Score
    from revgen.evaluation.surprisal import Explanation
    from revgen.history import History
    from revgen.networks.compiled import Compiled
    from revgen.novelty import CopyReport, SuffixIndex
    from revgen.training.lr_finder import LRFinderResult
    from revgen.training.options import FitOptions

FORMAT_VERSION = 1
CONFIG, WEIGHTS, INDEX, CARD = "config.json", "model.safetensors", "index.safetensors", "README.md"
PENDING = ".new"
MAX_TEXTS = 1 << 20
"""Texts that are written side by side."""
PATIENCE = 100_000
"""Tokens after which it pays to import Numba, or even to wait for its compiler."""
READ_BLOCK_SIZE = 4096
"""Tokens that are read at once where only what follows the last is asked for."""
MAX_ATTENTION_WEIGHTS = 1 << 28
"""The most attention weights of a text: 1 GiB."""

DTYPES = {"BF16": "<u2", "BOOL": "?"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8) if kind + str(size) != "F1"
}
"""The NumPy type for each type of safetensors; the bits of bfloat16 are read as whole numbers."""

Weights = dict[str, NDArray[Any]]
T_co = TypeVar("T_co", covariant=True)


class derived(Generic[T_co]):  # noqa: N801  it is used like ``property``
    """A property that is computed once from the present weights and configuration; ``forget`` drops its value.

    All threads get the same value. One that was computed from weights that were replaced meanwhile is not kept.
    """

    def __init__(self, make: Callable[[Any], T_co]) -> None:
        self.make = make
        self.name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, model: Any, owner: type | None = None) -> T_co:
        if model is None:
            return cast(T_co, self)  # as an attribute of the class, which documentation asks for
        values: dict[str, Any] = model._derived  # which ``forget`` replaces
        if self.name not in values:
            values.setdefault(self.name, self.make(model))
        value: T_co = values[self.name]
        return value


class LanguageModel(ABC):
    """A model of text: a tokenizer, a configuration, and weights as NumPy arrays by name.

    A subclass gives ``Config`` (a frozen dataclass of plain values), ``weight_shapes``, ``forward``,
    ``initial_state`` and ``fit``; all the rest follows from these.
    """

    Config: ClassVar[type[Any]]
    levels: ClassVar[tuple[str, ...] | None] = None
    """The tokenizer levels that the architecture makes sense for; None: all."""
    takes_labels: ClassVar[bool] = False
    """Whether the architecture can be conditioned on labels. Then its ``Config`` has ``labels``, which ``fit`` fills
    in, and the ids that ``forward`` reads may carry one (``corpus.tokens.shift``)."""

    _compile_requested = False
    """Whether ``compile`` was called."""

    _tokens_generated = 0
    """Tokens that were written one after the other without machine code."""

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
        self.tokenizer_options = plain(tokenizer_options or {})
        self.metadata: dict[str, Any] = {}
        """What is known of the model beside its weights (licence, corpus, training, evaluation); saved with it."""
        self.device = "cpu"
        self._tokenizer = tokenizer
        self._weights: Weights | None = None
        self._derived: dict[str, Any] = {}
        self._index: SuffixIndex | None = None
        self._index_file: tuple[HeldFile, object] | None = None  # the file that it is in until asked for, and its hash
        self._warned = False

    # What a subclass gives ------------------------------------------------------------------

    @abstractmethod
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by name, for this configuration and tokenizer."""

    @abstractmethod
    def initial_state(self, batch: int) -> Any:
        """The state at the start of ``batch`` documents, opaque to all but the model."""

    @abstractmethod
    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Token ids (time, batch) and a state -> logits (time, batch, vocab) and the state behind them."""

    def next_logits(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Read token ids (time, batch) and return the logits of the token after the last, (batch, vocab), and the
        state.

        Unlike ``forward``, it takes memory that does not depend on the length of the text.
        """
        for part in iter_blocks(tokens):
            logits, state = self.forward(part, state)
        return logits[-1], state

    @abstractmethod
    def fit(self, texts: Any, valid: Any = None, **options: Unpack[FitOptions]) -> History:
        """Learn from texts. A subclass says which of the options it takes."""

    def find_lr(self, texts: Any, *args: Any, **options: Any) -> LRFinderResult:
        """Try learning rates: see ``NeuralModel.find_lr``."""
        raise OptionError(f"{self.name} is not trained by steps, so it has no learning rate to find")

    def validate_config(self) -> None:  # noqa: B027  most configurations check themselves
        """Raise OptionError where the configuration cannot be built; called before anything is learnt."""

    def validate_weights(self, arrays: Weights) -> str | None:
        """What is wrong with these arrays as the weights of this model; None where they fit."""
        shapes = self.weight_shapes()
        missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
        if missing or extra:
            return f"not the weights of its configuration: missing {join_names(missing)}, unknown {join_names(extra)}"
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                return f"the weight {name} has the shape {arrays[name].shape}, not {shape}"
            if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
                return f"the weight {name} holds values that are not finite numbers"
        return None

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Yield (index, log-probability of each token behind the first) for each of some sequences of ids."""
        from revgen.evaluation.likelihood import logprobs

        return logprobs(self.forward, self.initial_state, sequences)

    def tokenizer_for(self, texts: Corpus, extend: bool = False, progress: bool = False) -> Tokenizer:
        """The tokenizer to learn these texts with: the model's, extended on request, or one trained on them.

        ``progress`` shows on a terminal how much of a large corpus is read.
        Raises VocabularyError where a fitted model cannot write a character of them.
        """
        from revgen.corpus.cache import train_or_load
        from revgen.corpus.progress import with_progress

        if not self.has_tokenizer:
            return train_or_load(tokenizers.get(self.level), texts, self.tokenizer_options, progress)
        if not extend and (self.tokenizer.is_lossless or not self.is_fitted):
            return self.tokenizer
        pieces = with_progress(texts.pieces(), texts, "vocabulary", progress)
        if extend:
            return self.tokenizer.extend(pieces)
        if missing := self.tokenizer.unknown_characters(pieces):
            raise VocabularyError(
                f"{self.name} does not know {len(missing)} characters of this text: {' '.join(missing[:20])!r}. "
                "Pass extend_vocabulary=True to learn them, or take them out of the text"
            )
        return self.tokenizer

    # What is known --------------------------------------------------------------------------

    @property
    def config(self) -> Any:
        """The configuration, whose numbers are Python's own."""
        return self._config

    @config.setter
    def config(self, config: Any) -> None:
        if dataclasses.is_dataclass(config):
            make_plain(config)
        self._config = config

    @property
    def name(self) -> str:
        """``<architecture>-<level>``."""
        return f"{self.architecture}-{self.level}"

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises NotFittedError before there is one."""
        if self._tokenizer is None:
            raise NotFittedError(f"{self.name} has no tokenizer yet: fit it, or create it with tokenizer=…")
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer."""
        return self._tokenizer is not None

    @property
    def weights(self) -> Weights:
        """The weights by name. Raises NotFittedError before there are any."""
        if self._weights is None:
            raise NotFittedError(f"{self.name} has no weights yet: fit it, or load one that was saved")
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self._weights = weights
        self._clear_caches()

    def _clear_caches(self) -> None:
        """Drop what was made from weights or for a device that are no longer the present ones."""
        self._derived = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but what is made again on demand."""
        return self.__dict__ | {"_derived": {}}

    @property
    def is_fitted(self) -> bool:
        """Whether there are weights."""
        return self._weights is not None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of architecture, configuration, tokenizer and weights: equal for models that write the same."""
        given = [self.architecture, self.level, dataclasses.asdict(self.config), self.tokenizer.fingerprint]
        found = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
        for name, array in sorted(self.weights.items()):
            found.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    @property
    def writes_digits(self) -> bool:
        """Whether ``generate`` may spell characters outside the vocabulary: more than 5 % of the text that the model
        learnt from was spelled. A model that hardly ever saw a digit does not know what follows one."""
        return bool(as_float(self.metadata.get("spelled", 0)) > MIN_SPELLED_FRACTION)

    @property
    def suppressed_tokens(self) -> list[int]:
        """The ids of the tokens that are never drawn, unless a pattern or choices need a digit."""
        tokenizer = self.tokenizer
        return [tokenizer.bos_id, tokenizer.unk_id, *([] if self.writes_digits else tokenizer.digits)]

    @property
    def num_parameters(self) -> int:
        """The number of values in the weights."""
        return sum(array.size for array in self.weights.values())

    @property
    def explained_by(self) -> tuple[type, ...]:
        """The classes whose documentation says how the weights are put together, the widest first."""
        return (type(self),)

    @property
    def package(self) -> str | None:
        """The package to install for the architecture, a cell or the tokenizer, where revgen alone does not have it."""
        kinds = (type(self), *self.explained_by, type(self.tokenizer))
        return next(filter(None, map(package_of, kinds)), None)

    def __repr__(self) -> str:
        size = f"{self.num_parameters:,} parameters, {len(self.tokenizer):,} tokens" if self.is_fitted else "not fitted"
        return f"<revgen model {self.name}: {size}>"

    def info(self) -> dict[str, Any]:
        """Name, sizes, configuration and metadata, in plain values."""
        return {
            "name": self.name,
            "parameters": self.num_parameters,
            "tokens": len(self.tokenizer),
            "config": dataclasses.asdict(self.config),
            "metadata": plain(self.metadata),
        }

    @checked
    def to(self, device: str) -> Self:
        """Compute on this device from now on ("cpu", "cuda", "cuda:1", "mps")."""
        if device != "cpu":
            raise OptionError(f"{self.name} computes on the CPU only: device must be 'cpu', not {shown(device)}")
        return self

    def compile(self) -> Self:
        """Write single texts by machine code from now on, on the CPU: the numbers are the same to float32.

        There is machine code for recurrent stacks of ``elman``, ``rnn``, ``gru``, ``lstm`` and ``mingru``, for
        ``textgenrnn``, ``transformer`` and n-grams. The first text takes some seconds more, fewer once the machine code
        is on disk. Where Numba is installed, it takes over unasked after ``PATIENCE`` tokens. Raises
        MissingExtraError without Numba, OptionError for other models.
        """
        if self._machine_code is None:
            raise OptionError(f"{self.name} has no compiled step")
        self._compile_requested = True
        return self

    def build_compiled(self) -> Compiled | None:
        """What writes single texts with the present weights; None where there is nothing of the kind."""
        return None

    @derived
    def _machine_code(self) -> Compiled | None:
        return self.build_compiled()

    @property
    def compiled(self) -> Compiled | None:
        """The machine code, where it was asked for or pays."""
        if self._compile_requested or "_machine_code" in self._derived:
            return self._machine_code
        if self._tokens_generated > PATIENCE:
            self._tokens_generated = 0
            with contextlib.suppress(MissingExtraError):
                return self._machine_code
        return None

    # Text -----------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str = "", *, n: None = None, **options: Unpack[GenerationOptions]) -> str: ...

    @overload
    def generate(self, prompt: str = "", *, n: int, **options: Unpack[GenerationOptions]) -> list[str]: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], *, n: None = None, **options: Unpack[GenerationOptions]
    ) -> list[str]: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], *, n: int, **options: Unpack[GenerationOptions]
    ) -> list[list[str]]: ...

    @checked(defaults=DEFAULTS)
    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...] = "",
        *,
        n: int | None = None,
        **options: Unpack[GenerationOptions],
    ) -> str | list[str] | list[list[str]]:
        """Write the prompt and its continuation: a string, or a list of ``n`` strings where ``n`` is given.

        With ``num_beams``, the most likely text comes first, and there may be fewer than ``n``, as they all differ.
        For a list of prompts of any lengths, return a list of what each one alone gives, all written side by side.
        The text ends where the model ends the document, before the first of the ``stop`` strings, or after
        ``max_tokens`` tokens (300). The same ``seed`` gives the same text. ``label`` is one of ``labels``, for models
        that were fitted with them. ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``typical_p``,
        ``repetition_penalty``, ``frequency_penalty``, ``logit_bias`` and ``banned_tokens`` are described at
        ``revgen.Sampling``, all others at ``revgen.GenerationConfig``. Raises OptionError for an unknown option, a
        value outside its range, and options that do not combine, before anything is sampled.
        """
        from revgen.generation.decoding import decode
        from revgen.generation.settings import GenerationConfig

        prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
        settings = GenerationConfig.from_kwargs(options)
        count = 1 if n is None else n
        most = f"at most {MAX_TEXTS:,} for all prompts together: write more with write_samples"
        check("n", n, count * len(prompts) <= MAX_TEXTS, most)
        pieces = decode(self, prompts, settings, count, whole=True)
        rows = range(len(prompts) * count if settings.num_beams is None else 0)
        texts = {row: [prompts[row // count]] for row in rows}
        for row, piece in pieces:
            texts.setdefault(row, [prompts[row // count]]).append(piece)
        numbers = [range(i * count, (i + 1) * count) for i in range(len(prompts))]
        each = [["".join(texts[row]) for row in some if row in texts] for some in numbers]
        if settings.check_novelty:
            each = [list(map(self._checked, some)) for some in each]
        given = [some[0] for some in each] if n is None else each
        return given if isinstance(prompt, list | tuple) else given[0]

    @checked(defaults=DEFAULTS)
    def stream(self, prompt: str = "", **options: Unpack[GenerationOptions]) -> Iterator[str]:
        """What ``generate`` puts behind the prompt, piece by piece as it is drawn; with ``num_beams`` at once, as the
        likeliest text is known at the end of the search only."""
        from revgen.generation.decoding import decode
        from revgen.generation.settings import GenerationConfig

        settings = GenerationConfig.from_kwargs(options)
        check("check_novelty", settings.check_novelty, not settings.check_novelty, "False: a stream is no whole text")
        pieces = decode(self, [prompt], settings)
        return (piece for _, piece in pieces if piece)

    @checked(defaults=DEFAULTS)
    def write_samples(
        self,
        path: str | Path,
        prompt: str = "",
        *,
        n: int,
        batch_size: int = 32,
        resume: bool = False,
        progress: bool = True,
        source: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> int:
        """Write ``n`` texts to a file of JSON lines as they are made, and return how many it holds.

        Each line has the ``text`` and its ``receipt``, from which ``remake`` makes it again: model (``source``, or the
        name) and its fingerprint, prompt, seed, batch and options. ``resume`` goes on with a file that was cut off.
        """
        from revgen.generation.samples import write_samples

        return write_samples(
            self,
            Path(path),
            prompt,
            n,
            options,
            batch_size=batch_size,
            resume=resume,
            progress=progress,
            source=source,
        )

    @checked
    def regenerate(self, receipt: Mapping[str, Any]) -> str:
        """The text of a receipt that ``write_samples`` wrote. Raises OptionError for one of another model."""
        from revgen.generation.samples import remake

        return remake(self, receipt)

    @property
    def labels(self) -> tuple[str | int, ...]:
        """The labels that the model was fitted with."""
        return tuple(getattr(self.config, "labels", ()))

    def check_labels(self) -> None:
        """Raise OptionError where the architecture cannot be conditioned on labels."""
        if not self.takes_labels:
            raise OptionError(f"{self.name} cannot be conditioned on labels")

    def label_offset(self, label: str | float | bool | None) -> int:
        """Return what a label adds to the ids of its text (``corpus.tokens.shift``); a label may be a number, as for
        ``fit``. Raises OptionError for an unknown one."""
        from revgen.corpus.tokens import shift

        if label is not None:
            self.check_labels()
        return shift(label, self.labels, len(self.tokenizer))

    def encode_prompt(self, prompt: str) -> list[int]:
        """The document's start and the ids of a prompt; warns once where the model does not know a character."""
        ids = self.tokenizer.encode(prompt).tolist()
        if self.tokenizer.unk_id in ids and not self._warned:
            self._warned = True
            strange = sorted({c for c in {*prompt} if self.tokenizer.unk_id in self.tokenizer.encode(c)})
            warnings.warn(
                f"{self.name} does not know {', '.join(map(repr, strange))}: read as {self.tokenizer.vocabulary[2]}",
                stacklevel=5,
            )
        return [self.tokenizer.bos_id, *ids]

    @checked
    def score(self, text: str, *, label: str | float | bool | None = None) -> Score:
        """The log-probability of each token of one document, then that of its end."""
        from revgen.evaluation.likelihood import score

        return score(self, text, label)

    @checked
    def evaluate(self, texts: Any, *, labels: Any = None, **reading: Unpack[ReadOptions]) -> Evaluation:
        """How well the model predicts documents: nats and bits per character, perplexity per token.

        ``texts``, ``labels`` and the options of ``reading`` are what ``revgen.read`` takes; with ``labels``, each
        document is predicted under its own.
        """
        from revgen.corpus import read
        from revgen.evaluation.likelihood import evaluate

        if labels is not None:
            self.check_labels()
        corpus = read(texts, labels=labels, **reading)
        return evaluate(self, corpus, () if labels is None else self.labels)

    # What it sees ---------------------------------------------------------------------------

    @checked
    def explain(self, text: str, *, top: int = 5, label: str | float | bool | None = None) -> Explanation:
        """How the model expected each token of a text, and its end: log-probability, entropy, rank, and the ``top``
        likeliest tokens there; as a table, a data frame, a coloured line for a terminal, or HTML."""
        from revgen.evaluation.surprisal import explain

        return explain(self, text, top, label)

    @checked
    def attention(self, text: str, *, label: str | float | bool | None = None) -> Attention:
        """The attention weights on a text, and a picture of them. Raises OptionError for models without attention."""
        from revgen.evaluation.attention import Attention

        check("text", text, isinstance(text, str), "a string")
        ids = np.array([self.tokenizer.bos_id, *self.tokenizer.encode(text)])
        weights = self.attention_weights(ids + self.label_offset(label))
        return Attention(tuple(self.tokenizer.vocabulary[i] for i in ids), weights)

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return how much each token takes from each of those before it: ids (time,), from the start of a document ->
        (layers, heads, time, time). Raises OptionError for a model without attention, and for too long a text."""
        raise OptionError(f"{self.name} has no attention to show")

    # Vectors --------------------------------------------------------------------------------

    def features(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        """Like ``forward``, but what the logits are computed from: (time, batch, features). Raises OptionError for
        models that have no such vectors."""
        raise OptionError(f"{self.name} has no vectors of texts, as it is no network")

    @checked
    def embed(self, texts: list[str] | tuple[str, ...], *, pool: str = "mean") -> NDArray[np.float32]:
        """A vector of each text, (texts, features): the mean of what the network makes of its tokens, or with
        ``pool="last"`` what it has made of the text behind the last one. Raises OptionError for a model without."""
        from revgen.evaluation.embeddings import embed

        return embed(self, texts, pool)

    @checked
    def similarity(self, text: str, texts: list[str] | tuple[str, ...], *, pool: str = "mean") -> NDArray[np.float32]:
        """The cosine of the angle between the vectors of a text and of each of some others, (texts,): 1 for a text that
        is the same to the model. ``pool`` as for ``embed``."""
        from revgen.evaluation.embeddings import similarity

        return similarity(self, text, texts, pool)

    # Novelty --------------------------------------------------------------------------------

    @property
    def has_index(self) -> bool:
        """Whether there is an index of the training text."""
        return self._index_file is not None or self._index is not None  # in the order in which ``index`` sets them

    @property
    def index(self) -> SuffixIndex:
        """The training text, ready to look strings up in it. Raises NotFittedError where it was not kept."""
        from revgen.novelty import SuffixIndex

        held = self._index_file
        if self._index is None:
            if held is None:
                raise NotFittedError(
                    f"{self.name} has no index of its training text: fit it with index_texts=True, or call "
                    "index_texts(texts) with the texts that it was fitted on",
                    command=f"{self.name} has no index of its training text: fit it with index_texts=True",
                )
            file, sha256 = held
            try:
                self._index = SuffixIndex.from_bytes(_read(file, sha256))
            except ValueError as error:
                raise CheckpointError(f"{file} is damaged: {error}") from None
            self._index_file = None
        return self._index

    @checked
    def index_texts(self, texts: Any, **reading: Unpack[ReadOptions]) -> None:
        """Keep texts with the model, beside those that it remembers, to tell what is copied from them.

        ``texts`` and the options of ``reading`` are those of ``revgen.read``. ``fit(…, index_texts=True)`` does so with
        the texts that it learns from. The texts are saved with the model.
        """
        from revgen.corpus import read
        from revgen.novelty import SuffixIndex

        before = self.index.documents() if self.has_index else []
        self._index = SuffixIndex([*before, *read(texts, **reading)])

    def _checked(self, text: str) -> str:
        from revgen.novelty import CheckedText

        checked = CheckedText(text)
        checked.copied = self.novelty(text)
        return checked

    @checked
    def novelty(self, text: str, minimum: int = 20) -> CopyReport:
        """Which spans of a text, of at least ``minimum`` characters, stand in the training text as they are."""
        from revgen.novelty import find_copies

        check("text", text, isinstance(text, str), "a string")
        at_least("minimum", minimum, 1)
        return find_copies(text, self.index, minimum)

    # The model directory --------------------------------------------------------------------

    @checked
    def save(self, directory: str | Path, *, dtype: Literal["float32", "float16"] = "float32") -> Path:
        """Write the model directory: configuration, tokenizer, weights, and a card where there is none.

        A process killed at any moment leaves the directory with the last good model or with this one.
        ``dtype="float16"`` halves the file. Of several processes under ``torchrun``, only the first writes.
        """
        from safetensors.numpy import save

        if dtype not in ("float32", "float16"):
            raise OptionError(f'dtype must be "float32" or "float16", not {dtype!r}')
        directory = Path(directory)
        if not is_first_process():
            return directory
        with np.errstate(over="ignore"):
            arrays = {name: _stored(array, dtype) for name, array in self.weights.items()}
        if strange := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise CheckpointError(
                f"{directory}: the weight {strange[0]} holds values that are not finite numbers as {dtype}; not saved"
            )
        self.write(directory, save(arrays, {"format": "pt"}), dtype)
        return directory

    def write(self, directory: Path, weights: bytes, dtype: str, extra: Mapping[str, Any] | None = None) -> None:
        """Write the model directory with ``weights``, the content of the file of weights, whose values are ``dtype``.

        ``extra`` are further entries of config.json. Raises CheckpointError if a file cannot be written.
        """
        from revgen.card import card

        tokenizer = self.tokenizer.to_bytes()
        config = self.configuration() | {
            "tokenizer": _entry(self.tokenizer.file, tokenizer) | {"tokens": len(self.tokenizer)},
            "weights": _entry(WEIGHTS, weights) | {"parameters": self.num_parameters, "dtype": dtype},
            "metadata": self.metadata,
        }
        index = self.index.to_bytes() if self.has_index else None
        if index is not None:
            config["index"] = _entry(INDEX, index)
        try:
            marks = to_json({**(extra or {}), **config}, indent=2).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(f"metadata holds a value that config.json cannot hold: {error}") from None
        about = card(self).encode()
        self._check_written(directory, marks, tokenizer, weights)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _settle(directory)
            replaced = _tokenizer_file(directory)
            write_atomically(directory / f"{WEIGHTS}{PENDING}", weights)
            write_atomically(directory / f"{self.tokenizer.file}{PENDING}", tokenizer)
            if index is not None:
                write_atomically(directory / f"{INDEX}{PENDING}", index)
            # From the moment that this file stands, the new model is the one that counts.
            write_atomically(directory / f"{CONFIG}{PENDING}", marks)
            _settle(directory)
            # The files of the model that was there before, which this one does not replace.
            if index is None:
                (directory / INDEX).unlink(missing_ok=True)
            if replaced not in (None, self.tokenizer.file, CONFIG, WEIGHTS, INDEX, CARD):
                (directory / str(replaced)).unlink(missing_ok=True)
            if not (directory / CARD).exists():
                write_atomically(directory / CARD, about)
        except OSError as error:
            raise CheckpointError(f"{directory}: could not save the model: {error.strerror or error}") from error

    def _check_written(self, directory: Path, marks: bytes, tokenizer: bytes, weights: bytes) -> None:
        """Raise CheckpointError, before anything is written, where these files could not be loaded again."""
        content = schema.parse(marks, directory / CONFIG)
        schema.check(content, directory / CONFIG)
        read = type(self.tokenizer).from_bytes(tokenizer)
        if read.fingerprint != self.tokenizer.fingerprint:
            raise CheckpointError(f"{directory}: the file of the tokenizer would give another tokenizer; not saved")
        _assemble(type(self), content, read, _parse_arrays(directory / WEIGHTS, weights), directory)

    def configuration(self) -> dict[str, Any]:
        """Return what config.json says about the model before its files: plain values, as JSON has them."""
        content = {
            "format_version": FORMAT_VERSION,
            "revgen_version": __version__,
            "model_type": "revgen",  # what the Auto classes of transformers look at
            "suppress_tokens": self.suppressed_tokens,  # what its generation never draws
            "architecture": self.architecture,
            "level": self.level,
            "package": self.package,
            "config": dataclasses.asdict(self.config),
        }
        plain: dict[str, Any] = json.loads(json.dumps(content, default=np.generic.item))
        return plain

    @checked
    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        overwrite_card: bool = False,
    ) -> str:
        """Put the model into a repository of the Hugging Face Hub, in one commit: see ``revgen.hub.push``.

        Returns the address of the commit. Raises HubError.
        """
        from revgen.hub import push

        return push(
            self,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
            overwrite_card=overwrite_card,
        )

    @checked
    def save_pretrained(self, directory: str | Path) -> Path:
        """``save``, by the name that other libraries of the Hub give it."""
        return self.save(directory)

    @staticmethod
    def from_pretrained(name: str | Path, **options: Any) -> LanguageModel:
        """``revgen.load``, by the name that other libraries of the Hub give it."""
        from revgen.zoo import load

        return load(name, **options)

    @staticmethod
    @checked
    def from_directory(directory: str | Path) -> LanguageModel:
        """The model in a directory. Raises CheckpointError that names the file where one is damaged."""
        from revgen.zoo import architecture_class

        directory = Path(directory)
        content = read_config(directory)
        where = directory / CONFIG
        architecture, weights_entry = content["architecture"], content["weights"]
        try:
            model_class = architecture_class(architecture)
        except UnknownNameError as error:
            raise UnknownNameError(
                f"{where} needs {architecture!r}, which is not registered here ({error}). {_offer(content)}, or put "
                f"@revgen.register_cell({architecture!r}) on its class, and load again"
            ) from None
        tokenizer = read_tokenizer(directory, content)
        path = directory / weights_entry["file"]
        arrays = _parse_arrays(path, _read(path, weights_entry["sha256"]))
        model = _assemble(model_class, content, tokenizer, arrays, directory)
        metadata = content.get("metadata", {})
        model.metadata = metadata if isinstance(metadata, dict) else {}
        model.weights = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in arrays.items()}
        index = content.get("index")
        if index is not None and (directory / index["file"]).exists():  # the text may have been kept back
            model._index_file = HeldFile(directory / index["file"]), index["sha256"]
        return model


def _assemble(
    model_class: type[LanguageModel],
    content: Mapping[str, Any],
    tokenizer: Tokenizer,
    arrays: Weights,
    directory: Path,
) -> LanguageModel:
    """Return the model of a config.json, without its weights, if ``arrays`` fit it. Raises CheckpointError."""
    architecture, options = content["architecture"], content["config"]
    try:
        check_options(model_class.Config, options)
        model: LanguageModel = model_class(architecture, content["level"], model_class.Config(**options), tokenizer)
        model.weight_shapes()
    except Exception as error:  # whatever an architecture or a cell makes of values that it never wrote
        why = str(error)[:500]
        where = directory / CONFIG
        raise CheckpointError(f"{where} has a configuration that {architecture} does not take: {why}") from error
    if problem := model.validate_weights(arrays):
        raise CheckpointError(f"{directory / content['weights']['file']}: {problem}")
    return model


def iter_blocks(tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield token ids (time, batch) in parts of about ``BLOCK`` tokens."""
    step = max(1, READ_BLOCK_SIZE // tokens.shape[1])
    for begin in range(0, len(tokens), step):
        yield tokens[begin : begin + step]


def check_attention_size(time: int, maps: int) -> None:
    """Raise OptionError where ``maps`` matrices of (time, time) attention weights would take too much memory."""
    most = int((MAX_ATTENTION_WEIGHTS / maps) ** 0.5)
    if time > most:
        raise OptionError(f"text has {time:,} tokens: the attention weights of more than {most:,} take too much memory")


def read_config(directory: Path) -> dict[str, Any]:
    """The content of a model directory's config.json, after a save that was cut off is brought to its end.

    Raises CheckpointError unless it has all that a model is made from, of the kinds and sizes that ``schema`` allows.
    """
    _settle(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is no model directory: it has no {CONFIG}")
    content = schema.read(path)
    if "format_version" not in content:
        raise CheckpointError(f"{path} is damaged, or not of a revgen model: it has no format_version")
    if (version := content["format_version"]) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the format version {truncate(version)}; this revgen {__version__} reads {FORMAT_VERSION}: "
            "upgrade revgen to read a newer one"
        )
    schema.check(content, path)
    return content


def _tokenizer_file(directory: Path) -> str | None:
    """Return the name of the tokenizer's file of the model in a directory, None if there is no model."""
    try:
        return str(read_config(directory)["tokenizer"]["file"])
    except CheckpointError:
        return None


def read_tokenizer(directory: Path, content: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a model directory; ``content`` is that of its config.json.

    Raises UnknownNameError if its level is not registered, CheckpointError if its file is damaged.
    """
    entry = content["tokenizer"]
    try:
        tokenizer_class = tokenizers.get(content["level"])
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{directory / CONFIG} needs a tokenizer that is not registered here: {error}. {_offer(content)}, and load "
            "again"
        ) from None
    tokenizer: Tokenizer = tokenizer_class.from_bytes(_read(directory / entry["file"], entry["sha256"]))
    return tokenizer


def _offer(content: Mapping[str, Any]) -> str:
    """What to do about a part that is not registered: the package that config.json names is a stranger's word."""
    package = content.get("package")
    if isinstance(package, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", package):
        return f"It says that the package {package!r} offers it: install it if you trust it (pip install {package})"
    return "Import the package that brings it"


def _settle(directory: Path) -> None:
    """Put the files of a complete save in their places; the configuration comes last, as it marks them whole."""
    pending = directory / f"{CONFIG}{PENDING}"
    if not pending.exists():
        return
    content = schema.read(pending)
    schema.check(content, pending)
    try:
        entries = [content["weights"], content["tokenizer"], *([content["index"]] if "index" in content else [])]
        for name in (*(entry["file"] for entry in entries), CONFIG):
            file = directory / name
            if (waiting := Path(f"{file}{PENDING}")).exists():
                waiting.replace(file)
    except OSError as error:
        raise CheckpointError(f"{pending}: could not finish an interrupted save: {error.strerror or error}") from None


def _stored(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else None)


def _entry(file: str, data: bytes) -> dict[str, Any]:
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest()}


def _read(path: Path | HeldFile, sha256: object) -> bytes:
    """Read a file of a model directory, and check it against its hash."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged, or belongs to another model: its hash is not the one in {CONFIG}")
    return data


def _parse_arrays(path: Path, data: bytes) -> Weights:
    """Return the arrays in the content of a safetensors file; those of bfloat16, which NumPy lacks, as float32."""
    from safetensors import SafetensorError, deserialize

    try:
        arrays = {}
        for name, tensor in deserialize(data):  # type: ignore[no-untyped-call]
            array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
            arrays[name] = (array.astype("<u4") << 16).view("<f4") if tensor["dtype"] == "BF16" else array
        return arrays
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
