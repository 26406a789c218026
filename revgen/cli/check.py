"""``revgen check``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import revgen
from revgen.cells import Cell
from revgen.cli.console import print_json
from revgen.cli.parser import Command
from revgen.errors import OptionError
from revgen.files import expand_user
from revgen.language_model import LanguageModel
from revgen.registry import unknown_name_message
from revgen.testing import cell_checks, filter_checks, model_checks, tokenizer_checks
from revgen.tokenizers import Tokenizer


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen check``."""
    parser.add_argument("object", help="the class or filter to check: my_package:MyCell, or path/to/file.py:MyCell")


def run_check(options: argparse.Namespace) -> int:
    """Print each property that holds. Return 0 if all checks pass, or 1 after the first one that fails."""
    checks = find_checks(import_object(options.object), options.object)
    passed: list[str] = []
    failure = None
    try:
        for description in checks:
            passed.append(description)
            if not (options.json or options.quiet):
                print(description, flush=True)
    except BrokenPipeError:  # from ``print``
        raise
    except Exception as error:  # the code of the user may raise anything
        failure = " ".join(str(error).split())
        if not isinstance(error, AssertionError):
            failure = f"{_position_in_user_code(error)}{type(error).__name__}: {failure}"
        print(f"revgen: {options.object} fails a check: {failure}", file=sys.stderr)
    if options.json:
        print_json({"object": options.object, "passed": passed, "failure": failure}, indent=2)
    return 0 if failure is None else 1


def _position_in_user_code(error: BaseException) -> str:
    """Return the last position outside of this library in an error's traceback, as ``file.py, line 3, in step: ``."""
    frames = traceback.extract_tb(error.__traceback__)
    library = [str(Path(revgen.__file__).parent), sys.prefix, sys.base_prefix]
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(path) for path in library)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}: " if own else ""


def find_checks(item: Any, name: str) -> Iterator[str]:
    """Return the checks for a class or a filter. Raises OptionError if there are none for its kind."""
    import torch

    if isinstance(item, type):
        if issubclass(item, Tokenizer):
            return tokenizer_checks(item)
        if issubclass(item, LanguageModel):
            return model_checks(item)
        if issubclass(item, Cell | torch.nn.Module):
            return cell_checks(item)
        if "__call__" in dir(item):
            try:
                sampling_filter: Any = item()
                return filter_checks(sampling_filter)
            except TypeError as error:
                raise OptionError(f"{name} cannot be created without arguments ({error}): check an object") from None
    elif callable(item):
        return filter_checks(item)
    raise OptionError(
        f"{name} must be a sampling filter, or a subclass of revgen.Cell, torch.nn.Module, revgen.LanguageModel or "
        f"revgen.Tokenizer; it is {'another class' if isinstance(item, type) else f'of type {type(item).__name__}'}"
    )


def import_object(name: str) -> Any:
    """Return the object that ``my_package.my_module:MyCell`` or ``path/to/file.py:MyCell`` names."""
    location, _, attribute = name.rpartition(":")
    if not (location and attribute):
        raise OptionError(f"the object to check must have the form my_package:MyCell or file.py:MyCell, not {name!r}")
    try:
        module = _import_file(location) if location.endswith(".py") else _import_module(location)
    except OptionError:
        raise
    except Exception as error:  # whatever the module does
        raise OptionError(f"{location} cannot be imported: {type(error).__name__}: {error}") from None
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise OptionError(unknown_name_message(f"object in {location}", attribute, public))
    return getattr(module, attribute)


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")  # the current directory, which a console script does not search
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module imports another one that is missing
        raise OptionError(
            f"there is no module {error.name!r}; install its package, or run revgen in the directory that has it"
        ) from None
    finally:
        sys.path.remove("")


def _import_file(name: str) -> ModuleType:
    path = expand_user(name)
    if not path.is_file():
        raise OptionError(f"{name}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    sys.path.insert(0, str(path.parent))  # the modules next to it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


COMMANDS = {
    "check": Command(
        add_check_arguments,
        run_check,
        """\
  revgen check my_package.cells:MyCell
  revgen check path/to/file.py:MyModel --json""",
    ),
}
