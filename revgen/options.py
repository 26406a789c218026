"""Checks of options. A failed check raises OptionError, which names the parameter and the values that it accepts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from revgen.errors import OptionError

INT_LIMIT = 1 << 63  # whole numbers must be smaller

MAX_SIZE = 65_536
MAX_SIZES = {"num_layers": 256}
"""The largest value of each size of a network, ``MAX_SIZE`` by default: it keeps a downloaded configuration from
asking for all memory."""


def unwrap_scalar(value: Any) -> Any:
    """Return a scalar of NumPy or PyTorch as a Python number, and any other value unchanged."""
    if isinstance(value, np.longdouble):  # item() would return a longdouble again
        return float(value)
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def to_builtins(value: Any) -> Any:
    """Return ``value`` with NumPy's numbers, strings and arrays converted to Python's, also inside containers.

    A container that contains itself is returned unchanged; later checks reject it.
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
    """Apply ``to_builtins`` to the fields of a dataclass, so that it equals one that was made from Python's numbers."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, to_builtins(getattr(config, field.name)))  # may be frozen


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of ``revgen.read`` other than the source and its labels; ``read`` documents them."""

    field: str
    documents: str
    errors: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None


def parse_assignment(text: str, parameter: str) -> tuple[str, Any]:
    """Split ``name=value`` into the name and the value; a value that is valid JSON is parsed, any other is a string.

    Raises OptionError, which names the ``parameter``, for text without "=".
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise OptionError(f"{parameter}: an option must have the form name=value, not {safe_repr(text)}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def check(name: str, value: object, is_valid: bool, expected: str) -> None:
    """Raise OptionError unless ``is_valid``; ``expected`` describes the valid values."""
    if not is_valid:
        raise OptionError(f"{name} must be {expected}, not {safe_repr(value)}")


def as_float(value: object) -> float:
    """Return ``value`` as a float, or NaN if it is not a number: NaN fails every range check."""
    value = unwrap_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def is_int(value: object, minimum: int) -> bool:
    """Return whether ``value`` is a whole number of at least ``minimum``."""
    value = unwrap_scalar(value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def check_at_least(name: str, value: object, minimum: int) -> None:
    """Raise OptionError unless ``value`` is a whole number of at least ``minimum``."""
    is_valid = is_int(value, minimum) and int(value) < INT_LIMIT  # type: ignore[call-overload]
    check(name, value, is_valid, f"a whole number of at least {minimum}")


def check_sizes(config: Any, *names: str, optional: Sequence[str] = ()) -> None:
    """Raise OptionError unless the named fields are sizes of a network; the ``optional`` ones may be None."""
    for name in (*names, *optional):
        value, maximum = getattr(config, name), MAX_SIZES.get(name, MAX_SIZE)
        is_unset = value is None and name in optional
        is_valid = is_unset or (is_int(value, 1) and value <= maximum)
        check(name, value, is_valid, f"a whole number from 1 to {maximum:,}")


def check_fractions(config: Any, *names: str) -> None:
    """Raise OptionError unless the named fields are fractions from 0 to less than 1, such as dropout rates."""
    for name in names:
        check(name, getattr(config, name), 0 <= as_float(getattr(config, name)) < 1, f"in 0 ≤ {name} < 1")


def check_flags(config: Any, *names: str) -> None:
    """Raise OptionError unless the named fields are True or False."""
    for name in names:
        check(name, getattr(config, name), isinstance(unwrap_scalar(getattr(config, name)), bool), "True or False")


def safe_repr(value: object, max_chars: int = 80) -> str:
    """Return ``value`` as one line for a message; long values are cut and unprintable ones replaced by their type."""
    try:
        text = repr(value)
    except Exception:  # an integer of too many digits, or an error in the __repr__ of a class
        text = f"a value of the type {type(value).__name__}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"
