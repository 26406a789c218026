"""Checks of the JSON files of a model directory, made before a model is built from them.

A directory may come from an untrusted source. So config.json is limited in size, its values must have the declared
types, its numbers are limited in magnitude, and it can name only files in its own directory.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from revgen.errors import CheckpointError, OptionError
from revgen.files import read_file
from revgen.options import safe_repr, unwrap_scalar
from revgen.registry import unknown_name_message

MAX_CONFIG_BYTES = 4 << 20
NUMBER_LIMIT = 1 << 31
"""Numbers must be smaller in magnitude than this."""
MAX_NAMES = 5
"""The number of names that a message lists."""

FILE_NAME = (r"[\w-][\w.-]{0,100}", "a file name without a folder")
SHA256 = (r"[0-9a-f]{64}", "64 hexadecimal digits")

REQUIRED_STRINGS = {
    "architecture": (r"(?=.{1,100}$)[^\W_]+(-[^\W_]+)*", "a name of letters and digits, joined by hyphens"),
    "level": (r"[^\W_]{1,100}", "a name of letters and digits"),
    "tokenizer.file": FILE_NAME,
    "tokenizer.sha256": SHA256,
    "weights.file": FILE_NAME,
    "weights.sha256": SHA256,
}
"""The strings that every config.json has: for each dotted key, a pattern and its description."""

INDEX_STRINGS = {"index.file": FILE_NAME, "index.sha256": SHA256}
"""The additional strings of a model with an index of its training text."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError, which names the file."""
    try:
        return parse_json(read_file(path, MAX_CONFIG_BYTES), path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged, or does not belong to a revgen model: {error!r}") from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in ``data``, the content of ``path``. Raises CheckpointError, which names the file."""
    try:
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {MAX_CONFIG_BYTES:,}")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise TypeError(f"it has a {type(content).__name__} instead of an object")
        return content
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, or does not belong to a revgen model: {error!r}") from None


def check_config(content: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError unless the content of a config.json has every entry that is needed to build a model."""
    for key, (pattern, description) in (REQUIRED_STRINGS | (INDEX_STRINGS if "index" in content else {})).items():
        value: Any = content
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise CheckpointError(f"{path} is damaged: {key} must be {description}, not {safe_repr(value)}")
    if not isinstance(content.get("config"), dict):
        raise CheckpointError(f"{path} is damaged: config must be an object, not {safe_repr(content.get('config'))}")


def check_options(config_class: type[Any], options: Mapping[str, Any]) -> None:
    """Raise OptionError unless each option is a field of a configuration and matches its annotation."""
    names = [field.name for field in dataclasses.fields(config_class) if field.init]
    try:
        hints = get_type_hints(config_class)
    except (NameError, TypeError):  # an annotation uses a name that is imported for type checkers only
        hints = {}
    for name, value in options.items():
        if name not in names:
            raise OptionError(unknown_name_message("option", name, names))
        if not matches_type(value, hints.get(name, Any)):
            raise OptionError(f"{name} cannot be {safe_repr(value)}")


def matches_type(value: Any, hint: Any) -> bool:
    """Return whether a value from JSON matches an annotation, with all numbers smaller than ``NUMBER_LIMIT``.

    A list matches every sequence, because JSON has no tuples; ``revgen.arguments.matches_annotation`` is stricter.
    """
    value = unwrap_scalar(value)
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(matches_type(value, arg) for arg in args)
    if origin in (None, NoneType):
        return value is None
    if origin is bool:
        return isinstance(value, bool)
    if origin in (int, float):
        is_number = isinstance(value, int | origin) and not isinstance(value, bool)
        return is_number and -NUMBER_LIMIT < value < NUMBER_LIMIT
    if origin is str:
        return isinstance(value, str)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        item_type = args[1] if args else Any
        return isinstance(value, dict) and all(matches_type(item, item_type) for item in value.values())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        item_type = args[0] if args else Any
        return isinstance(value, list) and all(matches_type(item, item_type) for item in value)
    return not isinstance(value, int | float) or -NUMBER_LIMIT < value < NUMBER_LIMIT


def join_names(names: Sequence[str]) -> str:
    """Return the first five names and the number of the others in one line, for a message."""
    listed = ", ".join(map(safe_repr, names[:MAX_NAMES]))
    return f"[{listed}]" if len(names) <= MAX_NAMES else f"[{listed} and {len(names) - MAX_NAMES:,} more]"
