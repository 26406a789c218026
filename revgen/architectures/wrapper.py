"""``Wrapper``: a model that changes what another model predicts while it reads. It has no weights of its own.

A directory with such a model contains the other model, as a directory with a mixture contains its models.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack

from numpy.typing import NDArray

from revgen.arguments import check_fields, validate_call
from revgen.errors import NotFittedError, OptionError, VocabularyError
from revgen.history import History
from revgen.language_model import LanguageModel
from revgen.model import Weights
from revgen.options import check, config_values
from revgen.registry import architecture_class, unknown_name_message
from revgen.sequences import Adaptation
from revgen.tokenizers import Tokenizer
from revgen.training.options import FitOptions

if TYPE_CHECKING:
    from revgen.browser.network import BrowserNetwork

M = TypeVar("M", bound=LanguageModel)

MAX_MODELS = 64
"""The largest number of models in a mixture or a wrapper."""


@dataclass(frozen=True)
class WrapperConfig:
    """The architecture and the configuration of the wrapped model."""

    model: Mapping[str, Any]

    def __post_init__(self) -> None:
        is_spec = isinstance(self.model, Mapping) and {*self.model} == {"architecture", "config"}
        check("model", self.model, is_spec, "the architecture and the config of a model")
        check_count([self.model])


class Wrapper(LanguageModel):
    """A model around another model, ``model``, with its tokenizer, weights and labels."""

    levels: ClassVar[tuple[str, ...] | None] = ()  # ``create`` cannot create a wrapper

    def __init__(
        self,
        architecture: str,
        level: str,
        config: Any,
        tokenizer: Tokenizer | None = None,
        tokenizer_options: dict[str, Any] | None = None,
        *,
        model: LanguageModel | None = None,
    ) -> None:
        super().__init__(architecture, level, config, tokenizer, tokenizer_options)
        self.model = unfitted(config.model, level, tokenizer) if model is None else as_part(model)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"model": as_part(self.model)}

    @classmethod
    def around(cls, name: str, model: LanguageModel, settings: Mapping[str, Any]) -> Self:
        """Return a wrapper around a fitted model; ``name`` is its architecture.

        ``settings`` are further fields of its configuration. Raises OptionError for unknown or invalid settings, and
        NotFittedError if the model has no weights yet.
        """
        known = [field.name for field in dataclasses.fields(cls.Config) if field.name != "model"]
        if unknown := [setting for setting in settings if setting not in known]:
            raise OptionError(unknown_name_message(f"setting of {name}", unknown[0], known))
        config = cls.Config(spec_of_fitted(model), **settings)
        check_fields(config)
        wrapper = cls(name, model.level, config, model.tokenizer, model=model)
        wrapper.metadata = {name: model.metadata[name] for name in ("spelled", "documents") if name in model.metadata}
        return wrapper

    def versions(self) -> list[LanguageModel]:
        return [self.model.versions()[0], self]

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        model = self.model.with_dynamic_evaluation(settings)
        mine = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config) if f.name != "model"}
        return None if model is None else type(self).around(self.architecture, model, mine)

    @validate_call
    def fit(self, texts: Any, valid: Any = None, **options: Unpack[FitOptions]) -> History:
        """Raise OptionError: only the wrapped model can be trained."""
        raise OptionError(f"{self.name} has nothing to train: fit its model, and call adaptive() on it again")

    def recount(self, documents: Sequence[NDArray[Any]], tokenizer: Tokenizer, *, keep_networks: bool = False) -> Self:
        wrapper = copy.copy(self)
        wrapper.model = self.model.recount(documents, tokenizer, keep_networks=keep_networks)
        wrapper.tokenizer = tokenizer
        return wrapper

    def initial_state(self, batch: int) -> Any:
        return self.model.initial_state(batch)

    @property
    def takes_labels(self) -> bool:  # type: ignore[override]  # it depends on the wrapped model
        return self.model.takes_labels

    @property
    def labels(self) -> tuple[str | int, ...]:
        return self.model.labels

    @property
    def adaptation(self) -> Adaptation:
        return self.model.adaptation

    @property
    def copies_training_text(self) -> bool:
        return self.model.copies_training_text

    @property
    def has_large_states(self) -> bool:
        return self.model.has_large_states

    @property
    def explained_by(self) -> tuple[type, ...]:
        return *super().explained_by, *self.model.explained_by

    def browser_network(self) -> BrowserNetwork:
        raise OptionError(f"{self.name} cannot be exported, because it learns while it reads: export its ``model``")

    @validate_call
    def to(self, device: str) -> Self:
        self.model.to(device)
        self.device = self.model.device
        self._clear_caches()
        return self

    @property
    def weights(self) -> Weights:
        return self.model.weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self.model.weights = weights
        self._clear_caches()

    @property
    def is_fitted(self) -> bool:
        return self.model.is_fitted

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.model.weight_shapes()

    def validate_weights(self, arrays: Weights) -> str | None:
        return self.model.validate_weights(arrays)


def as_part(model: M) -> M:
    """Return a copy of a model for a mixture or a wrapper: training the model later does not change the copy.

    The copy has the same weights, and the values that were computed from them.
    """
    part = copy.copy(model)
    part._derived = dict(model._derived)
    return part


def spec_of_fitted(model: LanguageModel) -> dict[str, Any]:
    """Return ``spec_of`` a model that others can contain.

    Raises NotFittedError if it has no weights yet, because ``fit`` may choose parts of the configuration.
    """
    check_fitted(model)
    return spec_of(model)


def check_fitted(model: LanguageModel) -> None:
    """Raise NotFittedError if a model has no weights yet."""
    if not model.is_fitted:
        raise NotFittedError(f"{model.name} has no weights yet: fit it, or load one that was saved")


def spec_of(model: LanguageModel) -> dict[str, Any]:
    """Return the architecture and the configuration of a model, from which ``unfitted`` builds it."""
    return {"architecture": model.architecture, "config": config_values(model.config)}


def unfitted(spec: Mapping[str, Any], level: str, tokenizer: Tokenizer | None) -> LanguageModel:
    """Return a model without weights, given its architecture and its configuration."""
    model_class = architecture_class(spec["architecture"])
    model: LanguageModel = model_class(spec["architecture"], level, model_class.Config(**spec["config"]), tokenizer)
    return model


def count_models(specs: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of models, including the models in mixtures, the models in wrappers, and the wrappers."""
    count = 0
    for config in (spec["config"] for spec in specs):
        wrapped = [config["model"]] if "model" in config else []
        count += max(1, count_models(config.get("models", ()))) + count_models(wrapped)
    return count


def check_count(specs: Sequence[Mapping[str, Any]]) -> None:
    """Raise OptionError if there are too many models."""
    count = count_models(specs)
    check("the number of models", count, count <= MAX_MODELS, f"at most {MAX_MODELS}")


def check_partner(network: LanguageModel, partner: LanguageModel, role: str) -> None:
    """Raise OptionError or VocabularyError if a network cannot be trained with another model, its base or its teacher.

    A network without a tokenizer gets the one of the partner.
    """
    if network.labels or partner.labels:
        raise OptionError(f"{role} does not combine with labels: its predictions do not depend on them")
    if network.level != partner.level:
        raise OptionError(f"{role} must have the level {network.level!r} of {network.name}, not {partner.level!r}")
    if not partner.has_tokenizer:
        return
    if not network.has_tokenizer:
        network.tokenizer = partner.tokenizer
    if network.tokenizer != partner.tokenizer:
        raise VocabularyError(
            f"{role} and {network.name} have different tokenizers: create the network with "
            f"revgen.create('{network.name}', tokenizer={role}.tokenizer)"
        )
