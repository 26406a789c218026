"""``derived``: a property of a model that is computed once from its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T_co = TypeVar("T_co", covariant=True)


class derived(Generic[T_co]):  # noqa: N801  it is used like ``property``
    """A property that is computed once and shared by all threads, until ``Model._clear_caches`` drops its value."""

    def __init__(self, compute: Callable[[Any], T_co]) -> None:
        self.compute = compute
        self.name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, model: Any, owner: type | None = None) -> T_co:
        if model is None:
            return cast(T_co, self)  # accessed on the class, as documentation tools do
        values: dict[str, Any] = model._derived  # ``_clear_caches`` may replace it meanwhile
        if self.name not in values:
            values.setdefault(self.name, self.compute(model))
        return cast(T_co, values[self.name])
