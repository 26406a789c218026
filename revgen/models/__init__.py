"""The architectures, one file each. Called, ``revgen.models()`` is the table of all of them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Models(ModuleType):
    """A package that is also the function of its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from revgen.zoo import models

        return models(*args, **options)


sys.modules[__name__].__class__ = _Models
