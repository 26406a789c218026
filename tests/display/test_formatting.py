"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from revgen.display.formatting import format_cell, format_size
from revgen.display.tables import to_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_803_264, "4.8 MB"), (1.25e9, "1.2 GB"), (3e12, "3.0 TB")],
)
def test_sizes_have_a_unit(size: float, text: str) -> None:
    assert format_size(size) == text


def test_column_of_sizes_has_units_and_is_aligned_to_the_right() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "size": 4_803_264},
        {"name": "b", "size": 99},
        {"name": "c", "size": None},
    ]
    assert to_text(rows, ("name", "size")).splitlines()[2:] == ["a     4.8 MB", "b       99 B", "c"]
    assert format_cell(4_803_264) == "4,803,264"
