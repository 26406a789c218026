"""Checks of options: a failed check raises OptionError, which names the parameter and its valid values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from revgen.errors import OptionError, escape_controls

INT_LIMIT = 1 << 63
"""Whole numbers must be smaller than this."""

MAX_INT = 1 << 128
"""No option is a larger whole number; Python cannot print much larger ones."""

MAX_REPR_CHARS = 80
"""A value in a message is cut after this many characters."""

MAX_SIZE = 65_536
MAX_SIZES = {"num_layers": 256}
"""The largest value of each size of a network; the limit of all other sizes is ``MAX_SIZE``. A downloaded configuration
therefore cannot allocate all memory."""


def unwrap_scalar(value: Any) -> Any:
    """Convert a scalar of NumPy or PyTorch to a Python number; return any other value unchanged."""
    if isinstance(value, np.longdouble):  # item() would return a longdouble again
        return float(value)
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def to_builtins(value: Any) -> Any:
    """Convert NumPy scalars, strings and arrays to Python values, also inside containers.

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
    """Apply ``to_builtins`` to the fields of a dataclass, so that it equals one made from Python numbers."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, to_builtins(getattr(config, field.name)))  # may be frozen


def config_values(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration, with lists instead of tuples, as JSON has them."""
    return {name: _with_lists(value) for name, value in dataclasses.asdict(config).items()}


def _with_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return [*map(_with_lists, value)] if isinstance(value, list | tuple) else value


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of ``revgen.read`` other than the source and its labels; ``read`` documents them."""

    field: str
    documents: str
    errors: str
    encoding: str | None
    delimiter: str | None
    quoting: str | None
    max_document_bytes: int


def parse_assignment(text: str, parameter: str) -> tuple[str, Any]:
    """Split ``name=value`` into the name and the value, which is parsed if it is JSON and is a string otherwise.

    Raises OptionError, which names ``parameter``, if the text has no "=".
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
    """Return ``value`` as a float, or NaN, which fails every range check, if it is not a number."""
    value = unwrap_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def is_int(value: object, minimum: int) -> bool:
    """Return whether ``value`` is a whole number of at least ``minimum``, and no larger than any use of it."""
    value = unwrap_scalar(value)
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= MAX_INT


def check_tuple(config: Any, name: str, is_valid: Callable[[tuple[Any, ...]], bool], expected: str) -> None:
    """Convert a list in a field of a frozen configuration to a tuple, or raise OptionError if it is not valid.

    A configuration that was read from JSON has lists.
    """
    value = getattr(config, name)
    check(name, value, isinstance(value, list | tuple) and is_valid(tuple(value)), expected)
    object.__setattr__(config, name, tuple(value))


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
    """Raise OptionError unless the named fields, such as dropout rates, are in the range 0 ≤ value < 1."""
    for name in names:
        check(name, getattr(config, name), 0 <= as_float(getattr(config, name)) < 1, f"in the range 0 ≤ {name} < 1")


def check_flags(config: Any, *names: str) -> None:
    """Raise OptionError unless the named fields are True or False."""
    for name in names:
        check(name, getattr(config, name), isinstance(unwrap_scalar(getattr(config, name)), bool), "True or False")


def safe_repr(value: object) -> str:
    """Return ``repr(value)`` for a message, cut after 80 characters. A value without one is described by its type."""
    try:
        text = repr(value)
    except Exception:  # an integer with too many digits, or an error in __repr__
        text = f"a value of type {type(value).__name__}"
    text = escape_controls(text)
    return text if len(text) <= MAX_REPR_CHARS else f"{text[:MAX_REPR_CHARS]}…"
