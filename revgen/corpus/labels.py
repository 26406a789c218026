"""Labels of documents: strings or integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Label: TypeAlias = str | int


def parse_label(value: Any) -> Label | None:
    """Return a label as a string or an integer, or None if ``value`` is empty or missing.

    ``1``, ``1.0``, ``True`` and NumPy's 1 all become the integer 1, because a table with missing values stores integers
    as floats.
    """
    if isinstance(value, str):
        return value or None
    if value is None or _is_missing(value):
        return None
    try:
        return int(value) if value == int(value) else str(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)


def sorted_labels(labels: Iterable[Label]) -> list[Label]:
    """Return the distinct labels in order: integers first, then strings."""
    return sorted(set(labels), key=lambda label: (isinstance(label, str), label))


def find_label(label: Any, labels: Sequence[Label]) -> int | None:
    """Return the index of a label, or None. Without an exact match, the integer 1 matches "1", and the reverse."""
    target = parse_label(label)
    exact = [i for i, known in enumerate(labels) if known == target]
    as_text = [i for i, known in enumerate(labels) if str(known) == str(target)]
    return next(iter(exact or as_text), None)


def _is_missing(value: Any) -> bool:
    """Return whether a value is NaN, NaT or the NA of pandas, which cannot be compared with itself."""
    try:
        return bool(value != value)
    except TypeError:
        return True
    except ValueError:  # an array
        return False
