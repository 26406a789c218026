"""Renamed parameters: the old name still works, with a warning, until it is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from revgen.arguments import validate_call
from revgen.deprecation import renamed_parameter
from revgen.errors import OptionError


@renamed_parameter("beams", "num_beams", removed_in="0.4")
@validate_call
def search(prompt: str, *, num_beams: int = 1) -> tuple[str, int]:
    """Return the arguments."""
    return prompt, num_beams


def test_old_name_works_and_warns_at_the_call() -> None:
    options: dict[str, Any] = {"beams": 3}

    with pytest.warns(DeprecationWarning, match=r"beams is deprecated .* revgen 0\.4; use num_beams instead") as record:
        assert search("the", **options) == ("the", 3)

    assert [Path(warning.filename).name for warning in record] == [Path(__file__).name]


def test_new_name_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    assert search("the", num_beams=3) == ("the", 3)
    assert not recwarn.list


def test_giving_both_names_is_an_error() -> None:
    options: dict[str, Any] = {"beams": 3, "num_beams": 4}

    with pytest.raises(OptionError, match="give num_beams only: beams is its old name"):
        search("the", **options)


def test_name_and_docstring_of_the_function_are_kept() -> None:
    assert (search.__name__, search.__doc__) == ("search", "Return the arguments.")
