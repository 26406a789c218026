"""revgen: a zoo of small language models, trained on your own text in minutes on a laptop.

>>> import revgen
>>> model = revgen.load("lstm-char")
>>> text = model.generate("the ", seed=1)

Every name here is imported when it is first used, so that ``import revgen`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from revgen import auto_classes

__version__ = "0.1.0"

_ROOMS = {
    "revgen.zoo": ("ModelInfo", "ModelTable", "create", "list_models", "load", "models", "to_transformers"),
    "revgen.models.mixture": ("Mixture", "mix"),
    "revgen.registry": ("register_cell", "register_model", "register_tokenizer"),
    "revgen.cells": ("Cell",),
    "revgen.language_model": ("LanguageModel",),
    "revgen.tokenizers": ("Tokenizer",),
    "revgen.corpus": ("Corpus", "read"),
    "revgen.generation.sampler": ("Sampling",),
    "revgen.generation.settings": ("Settings",),
    "revgen.generation.together": ("synthesize",),
    "revgen.evaluation.compare": ("Comparison", "compare"),
    "revgen.evaluation.likelihood": ("Evaluation", "Score"),
    "revgen.training.callbacks": ("Callback", "Step", "TensorBoard", "WandB"),
    "revgen.training.checkpoint": ("Checkpoints",),
    "revgen.training.history": ("Epoch", "History"),
    "revgen.training.rates": ("LearningRates",),
    "revgen.errors": (
        "CheckpointError",
        "CorpusError",
        "HubError",
        "MissingExtraError",
        "NotFittedError",
        "OptionError",
        "RegistrationError",
        "RevgenError",
        "TrainingError",
        "UnknownModelError",
        "VocabularyError",
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = ("cells", "datasets", "errors", "hub", "ops", "testing", "tokenizers")

__all__ = ["__version__", *_MODULES, *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"revgen.{name}")
    else:
        raise AttributeError(f"module 'revgen' has no attribute {name!r}")
    globals().setdefault(name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from revgen import (
        cells as cells,
        datasets as datasets,
        errors as errors,
        hub as hub,
        ops as ops,
        testing as testing,
        tokenizers as tokenizers,
    )
    from revgen.cells import Cell as Cell
    from revgen.corpus import Corpus as Corpus, read as read
    from revgen.errors import (
        CheckpointError as CheckpointError,
        CorpusError as CorpusError,
        HubError as HubError,
        MissingExtraError as MissingExtraError,
        NotFittedError as NotFittedError,
        OptionError as OptionError,
        RegistrationError as RegistrationError,
        RevgenError as RevgenError,
        TrainingError as TrainingError,
        UnknownModelError as UnknownModelError,
        VocabularyError as VocabularyError,
    )
    from revgen.evaluation.compare import Comparison as Comparison, compare as compare
    from revgen.evaluation.likelihood import Evaluation as Evaluation, Score as Score
    from revgen.generation.sampler import Sampling as Sampling
    from revgen.generation.settings import Settings as Settings
    from revgen.generation.together import synthesize as synthesize
    from revgen.language_model import LanguageModel as LanguageModel
    from revgen.models.mixture import Mixture as Mixture, mix as mix
    from revgen.registry import (
        register_cell as register_cell,
        register_model as register_model,
        register_tokenizer as register_tokenizer,
    )
    from revgen.tokenizers import Tokenizer as Tokenizer
    from revgen.training.callbacks import Callback as Callback, Step as Step, TensorBoard as TensorBoard, WandB as WandB
    from revgen.training.checkpoint import Checkpoints as Checkpoints
    from revgen.training.history import Epoch as Epoch, History as History
    from revgen.training.rates import LearningRates as LearningRates
    from revgen.zoo import (
        ModelInfo as ModelInfo,
        ModelTable as ModelTable,
        create as create,
        list_models as list_models,
        load as load,
        models as models,
        to_transformers as to_transformers,
    )

auto_classes.install()
