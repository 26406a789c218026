"""Tables as plain text and as pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from revgen.display.formatting import format_cell
from revgen.errors import MissingExtraError


def to_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as text in aligned columns with a header. Columns of numbers are aligned to the right."""
    cells = [[format_cell(row.get(name), name) for name in columns] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    is_numeric = [has_numbers(rows, name) for name in columns]

    def join(values: Sequence[str]) -> str:
        aligned = [
            value.rjust(width) if numeric else value.ljust(width)
            for value, width, numeric in zip(values, widths, is_numeric, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([join(columns), join(["-" * width for width in widths]), *map(join, cells)])


def has_numbers(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Return whether a column has numbers, which are aligned to the right."""
    return any(isinstance(row.get(column), int | float) for row in rows)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a pandas data frame. Raises MissingExtraError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise MissingExtraError("data frames need pandas: pip install 'revgen[pandas]'") from None
    return DataFrame(list(rows))
