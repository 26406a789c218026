"""What the configuration of a model directory must be, checked before anything is built from it.

A directory may come from anywhere, so what its config.json asks for is bounded: its size, the kinds of its values, and
numbers in them; and the files that it names lie beside it.
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
from revgen.options import unwrap_scalar
from revgen.registry import unknown_name_message

MAX_CONFIG_BYTES = 4 << 20  # bytes
NUMBER_LIMIT = 1 << 31

REQUIRED_STRINGS = {
    "architecture": (r"(?=.{1,100}$)[^\W_]+(-[^\W_]+)*", "a name of letters and digits, joined by hyphens"),
    "level": (r"[^\W_]{1,100}", "a name of letters and digits"),
    "tokenizer.file": (r"[\w-][\w.-]{0,100}", "the plain name of a file"),
    "tokenizer.sha256": (r"[0-9a-f]{64}", "64 hexadecimal digits"),
    "weights.file": (r"[\w-][\w.-]{0,100}", "the plain name of a file"),
    "weights.sha256": (r"[0-9a-f]{64}", "64 hexadecimal digits"),
}
"""The texts that every config.json holds: by their places, the pattern and what it is in words."""

INDEX_STRINGS = {
    place.replace("weights", "index"): wanted for place, wanted in REQUIRED_STRINGS.items() if "weights" in place
}
"""Those of a model that remembers its training text."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError that names it."""
    try:
        if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than {MAX_CONFIG_BYTES:,}")
        return parse_json(path.read_bytes(), path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged, or not of a revgen model: {error!r}") from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in the content of a file. Raises CheckpointError that names it."""
    try:
        if len(data) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {MAX_CONFIG_BYTES:,}")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged, or not of a revgen model: {error!r}") from None


def check_config(content: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError unless the content of a config.json has all that a model is made from."""
    for place, (pattern, words) in (REQUIRED_STRINGS | (INDEX_STRINGS if "index" in content else {})).items():
        value: Any = content
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise CheckpointError(f"{path} is damaged: {place} must be {words}, not {truncate(value)}")
    if not isinstance(content.get("config"), dict):
        raise CheckpointError(f"{path} is damaged: config must be an object, not {truncate(content.get('config'))}")


def check_options(kind: type[Any], options: Mapping[str, Any]) -> None:
    """Raise OptionError where options are not those of a configuration, as its annotations have them."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # of a class whose annotations name what is not there at run time
        hints = {}
    for name, value in options.items():
        if name not in names:
            raise OptionError(unknown_name_message("option", name, names))
        if not matches_type(value, hints.get(name, Any)):
            raise OptionError(f"{name} cannot be {truncate(value)}")


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is one of an annotation, and its numbers are of a sensible size."""
    value = unwrap_scalar(value)
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(matches_type(value, part) for part in parts)
    if origin in (None, NoneType):
        return value is None
    if origin is bool:
        return isinstance(value, bool)
    if origin in (int, float):
        number = isinstance(value, int | origin) and not isinstance(value, bool)
        return number and -NUMBER_LIMIT < value < NUMBER_LIMIT
    if origin is str:
        return isinstance(value, str)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(
            matches_type(item, parts[1] if parts else Any) for item in value.values()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(matches_type(item, parts[0] if parts else Any) for item in value)
    return not isinstance(value, int | float) or -NUMBER_LIMIT < value < NUMBER_LIMIT


def truncate(value: object, most: int = 60) -> str:
    """A value as it is shown in a message of one line."""
    shown = repr(value) if not isinstance(value, int) or -NUMBER_LIMIT < value < NUMBER_LIMIT else "a huge number"
    return shown if len(shown) <= most else f"{shown[:most]}…"


def join_names(names: Sequence[str], most: int = 5) -> str:
    """Names as they are shown in a message of one line, however many there are."""
    shown = ", ".join(map(truncate, names[:most]))
    return f"[{shown}]" if len(names) <= most else f"[{shown} and {len(names) - most:,} more]"
