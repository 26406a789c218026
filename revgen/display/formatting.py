"""Formatting of numbers for people: counts, measurements, durations, percentages, and the values in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def format_count(value: float) -> str:
    """Return a number without decimals and with thousands separators: ``12,345``."""
    return f"{value:,.0f}"


def format_measurement(value: float) -> str:
    """Return a number with about three digits: ``1.23``, ``12.3``, ``1,234``."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else format_count(value)


def format_duration(seconds: float) -> str:
    """Return seconds as ``12.3 s``, or as ``2 min 05 s`` from 100 seconds on."""
    if seconds < 100:
        return f"{format_measurement(seconds)} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def format_size(size: float) -> str:
    """Return a number of bytes with a decimal unit: ``512 B``, ``4.8 MB``."""
    if size < 1000:
        return f"{size:.0f} B"
    units = ("kB", "MB", "GB", "TB")
    power = min(int(math.log10(size) // 3), len(units))
    return f"{size / 1000**power:.1f} {units[power - 1]}"


def format_percent(fraction: float) -> str:
    """Return a fraction as a whole percentage: ``12%``."""
    return f"{fraction:.0%}"


def format_cell(value: object, column: str = "") -> str:
    """Return a value for a table as text: floats with four decimals unless very small or large, None as empty.

    A number in the column "size" is a number of bytes.
    """
    if value is None:
        return ""
    if column == "size" and isinstance(value, int):
        return format_size(value)
    if isinstance(value, float):
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.4f}" if abs(value) < 100 else format_count(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def non_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a card shows: all but None and empty lists and dictionaries."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def format_field(value: object) -> str:
    """Return a value for a model card as text: five significant digits, "yes" or "no", items joined by semicolons."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1000 else format_count(value)
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def pluralize(number: int, noun: str) -> str:
    """Return a count with its noun: ``1 file``, ``1,234 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
