"""Checks of options: an OptionError that names the parameter and what it may be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from revgen.errors import OptionError

MAX_INT = 1 << 63
MAX_SIZES = {"num_layers": 256}
MAX_SIZE = 65_536
"""No size of a network is larger, or than ``MOST`` says: a configuration from elsewhere cannot ask for all memory."""


def unwrap_scalar(value: Any) -> Any:
    """Return a scalar of NumPy or PyTorch as Python's own, and anything else as it is."""
    if isinstance(value, np.longdouble):  # whose item is a longdouble again
        return float(value)
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def to_builtins(value: Any) -> Any:
    """Return ``value`` with Python's own numbers, strings and lists in place of NumPy's, in containers too.

    A container that contains itself stays as it is, for a check to refuse.
    """
    try:
        return _to_builtins(value)
    except RecursionError:
        return value


def _to_builtins(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim:
        return _to_builtins(value.tolist())
    if isinstance(value, Mapping):
        return {_to_builtins(key): _to_builtins(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_to_builtins, value))
    return unwrap_scalar(value)


def convert_fields(config: Any) -> None:
    """Give the fields of a dataclass their ``plain`` values, so that it is equal to one made from Python's numbers."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, to_builtins(getattr(config, field.name)))  # a configuration is frozen


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of ``revgen.read`` beside the source and its labels; it says what each is for."""

    field: str
    documents: str
    errors: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None


def parse_assignment(text: str, parameter: str) -> tuple[str, Any]:
    """Return the name and the value of ``name=value``. A value that is valid JSON is parsed, any other is a string.

    Raises OptionError, which names the ``parameter``, for text without "=".
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise OptionError(f"{parameter}: an option must have the form name=value, not {format_value(text)}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def check(name: str, value: object, is_valid: bool, expected: str) -> None:
    """Raise OptionError unless ``good``."""
    if not is_valid:
        raise OptionError(f"{name} must be {expected}, not {format_value(value)}")


def as_float(value: object) -> float:
    """``value`` where it is a number, else a NaN, which lies in no range."""
    value = unwrap_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def is_int(value: object, minimum: int) -> bool:
    """Whether ``value`` is a whole number of at least ``least``."""
    value = unwrap_scalar(value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def check_at_least(name: str, value: object, minimum: int) -> None:
    """Raise OptionError unless ``value`` is a whole number of at least ``least``."""
    fits = is_int(value, minimum) and int(value) < MAX_INT  # type: ignore[call-overload]
    check(name, value, fits, f"a whole number of at least {minimum}")


def check_sizes(config: Any, *names: str, optional: Sequence[str] = ()) -> None:
    """Check fields of a configuration that are sizes; the ``optional`` ones may be None."""
    for name in (*names, *optional):
        value, most = getattr(config, name), MAX_SIZES.get(name, MAX_SIZE)
        unset = value is None and name in optional
        check(name, value, unset or (is_int(value, 1) and value <= most), f"a whole number from 1 to {most:,}")


def check_fractions(config: Any, *names: str) -> None:
    """Check fields that are shares of something that is left out."""
    for name in names:
        check(name, getattr(config, name), 0 <= as_float(getattr(config, name)) < 1, f"in 0 ≤ {name} < 1")


def check_flags(config: Any, *names: str) -> None:
    """Check fields that are True or False."""
    for name in names:
        check(name, getattr(config, name), isinstance(unwrap_scalar(getattr(config, name)), bool), "True or False")


def format_value(value: object, max_chars: int = 80) -> str:
    """Return a value as a message shows it: on one line, and shortened where it is long or cannot be printed."""
    try:
        text = repr(value)
    except Exception:  # an integer of too many digits, or whatever the class of the value does
        text = f"a value of the type {type(value).__name__}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"
