"""The interface that every model of the zoo has, and the directory that holds one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from revgen.errors import (
    CheckpointError,
    NotFittedError,
    OptionError,
    UnknownModelError,
    VocabularyError,
)
from revgen.files import write_atomically
from revgen.registry import package_of, tokenizers
from revgen.schema import check, check_options, listed, read, shortened
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.corpus import Corpus
    from revgen.evaluation.likelihood import Evaluation, Score
    from revgen.generation.sampler import SamplingOptions
    from revgen.training.history import History
    from revgen.training.rates import LearningRates

FORMAT_VERSION = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PENDING = ".new"

Weights = dict[str, NDArray[Any]]


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
        self.tokenizer_options = tokenizer_options or {}
        self.metadata: dict[str, Any] = {}
        """What is known of the model beside its weights (licence, corpus, training, evaluation); saved with it."""
        self.device = "cpu"
        self._tokenizer = tokenizer
        self._weights: Weights | None = None
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

    @abstractmethod
    def fit(self, texts: Any, valid: Any = None, *args: Any, **options: Any) -> History:
        """Learn from texts. Subclasses add options."""

    def find_lr(self, texts: Any, *args: Any, **options: Any) -> LearningRates:
        """Try learning rates: see ``NeuralModel.find_lr``."""
        raise OptionError(f"{self.name} is not trained by steps, so it has no learning rate to find")

    def check(self) -> None:  # noqa: B027  most configurations check themselves
        """Raise OptionError where the configuration cannot be built; called before anything is learnt."""

    def misfit(self, arrays: Weights) -> str | None:
        """What is wrong with these arrays as the weights of this model; None where they fit."""
        shapes = self.weight_shapes()
        missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
        if missing or extra:
            return f"not the weights of its configuration: missing {listed(missing)}, unknown {listed(extra)}"
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
        Raises VocabularyError where a fitted model does not know a character of them.
        """
        from revgen.corpus.cache import trained
        from revgen.corpus.progress import watched

        if not self.has_tokenizer:
            return trained(tokenizers.get(self.level), texts, self.tokenizer_options, progress)
        pieces = watched(texts.pieces(), texts, "vocabulary", progress)
        if extend:
            return self.tokenizer.extend(pieces)
        if self.fitted and (missing := self.tokenizer.missing(pieces)):
            raise VocabularyError(
                f"{self.name} does not know {len(missing)} characters of this text: {' '.join(missing[:20])!r}. "
                "Pass extend_vocabulary=True to learn them, or take them out of the text"
            )
        return self.tokenizer

    # What is known --------------------------------------------------------------------------

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
        self.forget()

    def forget(self) -> None:  # noqa: B027  not every model keeps something
        """Drop what was made from weights or for a device that are no longer the present ones."""

    @property
    def fitted(self) -> bool:
        """Whether there are weights."""
        return self._weights is not None

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
        size = f"{self.num_parameters:,} parameters, {len(self.tokenizer):,} tokens" if self.fitted else "not fitted"
        return f"<revgen model {self.name}: {size}>"

    def describe(self) -> dict[str, Any]:
        """Name, sizes, configuration and metadata, in plain values."""
        return {
            "name": self.name,
            "parameters": self.num_parameters,
            "tokens": len(self.tokenizer),
            "config": dataclasses.asdict(self.config),
            "metadata": self.metadata,
        }

    def to(self, device: str) -> Self:
        """Compute on this device from now on ("cpu", "cuda", "cuda:1", "mps")."""
        if device != "cpu":
            raise OptionError(f"{self.name} computes on the CPU only, not on {device!r}")
        return self

    # Text -----------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompt: str = "",
        *,
        n: Literal[1] = 1,
        max_tokens: int = 300,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        label: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: str = "",
        *,
        n: int = ...,
        max_tokens: int = 300,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        label: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[str]: ...

    def generate(
        self,
        prompt: str = "",
        *,
        n: int = 1,
        max_tokens: int = 300,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        label: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str | list[str]:
        """The prompt and its continuation; for ``n`` > 1 a list of ``n`` of them.

        The text ends where the model ends the document, before the first of the ``stop`` strings, or
        after ``max_tokens`` tokens. The same ``seed`` gives the same text. ``label`` is one of ``labels``, for models
        that were fitted with them. ``temperature``, ``top_k``,
        ``top_p``, ``min_p`` and ``repetition_penalty`` are described at ``revgen.Sampling``.
        Raises OptionError for a value outside its range, before anything is drawn.
        """
        from revgen.generation.decoding import decode
        from revgen.generation.sampler import Sampling

        pieces = decode(
            self, prompt, Sampling(**sampling), n=n, max_tokens=max_tokens, stop=stop, seed=seed, label=label
        )
        texts = [[prompt] for _ in range(n)]
        for row, piece in pieces:
            texts[row].append(piece)
        joined = ["".join(parts) for parts in texts]
        return joined[0] if n == 1 else joined

    def stream(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 300,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        label: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """What ``generate`` puts behind the prompt, piece by piece as it is drawn."""
        from revgen.generation.decoding import decode
        from revgen.generation.sampler import Sampling

        pieces = decode(self, prompt, Sampling(**sampling), max_tokens=max_tokens, stop=stop, seed=seed, label=label)
        return (piece for _, piece in pieces)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model was fitted with."""
        return tuple(getattr(self.config, "labels", ()))

    def check_labels(self) -> None:
        """Raise OptionError where the architecture cannot be conditioned on labels."""
        if not self.takes_labels:
            raise OptionError(f"{self.name} cannot be conditioned on labels")

    def label_shift(self, label: str | None) -> int:
        """What a label adds to the ids of its text (``corpus.tokens.shift``). Raises OptionError for one that there
        is not."""
        from revgen.corpus.tokens import shift

        if label is not None:
            self.check_labels()
        return shift(label, self.labels, len(self.tokenizer))

    def encode_prompt(self, prompt: str) -> list[int]:
        """The document's start and the ids of a prompt; warns once where the model does not know a character."""
        ids = self.tokenizer.encode(prompt).tolist()
        if self.tokenizer.unknown in ids and not self._warned:
            self._warned = True
            strange = sorted({c for c in prompt if self.tokenizer.unknown in self.tokenizer.encode(c)})
            warnings.warn(
                f"{self.name} does not know {', '.join(map(repr, strange))}: read as {self.tokenizer.vocabulary[2]}",
                stacklevel=4,
            )
        return [self.tokenizer.start, *ids]

    def score(self, text: str, *, label: str | None = None) -> Score:
        """The log-probability of each token of one document, then that of its end."""
        from revgen.evaluation.likelihood import score

        return score(self, text, label)

    def evaluate(
        self, texts: Any, *, labels: Any = None, field: str = "text", documents: str = "file", errors: str = "raise"
    ) -> Evaluation:
        """How well the model predicts documents: nats and bits per character, perplexity per token.

        ``texts`` is what ``revgen.read`` takes, and so are the other parameters; with ``labels``, each document is
        predicted under its own.
        """
        from revgen.corpus import read
        from revgen.evaluation.likelihood import evaluate

        if labels is not None:
            self.check_labels()
        corpus = read(texts, field=field, documents=documents, errors=errors, labels=labels)
        return evaluate(self, corpus, () if labels is None else self.labels)

    # The model directory --------------------------------------------------------------------

    def save(self, directory: str | Path, *, dtype: Literal["float32", "float16"] = "float32") -> Path:
        """Write the model directory: configuration, tokenizer, weights, and a card where there is none.

        A process killed at any moment leaves the directory with the last good model or with this one.
        ``dtype="float16"`` halves the file. Of several processes under ``torchrun``, only the first writes.
        """
        from safetensors.numpy import save

        from revgen.card import card

        if dtype not in ("float32", "float16"):
            raise OptionError(f'dtype must be "float32" or "float16", not {dtype!r}')
        directory = Path(directory)
        if os.environ.get("RANK", "0") != "0":
            return directory
        with np.errstate(over="ignore"):
            arrays = {name: _stored(array, dtype) for name, array in self.weights.items()}
        if strange := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise CheckpointError(
                f"{directory}: the weight {strange[0]} holds values that are not finite numbers as {dtype}; not saved"
            )
        weights = save(arrays)
        tokenizer = self.tokenizer.to_bytes()
        config = {
            "format_version": FORMAT_VERSION,
            "revgen_version": _version(),
            "architecture": self.architecture,
            "level": self.level,
            "package": self.package,
            "config": dataclasses.asdict(self.config),
            "tokenizer": _entry(self.tokenizer.file, tokenizer) | {"tokens": len(self.tokenizer)},
            "weights": _entry(WEIGHTS, weights) | {"parameters": self.num_parameters, "dtype": dtype},
            "metadata": self.metadata,
        }
        marks = json.dumps(config, indent=2, default=np.generic.item).encode()  # NumPy's numbers as plain ones
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _settle(directory)
            write_atomically(directory / f"{WEIGHTS}{PENDING}", weights)
            write_atomically(directory / f"{self.tokenizer.file}{PENDING}", tokenizer)
            # From the moment that this file stands, the new model is the one that counts.
            write_atomically(directory / f"{CONFIG}{PENDING}", marks)
            _settle(directory)
            if not (directory / CARD).exists():
                write_atomically(directory / CARD, card(self).encode())
        except OSError as error:
            raise CheckpointError(f"{directory}: could not save the model: {error.strerror or error}") from error
        return directory

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

    def save_pretrained(self, directory: str | Path) -> Path:
        """``save``, by the name that other libraries of the Hub give it."""
        return self.save(directory)

    @staticmethod
    def from_pretrained(name: str | Path, **options: Any) -> LanguageModel:
        """``revgen.load``, by the name that other libraries of the Hub give it."""
        from revgen.zoo import load

        return load(name, **options)

    @staticmethod
    def from_directory(directory: str | Path) -> LanguageModel:
        """The model in a directory. Raises CheckpointError that names the file where one is damaged."""
        from revgen.zoo import architecture_class

        directory = Path(directory)
        content = read_config(directory)
        where = directory / CONFIG
        architecture, level, options = content["architecture"], content["level"], content["config"]
        tokenizer_entry, weights_entry = content["tokenizer"], content["weights"]
        try:
            model_class = architecture_class(architecture)
        except UnknownModelError as error:
            raise UnknownModelError(
                f"{where} needs {architecture!r}, which is not registered here ({error}). {_offer(content)}, or put "
                f"@revgen.register_cell({architecture!r}) on its class, and load again"
            ) from None
        try:
            tokenizer_class = tokenizers.get(level)
        except UnknownModelError as error:
            raise UnknownModelError(
                f"{where} needs a tokenizer that is not registered here: {error}. {_offer(content)}, and load again"
            ) from None
        tokenizer = tokenizer_class.from_bytes(_read(directory / tokenizer_entry["file"], tokenizer_entry["sha256"]))
        try:
            check_options(model_class.Config, options)
            model: LanguageModel = model_class(architecture, level, model_class.Config(**options), tokenizer)
            model.weight_shapes()
        except Exception as error:  # whatever an architecture or a cell makes of values that it never wrote
            why = str(error)[:500]
            raise CheckpointError(f"{where} has a configuration that {architecture} does not take: {why}") from error
        metadata = content.get("metadata", {})
        model.metadata = metadata if isinstance(metadata, dict) else {}
        path = directory / weights_entry["file"]
        arrays = _read_arrays(path, weights_entry["sha256"])
        if problem := model.misfit(arrays):
            raise CheckpointError(f"{path}: {problem}")
        model.weights = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in arrays.items()}
        return model


def read_config(directory: Path) -> dict[str, Any]:
    """The content of a model directory's config.json, after a save that was cut off is brought to its end.

    Raises CheckpointError unless it has all that a model is made from, of the kinds and sizes that ``schema`` allows.
    """
    _settle(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is no model directory: it has no {CONFIG}")
    content = read(path)
    if "format_version" not in content:
        raise CheckpointError(f"{path} is damaged, or not of a revgen model: it has no format_version")
    if (version := content["format_version"]) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has the format version {shortened(version)}; this revgen {_version()} reads {FORMAT_VERSION}: "
            "upgrade revgen to read a newer one"
        )
    check(content, path)
    return content


def _offer(content: dict[str, Any]) -> str:
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
    content = read(pending)
    check(content, pending)
    try:
        for name in (content["weights"]["file"], content["tokenizer"]["file"], CONFIG):
            file = directory / name
            if (waiting := Path(f"{file}{PENDING}")).exists():
                waiting.replace(file)
    except OSError as error:
        raise CheckpointError(f"{pending}: could not finish an interrupted save: {error.strerror or error}") from None


def _stored(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else None)


def _entry(file: str, data: bytes) -> dict[str, Any]:
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest()}


def _read(path: Path, sha256: object) -> bytes:
    """The content of a file of a model directory, checked against its hash."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged, or belongs to another model: its hash is not the one in {CONFIG}")
    return data


def _read_arrays(path: Path, sha256: object) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(_read(path, sha256))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _version() -> str:
    from revgen import __version__

    return __version__
