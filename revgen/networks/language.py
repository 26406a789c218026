"""``Language``: the statements that a generator of source needs, in any language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

from revgen.compiler import Operation

OPERATORS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "power": "{0} ** {1}",
    "negative": "-{0}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
}
"""The expressions of the elementwise operations that are written alike in Python and JavaScript."""


@dataclass(frozen=True)
class Location:
    """The location of a value: it starts at ``offset`` in a flat array.

    ``root`` is the index of the operation that fills the array, or -1 if the array is a weight. ``convert`` is the
    function that turns an element into a number, if it is not one.
    """

    array: str
    offset: int = 0
    root: int = -1
    convert: str = ""

    def at(self, index: str) -> str:
        """Return the expression for the element at ``index``."""
        element = f"{self.array}[{index} + {self.offset}]" if self.offset else f"{self.array}[{index}]"
        return f"{self.convert}({element})" if self.convert else element

    def shifted(self, offset: int) -> Location:
        """Return the location of the element at ``offset``."""
        return replace(self, offset=self.offset + offset)


class Language(ABC):
    """The statements of one language."""

    state_array: ClassVar[str]
    """The expression of the vector of a state."""
    expressions: ClassVar[Mapping[str, str]]
    """The expression of each elementwise operation."""
    reductions: ClassVar[Mapping[str, tuple[float, str]]]
    """For each operation along an axis, the initial value of ``{0}``, and the statement that adds the element ``{1}``
    to it."""

    @abstractmethod
    def literal(self, value: float | bool, operation: Operation) -> str:
        """Return the source of a constant number."""

    @abstractmethod
    def cast(self, expression: str, operation: Operation) -> str:
        """Return the expression for a number that is converted to the type of an operation."""

    @abstractmethod
    def emit(self, statement: str) -> None:
        """Write a statement."""

    @abstractmethod
    def define(self, name: str, value: str) -> None:
        """Write the definition of a variable."""

    @abstractmethod
    def loop(self, variable: str, size: int) -> AbstractContextManager[None]:
        """Write a loop whose body is written in the context."""

    @abstractmethod
    def new_array(self, name: str, operation: Operation, fill: str | None = None) -> None:
        """Write the allocation of an array for a result, with the value ``fill`` in all elements."""

    @abstractmethod
    def copy(self, target: Location, source: Location, size: int) -> None:
        """Write the copy of consecutive elements."""

    @abstractmethod
    def add_product(self, x: Location, matrix: int, y: Location) -> None:
        """Write the addition of the product of a vector and a weight matrix to the vector at ``y``."""

    @abstractmethod
    def copy_row(self, table: int, row: str, target: Location) -> None:
        """Write the copy of a row of a weight matrix, in float32."""

    @abstractmethod
    def return_array(self, location: Location, size: int) -> None:
        """Write the statement that returns consecutive elements."""
