"""Deprecation of parameters. For a function or a class, use ``typing_extensions.deprecated``."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from revgen.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])


def renamed_parameter(old: str, new: str, *, removed_in: str) -> Callable[[F], F]:
    """Return a decorator for a function whose parameter ``old`` has been renamed to ``new``.

    Until the version ``removed_in``, the old name still works as a keyword, with a DeprecationWarning. Apply it as the
    outermost decorator. The function raises OptionError if both names are given.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                if new in kwargs:
                    raise OptionError(f"give {new} only: {old} is its old name")
                warnings.warn(
                    f"{old} is deprecated and will be removed in revgen {removed_in}; use {new} instead",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
