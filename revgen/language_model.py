"""``LanguageModel``: the interface that every model of the zoo has.

Each method is one call of the layer that does the work.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

import numpy as np
from numpy.typing import NDArray

from revgen import storage
from revgen.arguments import validate_call
from revgen.compact_index import extend_index
from revgen.corpus import read
from revgen.errors import OptionError
from revgen.files import expand_user
from revgen.generation.config import DEFAULTS, GenerationOptions
from revgen.generation.defaults import check_defaults
from revgen.model import Model
from revgen.novelty import CopyReport, find_copies
from revgen.options import ReadOptions, check, check_at_least, config_values, to_builtins
from revgen.registry import architecture_class, cells

if TYPE_CHECKING:
    from revgen.browser.network import BrowserNetwork
    from revgen.evaluation.attention import Attention
    from revgen.evaluation.likelihood import Evaluation, Score
    from revgen.evaluation.surprisal import Explanation
    from revgen.history import History
    from revgen.training.lr_finder import LRFinderResult
    from revgen.training.options import FitOptions

Label = str | float | bool | None
CACHES = {"ngram": "document-cache", "neural": "neural-cache"}
"""The architecture of each kind of cache."""
logger = logging.getLogger(__name__)


class LanguageModel(Model):
    """A model of text that can be trained, sampled from, evaluated, saved and shared.

    A subclass defines ``fit`` and the abstract methods of ``Model``.
    """

    def _repr_html_(self) -> str:
        from revgen.html_card import card_html

        return card_html(self)

    def info(self) -> dict[str, Any]:
        """Return the name, the sizes, the configuration and the metadata as plain values."""
        return {
            "name": self.name,
            "parameters": self.num_parameters,
            "tokens": len(self.tokenizer),
            "config": config_values(self.config),
            "generation_config": to_builtins(self.generation_config),
            "metadata": to_builtins(self.metadata),
        }

    # Training

    @abstractmethod
    def fit(self, texts: Any, valid: Any = None, **options: Unpack[FitOptions]) -> History:
        """Train on texts. Each architecture describes the options that it takes."""

    def find_lr(self, texts: Any, *args: Any, **options: Any) -> LRFinderResult:
        """Find a learning rate, as ``NeuralModel.find_lr`` describes. Raises OptionError for other models."""
        raise OptionError(f"{self.name} is not trained in steps, so it has no learning rate to find")

    def keyword_hint(self, name: str) -> str | None:
        """Return what to do with an option of ``create`` that was given to a method instead; None for other names."""
        cell: Any = cells.get(self.architecture) if cells.is_registered(self.architecture) else None
        cell_options = cell.options() if hasattr(cell, "options") else ()
        fields = dataclasses.fields(self.config) if dataclasses.is_dataclass(self.config) else ()
        if name not in (*(field.name for field in fields), *cell_options):
            return None
        return f"{name} is an option of a new model: revgen.create({self.name!r}, {name}=…)"

    # Generation

    def check_generation_config(self) -> None:
        """Raise OptionError unless ``generation_config`` holds a prompt and options of ``generate`` for this model."""
        check_defaults(self)

    @overload
    def generate(self, prompt: str | None = None, *, n: None = None, **options: Unpack[GenerationOptions]) -> str: ...

    @overload
    def generate(self, prompt: str | None = None, *, n: int, **options: Unpack[GenerationOptions]) -> list[str]: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], *, n: None = None, **options: Unpack[GenerationOptions]
    ) -> list[str]: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], *, n: int, **options: Unpack[GenerationOptions]
    ) -> list[list[str]]: ...

    @validate_call(defaults=DEFAULTS)
    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...] | None = None,
        *,
        n: int | None = None,
        **options: Unpack[GenerationOptions],
    ) -> str | list[str] | list[list[str]]:
        """Return the prompt and its continuation, or a list of ``n`` such texts if ``n`` is given.

        For a list of prompts, return a list with the result for each prompt; all texts are generated together. A text
        ends where the model ends the document, before the first of the ``stop`` strings, or after ``max_tokens`` tokens
        (300 by default). ``generation_config`` has the prompt and the options that apply where a call gives none; the
        prompt ``""`` begins a new text. The same ``seed`` gives the same text. With ``num_beams``, the most likely text
        comes first, and there may be fewer than ``n`` texts, because all of them are different.

        ``revgen.GenerationConfig`` describes the options. An unknown option, a value outside its range, and
        options that cannot be combined raise OptionError before anything is sampled.
        """
        from revgen.generation.decoding import generate

        return generate(self, prompt, n, options)

    @validate_call(defaults=DEFAULTS)
    def stream(self, prompt: str | None = None, **options: Unpack[GenerationOptions]) -> Iterator[str]:
        """Yield the continuation of the prompt in pieces, as it is sampled. ``generate`` describes the parameters.

        With ``num_beams``, the continuation comes in one piece, after the search.
        """
        from revgen.generation.decoding import stream

        return stream(self, prompt, options)

    @validate_call(defaults=DEFAULTS)
    def write_samples(
        self,
        path: str | Path,
        prompt: str | None = None,
        *,
        n: int,
        batch_size: int = 32,
        resume: bool = False,
        progress: bool = True,
        source: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> int:
        """Write ``n`` generated texts to a file of JSON lines, and return the number of texts in the file.

        Each line has the ``text`` and its ``provenance``: model (``source``, or the name) and its fingerprint, prompt,
        seed, batch and options. ``resume`` continues an incomplete file.
        """
        from revgen.generation.samples import write_samples

        return write_samples(
            self, Path(path), prompt, n, options, batch_size=batch_size, resume=resume, progress=progress, source=source
        )

    # Adaptation

    @validate_call
    def adaptive(
        self,
        *,
        cache: bool | Literal["ngram", "neural"] | Mapping[str, Any] = True,
        dynamic: bool | Mapping[str, Any] | None = None,
    ) -> LanguageModel:
        """Return a model around this one that also learns from each document while it reads it.

        What it learns is a part of its state: every document starts fresh, and this model does not change.

        Args:
            cache: count the n-grams of the document (``architectures.document_cache``), on top of any model.
                "neural" compares states of the network instead (``architectures.neural_cache``).
            dynamic: let the networks of the model take steps of gradient descent while they read
                (``architectures.dynamic_evaluation``). If not given, they do if there are any, and ``cache`` is not
                "neural".

        A dictionary instead of True changes the settings; its entry ``kind`` may be "neural" for a cache. Raises
        NotFittedError if the model has no weights yet, and OptionError for invalid settings, for ``dynamic`` if the
        model has no network, and for "neural" if it is not a network.
        """
        settings = dict(cache) if isinstance(cache, Mapping) else {}
        kind = settings.pop("kind", cache if isinstance(cache, str) else "ngram")
        check("the kind of cache", kind, kind in CACHES, " or ".join(map(repr, CACHES)))
        adapted: LanguageModel | None = None
        if kind == "neural":
            check("dynamic", dynamic, not dynamic, 'False for cache="neural"')
        elif dynamic is not False:
            adapted = self.with_dynamic_evaluation(dynamic if isinstance(dynamic, Mapping) else {})
            if adapted is None and dynamic is not None:
                raise OptionError(f"{self.name} has no network whose weights can adapt: pass dynamic=False")
        adapted = adapted or self
        return adapted if cache is False else adapted.wrapped(CACHES[kind], settings)

    def versions(self) -> list[LanguageModel]:
        """Return the model, and versions of it that adapt more to a document, if its own weights are fixed."""
        if self.adaptation != "fixed weights":
            return [self]
        dynamic = self.with_dynamic_evaluation({})
        adaptive = [self] if dynamic is None else [self, dynamic]
        return [self, *(model.wrapped(CACHES["ngram"], {}) for model in adaptive)]

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        """Return this model with dynamic evaluation of its networks, or None if it has none."""
        return None

    def wrapped(self, name: str, settings: Mapping[str, Any]) -> LanguageModel:
        """Return a registered wrapper (``architectures.wrapper``) around this model."""
        wrapper: LanguageModel = architecture_class(name).around(name, self, settings)
        return wrapper

    # Evaluation

    @validate_call
    def score(self, text: str, *, label: Label = None) -> Score:
        """Return the log-probability of each token of a document and of its end."""
        from revgen.evaluation.likelihood import score

        return score(self, text, label)

    @validate_call
    def evaluate(
        self, texts: Any, *, labels: Any = None, adaptive: bool = False, **reading: Unpack[ReadOptions]
    ) -> Evaluation:
        """Measure how well the model predicts documents: nats and bits per character, perplexity per token.

        ``revgen.read`` describes ``texts``, ``labels`` and the options in ``reading``. By default, files are split into
        ``documents`` as those that the model was trained on were. With ``labels``, the prediction of each document is
        conditioned on its label. Warns about a file of short lines that is read as one document.

        With ``adaptive``, the same model is also measured when it learns from each document: with a cache, and with a
        cache and dynamic evaluation, as ``model.adaptive`` describes. For networks, this takes much longer.
        """
        from revgen.evaluation.likelihood import evaluate

        return evaluate(self, texts, labels, reading, self.versions() if adaptive else [self])

    @validate_call
    def explain(self, text: str, *, top: int = 5, label: Label = None) -> Explanation:
        """Return how predictable each token of a text is: log-probability, entropy, rank, and ``top`` alternatives.

        The result prints as a table, and can be converted to a data frame, a colored line for a terminal, or HTML.
        """
        from revgen.evaluation.surprisal import explain

        return explain(self, text, top, label)

    @validate_call
    def attention(self, text: str, *, label: Label = None) -> Attention:
        """Return the attention weights of a text, with a ``plot``. Raises OptionError for a model without attention."""
        from revgen.evaluation.attention import attention

        return attention(self, text, label)

    @validate_call
    def embed(self, texts: list[str] | tuple[str, ...], *, pool: str = "mean") -> NDArray[np.float32]:
        """Return one vector per text, (texts, features).

        The vector is the mean of the network's features over the text's tokens, or with ``pool="last"`` the features
        after its last token. Raises OptionError for a model that is not a network.
        """
        from revgen.evaluation.embeddings import embed

        return embed(self, texts, pool)

    @validate_call
    def similarity(self, text: str, texts: list[str] | tuple[str, ...], *, pool: str = "mean") -> NDArray[np.float32]:
        """Return the cosine similarity of a text with each of the others, (texts,). ``embed`` describes ``pool``."""
        from revgen.evaluation.embeddings import similarity

        return similarity(self, text, texts, pool)

    # Copied text

    @validate_call
    def index_texts(self, texts: Any, *, compact: bool = False, **reading: Unpack[ReadOptions]) -> None:
        """Add texts to the index in which ``novelty`` finds copied text. The index is saved with the model.

        ``fit(…, index_texts=True)`` adds the training texts. A ``compact`` index has the distinct words of the texts,
        and a byte for each word instead of the text itself. That is enough for the options ``max_copied_chars`` and
        ``known_words`` of ``generate``, but not for ``novelty``. An index that is compact remains so. ``revgen.read``
        describes ``texts`` and the options in ``reading``.
        """
        self._index = extend_index(self.text_index if self.has_index else None, read(texts, **reading), compact)

    @validate_call
    def novelty(self, text: str, minimum: int = 20) -> CopyReport:
        """Find the spans of a text, of at least ``minimum`` characters, that occur in the indexed texts."""
        check_at_least("minimum", minimum, 1)
        return find_copies(text, self.index, minimum)

    # The model directory and the Hub

    @validate_call
    def save(
        self,
        directory: str | Path,
        *,
        dtype: Literal["float32", "float16", "int8"] = "float32",
        overwrite: bool = False,
    ) -> Path:
        """Write the model directory, with a card if it has none yet, and return its path.

        A process that is killed at any moment leaves the previous model or the new one. ``dtype="float16"`` halves the
        size of the weights, and "int8" halves it again: a row of a matrix becomes 8-bit integers and a scale. Of
        several processes under ``torchrun``, only the first writes.

        A model replaces itself in a directory: the model that it was loaded from, its earlier state, or one with the
        same name, configuration and tokenizer. Raises CheckpointError if the directory has any other model, unless
        ``overwrite`` is True.
        """
        return storage.save(self, Path(directory), dtype, overwrite)

    @validate_call
    def export(self, path: str | Path, *, title: str | None = None) -> Path:
        """Write one HTML file that generates text offline, in any browser, and return its path.

        The file contains the weights in float16, the tokenizer and the sampler; its title is the name of the model by
        default. Raises OptionError for a model that cannot be exported, such as one with a cell that runs on PyTorch
        only.
        """
        from revgen.browser.page import write_page

        return write_page(self, self.browser_network(), expand_user(path), title)

    def browser_network(self) -> BrowserNetwork:
        """Return the network for ``export``. Raises OptionError if the architecture cannot be exported."""
        raise OptionError(f"{self.name} cannot be exported: its architecture has no version in JavaScript")

    @validate_call
    def save_pretrained(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Do the same as ``save``, under the name that Hugging Face libraries use."""
        return self.save(directory, overwrite=overwrite)

    @validate_call
    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        overwrite_card: bool = False,
        space: bool = False,
        samples: bool = True,
        progress: bool = True,
    ) -> str:
        """Push the model to a repository of the Hugging Face Hub in one commit, and return the commit's URL.

        ``revgen.hub.push`` describes the parameters. With ``space=True``, the page that ``export`` writes is pushed to
        a static Space of the same name. Raises HubError, and OptionError for a page of a model that cannot be exported.
        """
        from revgen.browser.page import make_page
        from revgen.hub import push
        from revgen.space import push_space

        page = make_page(self, self.browser_network()) if space else None
        options: dict[str, Any] = {
            "private": private,
            "commit_message": commit_message,
            "token": token,
            "overwrite_card": overwrite_card,
        }
        url = push(self, repo_id, revision=revision, samples=samples, progress=progress, **options)
        if page is not None:
            push_space(self, page, repo_id, **options)
        return url

    @staticmethod
    @validate_call
    def from_directory(directory: str | Path) -> LanguageModel:
        """Load the model in a directory. Raises CheckpointError with the name of the file if one is damaged."""
        return cast(LanguageModel, storage.load_directory(Path(directory)))

    @staticmethod
    def from_pretrained(
        name: str | Path,
        *,
        device: str = "cpu",
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> LanguageModel:
        """Do the same as ``revgen.load``, under the name that Hugging Face libraries use."""
        from revgen.hub import find_directory

        directory = find_directory(name, revision=revision, token=token, local_files_only=local_files_only)
        logger.debug("%s is loaded from %s", name, directory)
        return LanguageModel.from_directory(directory).to(device)
