"""From names to models: what there is, a new one, one with weights.

A name is ``<architecture>-<level>``: any registered architecture, or cell, with any tokenizer level.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from revgen import hub
from revgen.arguments import check_fields, checked
from revgen.cells import Cell
from revgen.errors import MissingExtraError, OptionError, UnknownNameError
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
from revgen.storage import configuration, read_config
from revgen.tables import to_frame, to_text
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.interop.transformers import RevgenForCausalLM


@checked
def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """The names that match a wildcard pattern (``"lstm-*"``), or any of several; ``pretrained=True``: those
    with weights."""
    return filter_names([name for name in model_names() if not pretrained or name in hub.pretrained_names()], pattern)


class ModelOptions(TypedDict, total=False):
    """The options of all built-in architectures and cells, for type checkers and Tab completion.

    Those of a cell of your own are ``cell_options={"name": value}`` for a type checker.
    """

    hidden_size: int | None
    num_layers: int
    embedding_size: int | None
    dropout: float | None
    residual: bool
    layer_norm: bool
    tie_embeddings: bool
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


@checked(open_ended=True)
def create(
    name: str, /, *, tokenizer: Tokenizer | Mapping[str, Any] | None = None, **options: Unpack[ModelOptions]
) -> LanguageModel:
    """Make a new model, to be fitted.

    ``tokenizer`` is a trained one, or the options of the one that ``fit`` will train (``{"vocab_size": 5000}``).
    ``options`` are those of the architecture's configuration (``hidden_size``, ``num_layers``, ``dropout``, …)
    and of its cell. Raises UnknownNameError for a name, OptionError for an option that there is not.
    """
    if not is_model(name):
        raise UnknownNameError(missing_level_message(name) or unknown_name_message("model", name, model_names()))
    architecture, _, level = name.rpartition("-")
    model_class = architecture_class(architecture)
    known = [field.name for field in dataclasses.fields(model_class.Config)]
    given = cast("dict[str, Any]", options)
    config = model_class.Config(**{key: value for key, value in given.items() if key in known})
    check_fields(config)
    if others := {key: value for key, value in given.items() if key not in known}:
        offered = known + _cell_options(architecture, others) if "cell_options" in known else known
        if strange := [key for key in others if key not in offered]:
            raise OptionError(unknown_name_message(f"option of {architecture}", strange[0], offered))
        config = dataclasses.replace(config, cell_options={**config.cell_options, **others})
    trained, settings = (tokenizer, {}) if isinstance(tokenizer, Tokenizer) else (None, dict(tokenizer or {}))
    if trained is not None and trained.level != level:
        raise OptionError(f"tokenizer is of the level {trained.level!r}, and {name} needs one of {level!r}")
    offered = list(inspect.signature(tokenizers.get(level).train).parameters)[1:]
    if strange := [key for key in settings if key not in offered]:
        raise OptionError(unknown_name_message(f"option of the {level} tokenizer", strange[0], offered))
    model: LanguageModel = model_class(architecture, level, config, trained, settings)
    model.validate_config()
    return model


@checked
def load(
    name: str | Path,
    *,
    device: str = "cpu",
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> LanguageModel:
    """A model with weights: the name of a pretrained one, a directory that ``save`` wrote, or a repository on the Hub.

    A name like ``"lstm-char"`` is looked for in the package, then in the cache of the Hub, then in the organization on
    the Hub that the environment variable ``REVGEN_HUB_ORG`` names; ``"me/name"`` is a directory, or else a repository.
    ``revision`` (a branch, a tag or a commit), ``token`` and ``local_files_only`` are those of ``revgen.hub.pull``.

    Raises UnknownNameError for a name without weights, CheckpointError for a damaged directory, HubError for a
    repository that cannot be had.
    """
    return LanguageModel.from_pretrained(
        name, device=device, revision=revision, token=token, local_files_only=local_files_only
    )


@checked
def to_transformers(model: LanguageModel, *, label: str | None = None) -> RevgenForCausalLM:
    """A network as a model of the library ``transformers``, a ``PreTrainedModel`` that can ``generate``, with its
    ``tokenizer``.

    It has a copy of the weights, and is on the model's device. All it reads and writes is of this ``label``, for a
    model that was fitted with labels. Raises OptionError for a model that is no network, MissingExtraError without the
    package.
    """
    from revgen.architectures.neural import NeuralModel

    if not isinstance(model, NeuralModel):
        raise OptionError(f"{model.name} is no network, which a model of transformers has to be")
    try:
        from revgen.interop.transformers import RevgenForCausalLM
        from revgen.interop.transformers_config import RevgenConfig
    except ImportError as error:
        raise MissingExtraError(
            f"to_transformers needs the package transformers ({error}): pip install 'revgen[transformers]'"
        ) from None
    config = RevgenConfig(name_or_path=model.name, vocab_size=len(model.tokenizer), **configuration(model))
    lm = RevgenForCausalLM(config, model, label)
    lm.to(model.device).eval()
    return lm


@dataclass(frozen=True)
class ModelInfo:
    """One row of the table of models; what is not known before training is None."""

    name: str
    description: str
    pretrained: bool
    parameters: int | None = None
    size: int | None = None
    """Bytes of the weights on disk."""
    licence: str | None = None
    score: float | None = None
    """Nats per character on the validation text that the card names."""
    source: str | None = None


class ModelTable:
    """Rows of ``ModelInfo``: prints as a table, filters, becomes a data frame."""

    def __init__(self, rows: Iterable[ModelInfo]) -> None:
        self.rows = list(rows)

    def filter(self, wanted: Callable[[ModelInfo], bool]) -> ModelTable:
        """The rows for which ``wanted`` is true: ``models().filter(lambda m: m.pretrained)``."""
        return ModelTable(row for row in self.rows if wanted(row))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a row."""
        return [dataclasses.asdict(row) for row in self.rows]

    def to_frame(self) -> Any:
        """A pandas data frame."""
        return to_frame(self.to_dicts())

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        rows = [row | {"pretrained": "yes" if row["pretrained"] else ""} for row in self.to_dicts()]
        return to_text(rows, [field.name for field in dataclasses.fields(ModelInfo)])

    __repr__ = __str__


@checked
def models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> ModelTable:
    """The same list as ``list_models``, as a table of what is known of each model."""
    return ModelTable(map(_info, list_models(pattern, pretrained=pretrained)))


def _cell_options(architecture: str, given: Iterable[str]) -> list[str]:
    """What a cell takes beside the options of its network; what is no ``Cell`` says so itself when it is made."""
    kind = cells.get(architecture) if cells.is_registered(architecture) else None
    return list(kind.options() if isinstance(kind, type) and issubclass(kind, Cell) else given)


def _info(name: str) -> ModelInfo:
    architecture = name.rpartition("-")[0]
    source = architectures.get(architecture) if architectures.is_registered(architecture) else cells.get(architecture)
    lines = (inspect.getdoc(source) or "").splitlines()
    info = ModelInfo(name, lines[0] if lines else "", name in hub.pretrained_names())
    if not info.pretrained:
        return info
    directory = hub.PRETRAINED / name
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
