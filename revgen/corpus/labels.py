"""Labels of documents: strings, or whole numbers that stay numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Label: TypeAlias = str | int


def parse_label(value: Any) -> Label | None:
    """Return a label as a string or a whole number; None where ``value`` says that there is none.

    ``1``, ``1.0``, ``True`` and NumPy's 1 are the number 1, as a column with missing values turns integers into floats.
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
    """Return the labels there are, each once: numbers first, then strings."""
    return sorted(set(labels), key=lambda label: (isinstance(label, str), label))


def find_label(label: Any, labels: Sequence[Label]) -> int | None:
    """Return the index of a label; a number finds its string where only that is a label, and the other way round."""
    wanted = parse_label(label)
    same = [i for i, known in enumerate(labels) if known == wanted]
    alike = [i for i, known in enumerate(labels) if str(known) == str(wanted)]
    return next(iter(same or alike), None)


def _is_missing(value: Any) -> bool:
    """Whether a value is NaN, NaT or pandas' NA, whose comparisons are not even false."""
    try:
        return bool(value != value)
    except TypeError:
        return True
    except ValueError:  # an array
        return False
