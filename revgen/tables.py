"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def to_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as aligned columns under their names; numbers stand to the right, None is empty."""
    cells = [[_shown(row.get(name)) for name in columns] for row in rows]
    widths = [max([len(name), *(len(line[i]) for line in cells)]) for i, name in enumerate(columns)]
    right = [any(isinstance(row.get(name), int | float) for row in rows) for name in columns]

    def line(values: Sequence[str]) -> str:
        parts = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas data frame."""
    try:
        from pandas import DataFrame
    except ImportError:
        from revgen.errors import MissingExtraError

        raise MissingExtraError("a data frame needs pandas: pip install 'revgen[pandas]'") from None
    return DataFrame(list(rows))
