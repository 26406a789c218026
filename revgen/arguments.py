"""Checks of the arguments of public functions, by the annotations of their signatures."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
    overload,
)

import numpy as np

from revgen.errors import OptionError
from revgen.files import expand_user
from revgen.options import check, format_value, to_builtins, unwrap_scalar
from revgen.registry import unknown_name_message

F = TypeVar("F", bound=Callable[..., Any])

INT_LIMIT = 1 << 128
"""No whole number may reach it."""

TYPE_NAMES: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    os.PathLike: "a path",
}


@overload
def validate_call(function: F) -> F: ...


@overload
def validate_call(*, defaults: Mapping[str, Any] = ..., open_ended: bool = ...) -> Callable[[F], F]: ...


def validate_call(function: Any = None, *, defaults: Mapping[str, Any] | None = None, open_ended: bool = False) -> Any:
    """Decorate a public function: it raises OptionError for an argument that its annotation does not allow.

    The message names the parameter. NumPy's scalars arrive as Python's numbers, and a path with the home directory in
    place of ``~``. The signature, which help and Tab completion read, lists the keywords of ``**options: Unpack[…]``
    with their ``defaults``; ``open_ended`` allows others too. An annotation that cannot be resolved at run time allows
    every value.
    """
    if function is None:
        return functools.partial(validate_call, defaults=defaults, open_ended=open_ended)
    own = inspect.signature(function)
    signature = _expand_options(own, function, defaults or {})

    @functools.cache
    def hints() -> dict[str, Any]:
        return {name: _resolve_annotation(name, function, sys.modules["revgen"]) for name in function.__annotations__}

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        if not open_ended:
            _check_keywords(function.__name__, signature, options)
        options = {name: unwrap_scalar(value) for name, value in options.items()}
        bound = own.bind(*map(unwrap_scalar, args), **options)
        for name, value in bound.arguments.items():
            if own.parameters[name].kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                bound.arguments[name] = check_type(name, value, hints().get(name, Any))
        return function(*bound.args, **bound.kwargs)

    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    return wrapper


def check_type(name: str, value: Any, hint: Any) -> Any:
    """Return a value that the annotation ``hint`` allows. Raises OptionError for any other.

    A path comes without ``~``, and an array of NumPy as a list where the annotation wants one.
    """
    if isinstance(value, np.ndarray) and not matches_annotation(value, hint):
        value = to_builtins(value)
    if not matches_annotation(value, hint):
        raise OptionError(f"{name} must be {describe_annotation(hint)}, not {format_value(value)}")
    if isinstance(value, str | os.PathLike) and Path in (hint, *get_args(hint)):
        check(name, value, _is_path(value), "a path that the file system can hold")
        return expand_user(value) if isinstance(value, os.PathLike) or value.startswith("~") else value
    return value


def _is_path(value: str | os.PathLike[str]) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def check_fields(config: Any) -> None:
    """Raise OptionError for a field of a dataclass that its annotation does not allow."""
    kind: Any = type(config)
    hints = _field_hints(kind)
    for field in dataclasses.fields(config):
        check_type(field.name, getattr(config, field.name), hints.get(field.name, Any))


@functools.cache
def _field_hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except (NameError, TypeError):  # of a class whose annotations name what is not there at run time
        return {}


def matches_annotation(value: Any, hint: Any) -> bool:
    """Whether an annotation allows a value; numbers must be within the range of their type."""
    origin, parts, value = get_origin(hint) or hint, get_args(hint), unwrap_scalar(value)
    if origin in (Union, UnionType):
        return any(matches_annotation(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (None, NoneType):
        return value is None
    if origin in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < INT_LIMIT
    if origin is float:
        return isinstance(value, float) and not math.isnan(value)
    if not isinstance(origin, type) or origin in (Any, object):
        return True
    if origin is int or not isinstance(value, origin) or (parts and isinstance(value, str | bytes)):
        return False
    if isinstance(value, Mapping) and len(parts) == 2:
        return all(
            matches_annotation(key, parts[0]) and matches_annotation(item, parts[1]) for key, item in value.items()
        )
    if isinstance(value, Collection) and parts and issubclass(origin, Iterable):
        return all(matches_annotation(item, parts[0]) for item in value)
    return True


def describe_annotation(hint: Any) -> str:
    """An annotation as a message says it: ``int | None`` is "a whole number or None"."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        *others, last = dict.fromkeys(map(describe_annotation, parts))
        return f"{', '.join(others)} or {last}" if others else last
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in TYPE_NAMES or origin is None:
        return TYPE_NAMES[origin or NoneType]
    if isinstance(origin, type) and issubclass(origin, os.PathLike):
        return TYPE_NAMES[os.PathLike]
    if origin is Callable or not isinstance(origin, type):
        return "a function"
    if issubclass(origin, Mapping):
        return "a dictionary"
    if issubclass(origin, Iterable) and parts:
        of = {str: " of strings", float: " of numbers", int: " of whole numbers"}.get(parts[0], "")
        return f"a list{of}"
    return f"a {origin.__name__}"


def _check_keywords(function: str, signature: inspect.Signature, given: Iterable[str]) -> None:
    """Raise OptionError for a keyword that a function does not have, with the nearest ones."""
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    known = [name for name in signature.parameters if name != "self"]
    if strange := [name for name in given if name not in known]:
        raise OptionError(unknown_name_message(f"option of {function}", strange[0], known))


def _resolve_annotation(name: str, function: Any, face: Any = None) -> Any:
    """The annotation of a parameter as a type; Any where a name in it is there for type checkers only, and neither
    usual nor one of the public ``face``."""
    one = SimpleNamespace(__annotations__={name: function.__annotations__[name]})
    names: dict[str, Any] = {"Path": Path}
    while True:
        try:
            return get_type_hints(one, function.__globals__, names).get(name, Any)
        except NameError as error:
            missing = error.name or ""
            if missing in names or not hasattr(face, missing):
                return Any
            names[missing] = getattr(face, missing)
        except (TypeError, AttributeError):
            return Any


def _expand_options(signature: inspect.Signature, function: Any, defaults: Mapping[str, Any]) -> inspect.Signature:
    """A signature with the keywords of ``**options: Unpack[…]`` in place of ``options``."""
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        hint = _resolve_annotation(parameter.name, function) if parameter.kind is parameter.VAR_KEYWORD else None
        if get_origin(hint) is Unpack and is_typeddict(options := get_args(hint)[0]):
            parameters += [
                inspect.Parameter(name, parameter.KEYWORD_ONLY, default=defaults.get(name, ...), annotation=text)
                for name, text in _list_keys(options)
            ]
        else:
            parameters.append(parameter)
    return signature.replace(parameters=parameters)


def _list_keys(options: type) -> Iterator[tuple[str, Any]]:
    """The keys of a TypedDict with their annotations as they are written."""
    for name, annotation in options.__annotations__.items():
        yield name, getattr(annotation, "__forward_arg__", annotation)
