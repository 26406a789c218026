"""The cell holds to revgen's contract."""

from revgen.testing import check_cell


def test_leaky() -> None:
    check_cell("leaky")
