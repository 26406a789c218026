"""From names to models: what there is, a new one, one with weights.

A name is ``<architecture>-<level>``: any registered architecture, or cell, with any tokenizer level.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revgen.errors import CheckpointError, OptionError, UnknownModelError
from revgen.language_model import LanguageModel, read_config
from revgen.registry import architectures, cells, matching, tokenizers, unknown
from revgen.tables import to_frame, to_text
from revgen.tokenizers import Tokenizer

PRETRAINED = Path(__file__).parent / "pretrained"


def list_models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> list[str]:
    """The names that match a wildcard pattern (``"lstm-*"``), or any of several; ``pretrained=True``: those
    with weights."""
    return matching([name for name in _names() if not pretrained or name in _pretrained()], pattern)


def create(name: str, *, tokenizer: Tokenizer | Mapping[str, Any] | None = None, **options: Any) -> LanguageModel:
    """A new model, to be fitted.

    ``tokenizer`` is a trained one, or the options of the one that ``fit`` will train (``{"vocab_size": 5000}``).
    ``options`` are those of the architecture's configuration (``hidden_size``, ``num_layers``, ``dropout``, …)
    and of its cell. Raises UnknownModelError for a name, OptionError for an option that there is not.
    """
    if name not in _names():
        raise UnknownModelError(unknown("model", name, _names()))
    architecture, _, level = name.rpartition("-")
    model_class = architecture_class(architecture)
    known = [field.name for field in dataclasses.fields(model_class.Config)]
    own = {key: value for key, value in options.items() if key in known}
    if others := {key: value for key, value in options.items() if key not in known}:
        if "cell_options" not in known:
            raise OptionError(unknown(f"option of {architecture}", next(iter(others)), known))
        own["cell_options"] = {**own.get("cell_options", {}), **others}
    config = model_class.Config(**own)
    trained, settings = (tokenizer, {}) if isinstance(tokenizer, Tokenizer) else (None, dict(tokenizer or {}))
    if trained is not None and trained.level != level:
        raise OptionError(f"tokenizer is of the level {trained.level!r}, and {name} needs one of {level!r}")
    if strange := settings.keys() - (offered := list(inspect.signature(tokenizers.get(level).train).parameters)[1:]):
        raise OptionError(unknown(f"option of the {level} tokenizer", sorted(strange)[0], offered))
    model: LanguageModel = model_class(architecture, level, config, trained, settings)
    model.check()
    return model


def load(name: str | Path, *, device: str = "cpu") -> LanguageModel:
    """A model with weights: the name of a pretrained one, or the path of a directory that ``save`` wrote.

    Raises UnknownModelError for a name without weights, CheckpointError for a damaged directory.
    """
    directory = Path(name)
    if isinstance(name, str) and name in _pretrained():
        directory = PRETRAINED / name
    elif not directory.is_dir():
        if name in _names():
            raise UnknownModelError(
                f"{name} has no pretrained weights: train one with revgen.create({name!r}).fit(…); "
                f"pretrained are {', '.join(sorted(_pretrained()))}"
            )
        if isinstance(name, Path) or "/" in str(name):
            raise CheckpointError(f"{name}: there is no such directory")
        raise UnknownModelError(unknown("pretrained model or directory", str(name), sorted(_pretrained())))
    return LanguageModel.from_directory(directory).to(device)


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


def models(pattern: str | Iterable[str] = "*", *, pretrained: bool = False) -> ModelTable:
    """The same list as ``list_models``, as a table of what is known of each model."""
    return ModelTable(map(_info, list_models(pattern, pretrained=pretrained)))


def architecture_class(name: str) -> type[LanguageModel]:
    """The class behind an architecture's name; a cell is an architecture by its registration."""
    if name in architectures or name not in cells:
        found: type[LanguageModel] = architectures.get(name)
        return found
    from revgen.models.recurrent import RecurrentModel

    return RecurrentModel


def _architectures() -> list[str]:
    return sorted({*architectures.names(), *cells.names()})


def _names() -> list[str]:
    return [
        f"{architecture}-{level}"
        for architecture in _architectures()
        for level in architecture_class(architecture).levels or tokenizers.names()
    ]


def _pretrained() -> set[str]:
    return {path.parent.name for path in PRETRAINED.glob("*/config.json")}


def _info(name: str) -> ModelInfo:
    architecture = name.rpartition("-")[0]
    source = architectures.get(architecture) if architecture in architectures else cells.get(architecture)
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
