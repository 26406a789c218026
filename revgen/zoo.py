"""Listing, creating and loading models by name: ``list_models``, ``models``, ``create`` and ``load``.

A name is ``<architecture>-<level>``: any registered architecture or cell, with any of its tokenizer levels. The name of
a pretrained model may end in a corpus, as in ``lstm-word.austen``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from revgen import pretrained as pretrained_models
from revgen.arguments import check_fields, validate_call
from revgen.cells import Cell
from revgen.display.html_tables import html_block, html_table
from revgen.display.tables import to_frame, to_text
from revgen.errors import OptionError, UnknownNameError
from revgen.language_model import LanguageModel
from revgen.registry import (
    architecture_class,
    architectures,
    cells,
    filter_names,
    is_model,
    missing_level_message,
    model_names,
    tokenizers,
    unknown_name_message,
)
from revgen.storage import read_config
from revgen.tokenizers import Tokenizer
from revgen.training.options import FitOptions


@validate_call
def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """Return the names that match a wildcard pattern (``"lstm-*"``), or any of several patterns.

    ``pretrained=True`` lists the models with weights, by names with a corpus: ``list_models("*.austen",
    pretrained=True)``.
    """
    if not pretrained:
        return filter_names(model_names(), pattern)
    return [name for name in pretrained_models.names() if filter_names([name, name.partition(".")[0]], pattern)]


class ModelOptions(TypedDict, total=False):
    """The options of all built-in architectures and cells, for type checkers and Tab completion.

    To satisfy a type checker, pass the options of your own cell as ``cell_options={"name": value}``.
    """

    hidden_size: int | None
    num_layers: int
    embedding_size: int | None
    dropout: float | None
    residual: bool
    layer_norm: bool
    tie_embeddings: bool
    ngram_heads: Sequence[int]
    cell_options: Mapping[str, Any]
    nonlinearity: str
    expansion: int
    input_dropout: float
    hidden_dropout: float
    embedding_dropout: float
    weight_drop: float
    alpha: float
    beta: float
    num_heads: int
    context: int
    labels: Sequence[str]
    order: int
    unseen: str
    min_gain: float | None
    max_bytes: int | None
    adapt: bool
    without: Sequence[str]
    contexts: Sequence[str]


@validate_call(open_ended=True)
def create(
    name: str, /, *, tokenizer: Tokenizer | Mapping[str, Any] | None = None, **options: Unpack[ModelOptions]
) -> LanguageModel:
    """Create a new model; ``fit`` trains it.

    ``tokenizer`` is a trained tokenizer, or the options of the one that ``fit`` will train (``{"vocab_size": 5000}``).
    ``options`` are the fields of the architecture's configuration (``hidden_size``, ``num_layers``, ``dropout``, …) and
    the options of its cell. Raises UnknownNameError for an unknown name, and OptionError for an unknown option or a
    value outside its range.
    """
    if not is_model(name):
        raise UnknownNameError(missing_level_message(name) or unknown_name_message("model", name, model_names()))
    architecture, _, level = name.rpartition("-")
    model_class = architecture_class(architecture)
    config = _make_config(model_class, architecture, cast("dict[str, Any]", options))
    trained, tokenizer_options = (tokenizer, {}) if isinstance(tokenizer, Tokenizer) else (None, dict(tokenizer or {}))
    if trained is not None and trained.level != level:
        raise OptionError(f"tokenizer has the level {trained.level!r}, but {name} needs the level {level!r}")
    _check_names(
        f"option of the {level} tokenizer",
        tokenizer_options,
        list(inspect.signature(tokenizers.get(level).train).parameters)[1:],
    )
    model: LanguageModel = model_class(architecture, level, config, trained, tokenizer_options)
    model.validate_config()
    return model


@validate_call
def load(
    name: str | Path,
    *,
    device: str = "cpu",
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> LanguageModel:
    """Load a model with weights: a pretrained model, a directory that ``save`` wrote, or a repository of the Hub.

    A name like ``"lstm-word.austen"`` is ``<architecture>-<level>.<corpus>``; without a corpus, it means the corpus
    ``music``. It is searched for in the package, then in the cache of the Hub, then in the organization on the Hub that
    the environment variable ``REVGEN_HUB_ORG`` names. ``"me/name"`` is a directory if there is one, otherwise a
    repository. ``device`` is "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one. ``revgen.hub.pull``
    describes ``revision``, ``token`` and ``local_files_only``.

    Raises UnknownNameError for a name without weights, CheckpointError for a damaged directory, and HubError for a
    repository that cannot be downloaded.
    """
    return LanguageModel.from_pretrained(
        name, device=device, revision=revision, token=token, local_files_only=local_files_only
    )


@dataclass(frozen=True)
class ModelInfo:
    """One row of the table of models. Fields that are unknown before training are None."""

    name: str
    description: str
    pretrained: bool
    parameters: int | None = None
    size: int | None = None
    """The size of the weights on disk, in bytes."""
    licence: str | None = None
    score: float | None = None
    """Nats per character on the validation text that the card names."""
    source: str | None = None


class ModelTable:
    """A table of models. It prints as text, can be filtered, and becomes a pandas data frame."""

    def __init__(self, rows: Iterable[ModelInfo]) -> None:
        self.rows = list(rows)

    def filter(self, predicate: Callable[[ModelInfo], bool]) -> ModelTable:
        """Return the rows for which a function is true: ``models().filter(lambda m: m.pretrained)``."""
        return ModelTable(row for row in self.rows if predicate(row))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary per row."""
        return [dataclasses.asdict(row) for row in self.rows]

    def to_frame(self) -> Any:
        """Return a pandas data frame."""
        return to_frame(self.to_dicts())

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return to_text(*self.to_rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_block(html_table(*self.to_rows()))

    def to_rows(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the rows and the columns to show. Columns that are empty in every row are left out."""
        rows = [row | {"pretrained": "yes" if row["pretrained"] else ""} for row in self.to_dicts()]
        columns = [field.name for field in dataclasses.fields(ModelInfo)]
        return rows, [name for name in columns if any(row[name] not in (None, "") for row in rows)] or columns


@validate_call
def models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> ModelTable:
    """Return the models of ``list_models`` as a table: descriptions, and sizes and scores of pretrained models."""
    return ModelTable(map(_model_info, list_models(pattern, pretrained=pretrained)))


def _make_config(model_class: type[LanguageModel], architecture: str, options: dict[str, Any]) -> Any:
    """Return the configuration with these options. Options that are not among its fields are options of the cell."""
    fields = [field.name for field in dataclasses.fields(model_class.Config)]
    config = model_class.Config(**{name: value for name, value in options.items() if name in fields})
    check_fields(config)
    cell_options = {name: value for name, value in options.items() if name not in fields}
    if not cell_options:
        return config
    known = fields + _cell_options(architecture, cell_options) if "cell_options" in fields else fields
    _check_names(f"option of {architecture}", cell_options, known)
    return dataclasses.replace(config, cell_options={**config.cell_options, **cell_options})


def _cell_options(architecture: str, options: Iterable[str]) -> list[str]:
    """Return the names of a cell's options. A ``torch.nn.Module`` checks its options itself when it is created."""
    cell = cells.get(architecture) if cells.is_registered(architecture) else None
    return list(cell.options() if isinstance(cell, type) and issubclass(cell, Cell) else options)


def _check_names(kind: str, names: Iterable[str], known: list[str]) -> None:
    """Raise OptionError if a name is unknown; the message suggests similar names."""
    if unknown := [name for name in names if name not in known]:
        if unknown[0] in FitOptions.__annotations__:
            raise OptionError(f"{unknown[0]} is an option of training: revgen.create(…).fit(…, {unknown[0]}=…)")
        raise OptionError(unknown_name_message(kind, unknown[0], known))


def _model_info(name: str) -> ModelInfo:
    """Return the row of a model. The first line of its architecture's docstring is its description."""
    architecture = name.partition(".")[0].rpartition("-")[0]
    documented = architectures if architectures.is_registered(architecture) else cells
    lines = (inspect.getdoc(documented.get(architecture)) or "").splitlines()
    directory = pretrained_models.find(name)
    info = ModelInfo(name, lines[0] if lines else "", directory is not None)
    if directory is None:
        return info
    content = read_config(directory)
    metadata = content["metadata"]
    return dataclasses.replace(
        info,
        parameters=content["weights"]["parameters"],
        size=(directory / content["weights"]["file"]).stat().st_size,
        licence=metadata.get("licence"),
        score=metadata.get("evaluation", {}).get("nats_per_char"),
        source="package",
    )
