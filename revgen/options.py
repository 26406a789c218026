"""Checks of options: an OptionError that names the parameter and what it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revgen.errors import OptionError

MOST = {"num_layers": 256}
LARGEST = 65_536
"""No size of a network is larger, or than ``MOST`` says: a configuration from elsewhere cannot ask for all memory."""


def plain(value: Any) -> Any:
    """Return ``value`` with Python's own numbers, strings and lists in place of NumPy's, in containers too.

    Scalars of other libraries that have a ``shape`` of () and an ``item``, as PyTorch's have, count as NumPy's.
    """
    if isinstance(value, np.longdouble):  # whose item is a longdouble again
        return float(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return plain(value.tolist())
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(plain, value))
    return value


def check(name: str, value: object, good: bool, wanted: str) -> None:
    """Raise OptionError unless ``good``."""
    if not good:
        raise OptionError(f"{name} must be {wanted}, not {value!r}")


def number(value: object) -> float:
    """``value`` where it is a number, else a NaN, which lies in no range."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def whole(value: object, least: int) -> bool:
    """Whether ``value`` is a whole number of at least ``least``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def at_least(name: str, value: object, least: int) -> None:
    """Raise OptionError unless ``value`` is a whole number of at least ``least``."""
    check(name, value, whole(value, least), f"a whole number of at least {least}")


def check_sizes(config: Any, *names: str, optional: Sequence[str] = ()) -> None:
    """Check fields of a configuration that are sizes; the ``optional`` ones may be None."""
    for name in (*names, *optional):
        value, most = getattr(config, name), MOST.get(name, LARGEST)
        unset = value is None and name in optional
        check(name, value, unset or (type(value) is int and 1 <= value <= most), f"a whole number from 1 to {most:,}")


def check_shares(config: Any, *names: str) -> None:
    """Check fields that are shares of something that is left out."""
    for name in names:
        check(name, getattr(config, name), 0 <= number(getattr(config, name)) < 1, f"in 0 ≤ {name} < 1")


def check_flags(config: Any, *names: str) -> None:
    """Check fields that are True or False."""
    for name in names:
        check(name, getattr(config, name), type(getattr(config, name)) is bool, "True or False")
