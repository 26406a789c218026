"""Every registered cell, and cells that users write."""

from __future__ import annotations

import pytest

from revgen.registry import cells
from revgen.testing import check_cell


@pytest.mark.parametrize("name", cells.names())
def test_every_registered_cell_conforms(name: str) -> None:
    check_cell(name)
