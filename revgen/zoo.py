"""From names to models: what there is, a new one, one with weights.

A name is ``<architecture>-<level>``: any registered architecture, or cell, with any tokenizer level.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from revgen import hub
from revgen.arguments import check_fields, checked
from revgen.cells import Cell
from revgen.errors import CheckpointError, MissingExtraError, OptionError, UnknownNameError
from revgen.language_model import CONFIG, LanguageModel, read_config
from revgen.registry import Registry, architectures, cells, filter_names, load_plugins, tokenizers, unknown_name_message
from revgen.tables import to_frame, to_text
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.interop.transformers import RevgenForCausalLM

PRETRAINED = Path(__file__).parent / "pretrained"


@checked
def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """The names that match a wildcard pattern (``"lstm-*"``), or any of several; ``pretrained=True``: those
    with weights."""
    return filter_names([name for name in _names() if not pretrained or name in _pretrained()], pattern)


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
    if not _is_model(name):
        raise UnknownNameError(_without_level(name) or unknown_name_message("model", name, _names()))
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
    directory = find(name, revision=revision, token=token, local_files_only=local_files_only)
    return LanguageModel.from_directory(directory).to(device)


def find(name: str | Path, **where: Any) -> Path:
    """The directory of a model with weights."""
    if where["revision"] is None:
        if isinstance(name, str) and name in _pretrained():
            return PRETRAINED / name
        if os.path.isdir(name):  # noqa: PTH112  unlike Path, it takes a name of any length
            return Path(name)
        if (model := _directory_of(name)) is not None:
            raise CheckpointError(f"{name} is no model directory: give the directory {model}")
        if os.path.isfile(name):  # noqa: PTH113
            raise CheckpointError(f"{name} is a file, and no model directory")
    if isinstance(name, str) and hub.is_repository(name):
        return hub.pull(name, **where)
    if isinstance(name, Path) or "/" in name:
        raise CheckpointError(f"{name}: there is no such directory")
    if not _is_model(name):
        told = _without_level(name)
        raise UnknownNameError(
            told or unknown_name_message("pretrained model or directory", name, sorted(_pretrained()))
        )
    with contextlib.suppress(hub.AbsentError):
        return hub.pull_pretrained(name, **where)
    known = f"pretrained are {', '.join(sorted(_pretrained())) or 'none'}"
    raise UnknownNameError(
        f"{name} has no pretrained weights: train it with revgen.create({name!r}).fit(…); {known}",
        command=f"{name} has no pretrained weights: train it with revgen fit {name}; {known}",
    )


def _directory_of(name: str | Path) -> Path | None:
    """Return the model directory that a path is directly in, as one of its files is; None for another path."""
    parent = Path(name).parent
    try:
        return parent if parent != Path() and (parent / CONFIG).is_file() else None
    except OSError:  # too long for a name
        return None


def _without_level(name: str) -> str | None:
    """The message for an architecture's name that lacks the level of the tokenizer."""
    if not (_is_architecture(name) and (levels := list(_levels(name)))):
        return None
    *others, last = (f"{name}-{level}" for level in levels)
    offered = f"{', '.join(others)} or {last}" if others else last
    return f"there is no model {name!r}: it lacks the level of its tokenizer; give {offered}"


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
    config = RevgenConfig(name_or_path=model.name, vocab_size=len(model.tokenizer), **model.configuration())
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


def architecture_class(name: str) -> type[LanguageModel]:
    """The class behind an architecture's name; a cell is an architecture by its registration."""
    if not _is_architecture(name):
        raise UnknownNameError(unknown_name_message("architecture", name, _architectures()))
    if architectures.is_registered(name):
        found: type[LanguageModel] = architectures.get(name)
        return found
    from revgen.architectures.recurrent import RecurrentModel

    return RecurrentModel


def _is_architecture(name: str) -> bool:
    """Plug-in packages are looked at for a name that is not built in only: each may import what it likes."""
    if not (architectures.is_registered(name) or cells.is_registered(name)):
        load_plugins()
    return architectures.is_registered(name) or cells.is_registered(name)


def _is_model(name: str) -> bool:
    architecture, _, level = name.rpartition("-")
    return _is_architecture(architecture) and level in _levels(architecture)


def _cell_options(architecture: str, given: Iterable[str]) -> list[str]:
    """What a cell takes beside the options of its network; what is no ``Cell`` says so itself when it is made."""
    kind = cells.get(architecture) if cells.is_registered(architecture) else None
    return list(kind.options() if isinstance(kind, type) and issubclass(kind, Cell) else given)


def _architectures() -> list[str]:
    return sorted({*architectures.names(), *cells.names()})


def _levels(architecture: str) -> Registry[Any] | tuple[str, ...]:
    levels = architecture_class(architecture).levels
    return tokenizers if levels is None else levels


def _names() -> list[str]:
    return [f"{architecture}-{level}" for architecture in _architectures() for level in _levels(architecture)]


def _pretrained() -> set[str]:
    return {path.parent.name for path in PRETRAINED.glob("*/config.json")}


def _info(name: str) -> ModelInfo:
    architecture = name.rpartition("-")[0]
    source = architectures.get(architecture) if architectures.is_registered(architecture) else cells.get(architecture)
    lines = (inspect.getdoc(source) or "").splitlines()
    info = ModelInfo(name, lines[0] if lines else "", name in _pretrained())
    if not info.pretrained:
        return info
    directory = PRETRAINED / name
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
