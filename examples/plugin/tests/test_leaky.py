"""The cell passes revgen's checks."""

from revgen.testing import check_cell


def test_leaky_is_a_correct_cell() -> None:
    check_cell("leaky")
