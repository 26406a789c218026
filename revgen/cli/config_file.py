"""``--config``: the arguments of a command in a TOML file.

The keys are the names of the arguments, with hyphens or underscores. The table ``set`` has the options of a new model:

    model = "gru-char"
    texts = ["reviews.txt"]
    out = "my-model"
    epochs = 5
    set = { hidden_size = 128 }
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from revgen.errors import OptionError
from revgen.files import expand_user, read_file
from revgen.options import safe_repr
from revgen.registry import unknown_name_message

NOT_IN_A_FILE = ("help", "config")
MAX_CONFIG_BYTES = 1 << 20


def find_config(arguments: Iterable[str]) -> str | None:
    """Return the value of ``--config``, which argparse also accepts as ``--conf``, or None."""
    remaining = iter(arguments)
    for argument in remaining:
        flag, separator, value = argument.partition("=")
        if len(flag) > len("--co") and "--config".startswith(flag):
            return value if separator else next(remaining, None)
    return None


def read_config(path: str, actions: Sequence[argparse.Action]) -> dict[str, Any]:
    """Return the values in a TOML file for the arguments of a parser, by the names of the arguments.

    Raises OptionError, which names the file and the key, for a key that the command does not have, and for a value that
    the command line would not accept.
    """
    try:
        content = tomllib.loads(read_file(expand_user(path), MAX_CONFIG_BYTES).decode("utf-8"))
    except OSError as error:
        raise OptionError(f"--config {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        raise OptionError(f"--config {path} is not a TOML file: {error}") from None
    known = {action.dest: action for action in actions if action.dest not in NOT_IN_A_FILE}
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            raise OptionError(f"{path}: {unknown_name_message('option', name, known)}")
        if name in values:
            raise OptionError(f"{path}: {name} is given twice, with a hyphen and with an underscore")
        try:
            values[name] = _convert(known[name], value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise OptionError(f"{path}: {key} = {safe_repr(value)}: {error}") from None
    return values


def _convert(action: argparse.Action, value: Any) -> Any:
    """Return what argparse would store for a value. Raises ValueError, with what it must be."""
    if action.dest == "set":
        if not isinstance(value, dict):
            raise ValueError("it must be a table, such as set = { hidden_size = 128 }")
        return [f"{name}={json.dumps(option, default=str)}" for name, option in value.items()]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError("it must be true or false")
        return value or action.default
    if action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction):
        return [_convert_item(action, item) for item in (value if isinstance(value, list) else [value])]
    return _convert_item(action, value)


def _convert_item(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it must be a string or a number")
    if action.type in (int, float):
        if isinstance(value, str) or (action.type is int and isinstance(value, float)):
            raise ValueError(f"it must be a {'whole ' if action.type is int else ''}number")
        return action.type(value)
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"choose from {', '.join(map(str, action.choices))}")
    return action.type(str(value)) if callable(action.type) else str(value)
