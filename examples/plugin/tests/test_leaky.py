"""A test of the cell with revgen's own checks."""

from revgen.testing import check_cell


def test_leaky_is_a_correct_cell() -> None:
    check_cell("leaky")
