"""Run-time checks of the arguments of public functions, based on their type annotations."""

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
from revgen.options import check, safe_repr, to_builtins, unwrap_scalar
from revgen.registry import unknown_name_message

F = TypeVar("F", bound=Callable[..., Any])

ARGUMENT_INT_LIMIT = 1 << 128
"""Whole numbers must be smaller in magnitude than this."""

SECRETS = ("token",)
"""The parameters whose values are never shown."""

TYPE_NAMES: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    os.PathLike: "a path",
}
"""The description of each type in error messages."""


@overload
def validate_call(function: F) -> F: ...


@overload
def validate_call(*, defaults: Mapping[str, Any] = ..., open_ended: bool = ...) -> Callable[[F], F]: ...


def validate_call(function: Any = None, *, defaults: Mapping[str, Any] | None = None, open_ended: bool = False) -> Any:
    """Decorate a public function so that it raises OptionError for an argument that does not match its annotation.

    The message names the parameter. NumPy scalars are converted to Python numbers, and a leading ``~`` of a path to the
    home directory. In the signature, which help and Tab completion read, ``**options: Unpack[…]`` is replaced by the
    keywords of the TypedDict with their ``defaults``. ``open_ended`` allows other keywords too. If an annotation cannot
    be resolved at run time, every value is valid.
    """
    if function is None:
        return functools.partial(validate_call, defaults=defaults, open_ended=open_ended)
    declared = inspect.signature(function)
    signature = _expand_options(declared, function, defaults or {})

    @functools.cache
    def resolve_hints() -> dict[str, Any]:
        return {name: _resolve_annotation(name, function, sys.modules["revgen"]) for name in function.__annotations__}

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        if not open_ended:
            _check_keywords(
                function.__name__, signature, options, getattr(args[0], "keyword_hint", None) if args else None
            )
        options = {name: unwrap_scalar(value) for name, value in options.items()}
        bound = declared.bind(*map(unwrap_scalar, args), **options)
        for name, value in bound.arguments.items():
            if declared.parameters[name].kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                bound.arguments[name] = check_type(name, value, resolve_hints().get(name, Any))
        return function(*bound.args, **bound.kwargs)

    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    return wrapper


def check_type(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` if it matches the annotation ``hint``, otherwise raise OptionError.

    A leading ``~`` of a path is replaced by the home directory. A NumPy array is converted to a list if the annotation
    allows a list but no array.
    """
    if isinstance(value, np.ndarray) and not matches_annotation(value, hint):
        value = to_builtins(value)
    if not matches_annotation(value, hint):
        name, value, hint = _find_mismatch(name, value, hint)
        shown = f"a value of type {type(value).__name__}" if name in SECRETS else safe_repr(value)
        raise OptionError(f"{name} must be {describe_annotation(hint)}, not {shown}")
    if isinstance(value, str | os.PathLike) and Path in (hint, *get_args(hint)):
        check(name, value, _is_valid_path(value), "a path that the file system can hold")
        return expand_user(value) if isinstance(value, os.PathLike) or value.startswith("~") else value
    return value


def _find_mismatch(name: str, value: Any, hint: Any) -> tuple[str, Any, Any]:
    """Return name, value and annotation of the first item of a list that has the wrong type, or else of the list."""
    for option in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        origin, args = get_origin(option), get_args(option)
        if (
            origin
            and args
            and isinstance(origin, type)
            and isinstance(value, origin)
            and isinstance(value, list | tuple)
        ):
            for i, item in enumerate(value):
                if not matches_annotation(item, args[0]):
                    return f"{name}[{i}]", item, args[0]
    return name, value, hint


def _is_valid_path(value: str | os.PathLike[str]) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return False


def check_fields(config: Any) -> None:
    """Raise OptionError if a field of a dataclass does not match its annotation."""
    config_class: Any = type(config)
    hints = _field_hints(config_class)
    for field in dataclasses.fields(config):
        check_type(field.name, getattr(config, field.name), hints.get(field.name, Any))


@functools.cache
def _field_hints(config_class: Any) -> dict[str, Any]:
    try:
        return get_type_hints(config_class)
    except (NameError, TypeError):  # an annotation uses a name that is imported for type checkers only
        return {}


def matches_annotation(value: Any, hint: Any) -> bool:
    """Return whether ``value`` matches an annotation. A whole number matches ``float``; NaN matches nothing."""
    origin, args, value = get_origin(hint) or hint, get_args(hint), unwrap_scalar(value)
    if origin in (Union, UnionType):
        return any(matches_annotation(value, arg) for arg in args)
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if origin in (None, NoneType):
        return value is None
    if origin in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < ARGUMENT_INT_LIMIT
    if origin is float:
        return isinstance(value, float) and not math.isnan(value)
    if not isinstance(origin, type) or origin in (Any, object):
        return True
    if origin is int or not isinstance(value, origin) or (args and isinstance(value, str | bytes)):
        return False
    if isinstance(value, Mapping) and len(args) == 2:
        return all(matches_annotation(k, args[0]) and matches_annotation(v, args[1]) for k, v in value.items())
    if isinstance(value, Collection) and args and issubclass(origin, Iterable):
        return all(matches_annotation(item, args[0]) for item in value)
    return True


def describe_annotation(hint: Any) -> str:
    """Describe an annotation in words, such as "a whole number or None" for ``int | None``."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        *others, last = dict.fromkeys(map(describe_annotation, args))
        return f"{', '.join(others)} or {last}" if others else last
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in TYPE_NAMES or origin is None:
        return TYPE_NAMES[origin or NoneType]
    if isinstance(origin, type) and issubclass(origin, os.PathLike):
        return TYPE_NAMES[os.PathLike]
    if origin is Callable or not isinstance(origin, type) or "__call__" in vars(origin):
        return "a function"
    if issubclass(origin, Mapping):
        return "a dictionary"
    if issubclass(origin, Iterable) and args:
        items = {str: " of strings", float: " of numbers", int: " of whole numbers"}.get(args[0], "")
        return f"a list{items}"
    return f"a {origin.__name__}"


def _check_keywords(
    function: str, signature: inspect.Signature, keywords: Iterable[str], hint: Callable[[str], str | None] | None
) -> None:
    """Raise OptionError for a keyword that a function does not accept; the message suggests similar keywords.

    ``hint`` may return a better message for a keyword, which belongs to another function, for example.
    """
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    known = [name for name in signature.parameters if name != "self"]
    if unknown := [name for name in keywords if name not in known]:
        better = hint(unknown[0]) if hint is not None else None
        raise OptionError(better or unknown_name_message(f"option of {function}", unknown[0], known))


def _resolve_annotation(name: str, function: Any, public: Any = None) -> Any:
    """Return the annotation of a parameter as a type.

    A name that is imported for type checkers only is looked up in the module ``public``. Return Any if it is missing
    there too.
    """
    holder = SimpleNamespace(__annotations__={name: function.__annotations__[name]})
    names: dict[str, Any] = {"Path": Path}
    while True:
        try:
            return get_type_hints(holder, function.__globals__, names).get(name, Any)
        except NameError as error:
            missing = error.name or ""
            if missing in names or not hasattr(public, missing):
                return Any
            names[missing] = getattr(public, missing)
        except (TypeError, AttributeError):
            return Any


def _expand_options(signature: inspect.Signature, function: Any, defaults: Mapping[str, Any]) -> inspect.Signature:
    """Return a signature with ``**options: Unpack[…]`` replaced by the keywords of the TypedDict."""
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        hint = _resolve_annotation(parameter.name, function) if parameter.kind is parameter.VAR_KEYWORD else None
        if get_origin(hint) is Unpack and is_typeddict(options := get_args(hint)[0]):
            parameters += [
                inspect.Parameter(name, parameter.KEYWORD_ONLY, default=defaults.get(name, ...), annotation=text)
                for name, text in _iter_annotations(options)
            ]
        else:
            parameters.append(parameter)
    return signature.replace(parameters=parameters)


def _iter_annotations(options: type) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a TypedDict with their annotations, unevaluated."""
    for name, annotation in options.__annotations__.items():
        yield name, getattr(annotation, "__forward_arg__", annotation)
