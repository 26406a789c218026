"""Registration with the Auto classes of the library ``transformers``, whether it is imported before or after revgen.

``import revgen`` must not import ``transformers``, which takes seconds. So revgen's classes are registered when a
module of ``transformers`` that has an Auto class is imported, or at once if it has been imported already.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def register_config(module: ModuleType) -> None:
    """Register the configuration with ``AutoConfig``, a class of ``module``."""
    from revgen.interop.transformers_config import RevgenConfig

    module.AutoConfig.register(RevgenConfig.model_type, RevgenConfig, exist_ok=True)


def register_model(module: ModuleType) -> None:
    """Register the model with ``AutoModelForCausalLM``, a class of ``module``."""
    from revgen.interop.transformers import RevgenForCausalLM
    from revgen.interop.transformers_config import RevgenConfig

    module.AutoModelForCausalLM.register(RevgenConfig, RevgenForCausalLM, exist_ok=True)


def register_tokenizer(module: ModuleType) -> None:
    """Register the tokenizer with ``AutoTokenizer``, a class of ``module``."""
    from revgen.interop.transformers_config import RevgenConfig
    from revgen.interop.transformers_tokenizer import RevgenTokenizer

    module.AutoTokenizer.register(RevgenConfig, RevgenTokenizer, exist_ok=True)


REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": register_config,
    "transformers.models.auto.modeling_auto": register_model,
    "transformers.models.auto.tokenization_auto": register_tokenizer,
}


def register(name: str, module: ModuleType) -> None:
    """Register with the Auto class of a module. Do nothing if the version of ``transformers`` is too old."""
    with contextlib.suppress(ImportError):
        REGISTRATIONS[name](module)


class RegisteringFinder:
    """An import finder for the modules in ``REGISTRATIONS`` that registers revgen's class once a module is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTRATIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register(fullname, module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register with the Auto classes that have been imported, and with each of the others when it is imported."""
    if not any(isinstance(finder, RegisteringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisteringFinder())
    for name in REGISTRATIONS:
        if name in sys.modules:
            register(name, sys.modules[name])
