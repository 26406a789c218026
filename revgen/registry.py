"""The registries of architectures, cells and tokenizer levels.

A registry finds its built-in entries by importing every module of one package, so a new file adds an entry. Plug-in
packages are found by the entry-point group ``revgen.plugins``; each entry point names a module that registers its
classes when it is imported.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from threading import get_ident
from typing import Any, Generic, TypeVar

from revgen.errors import RegistrationError, UnknownNameError
from revgen.options import safe_repr

T = TypeVar("T")

PLUGIN_GROUP = "revgen.plugins"
_plugins_loaded = False
_loading_plugins: set[int] = set()  # ids of the threads in ``load_plugins``, which plug-ins may call again


class Registry(Generic[T]):
    """The classes of one kind, by name.

    ``package`` is the package whose modules register the built-in classes. ``required_attributes`` are groups of
    attributes; a class must have all attributes of at least one group, otherwise it cannot be registered. ``joiner``
    separates the parts of a name; if it is empty, a name has only one part.
    """

    def __init__(self, kind: str, package: str, *required_attributes: tuple[str, ...], joiner: str = "-") -> None:
        self.kind = kind
        self.package = package
        self.required_attributes = required_attributes
        self.joiner = joiner
        self._entries: dict[str, T] = {}
        self._loaded = False
        self._loading: set[int] = set()  # ids of the threads in ``_load``, which imported modules call again

    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]:
        """Return a decorator that registers a class under ``name``.

        Raises RegistrationError if the name is taken and ``replace`` is False, or if it contains anything but
        lower-case letters, digits and hyphens (no hyphens for a tokenizer level).
        """
        parts = (name.split(self.joiner) if self.joiner else [name]) if isinstance(name, str) else [""]
        if type(replace) is not bool:
            raise RegistrationError(f"replace must be True or False, not {safe_repr(replace)}")
        if not all(part.isalnum() and part == part.lower() for part in parts):
            joined = ", joined by hyphens" if self.joiner else ""
            raise RegistrationError(f"{self.kind} name {safe_repr(name)}: use lower-case letters and digits{joined}")

        def add(value: T) -> T:
            if not getattr(value, "__module__", "").startswith(f"{self.package}."):
                self._load()  # so that a clash with a built-in name is noticed
            complete = any(all(_has(value, attribute) for attribute in group) for group in self.required_attributes)
            if not complete:
                groups = ", or ".join(" and ".join(group) for group in self.required_attributes)
                raise RegistrationError(
                    f"the {self.kind} {name!r} must be a class with {groups}; got {safe_repr(value)}"
                )
            if name in self._entries and not replace:
                raise RegistrationError(
                    f"the {self.kind} {name!r} is already registered; pass replace=True to replace it"
                )
            self._entries[name] = value
            return value

        return add

    def get(self, name: str) -> T:
        """Return the class with this name. Raises UnknownNameError, which suggests similar names."""
        if name not in self:
            raise UnknownNameError(unknown_name_message(self.kind, name, self.names()))
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        if not self.is_registered(name):
            load_plugins()
        return name in self._entries

    def is_registered(self, name: str) -> bool:
        """Return whether a name is registered, without loading plug-in packages."""
        self._load()
        return name in self._entries

    def names(self) -> list[str]:
        """Return all names, sorted, including those of plug-in packages."""
        self._load()
        load_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def unregister(self, name: str) -> None:
        """Remove a name if it is registered. This is for tests and notebooks."""
        self._entries.pop(name, None)

    def _load(self) -> None:
        """Import all modules of the package, once."""
        thread = get_ident()
        if self._loaded or thread in self._loading:
            return
        self._loading.add(thread)
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True
        finally:
            self._loading.remove(thread)


def _has(value: object, attribute: str) -> bool:
    """Return whether a value is a class that defines or inherits an attribute; its metaclass does not count."""
    return isinstance(value, type) and any(attribute in vars(base) for base in value.__mro__)


def load_plugins() -> None:
    """Import each plug-in package once. A package that fails causes a warning; the others are still imported."""
    global _plugins_loaded
    thread = get_ident()
    if _plugins_loaded or thread in _loading_plugins:
        return
    _loading_plugins.add(thread)
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:
            warnings.warn(
                f"the revgen plug-in {point.name!r} ({point.value}) could not be loaded: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
    _plugins_loaded = True
    _loading_plugins.remove(thread)


def package_of(cls: type) -> str | None:
    """Return the installed package that provides a class; None for a class of this library or of no package."""
    from importlib.metadata import entry_points, packages_distributions

    module = cls.__module__.partition(".")[0]
    if module in ("revgen", "__main__", "torch", "builtins"):
        return None
    for point in entry_points(group=PLUGIN_GROUP):
        if point.module.partition(".")[0] == module and point.dist is not None:
            return point.dist.name
    return next(iter(packages_distributions().get(module, ())), None)


def filter_names(names: Iterable[str], pattern: str | Iterable[str] = "*") -> list[str]:
    """Return the names that match one wildcard pattern, or any of several, in the given order."""
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    return [name for name in names if any(fnmatchcase(name, each) for each in patterns)]


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the error message for an unknown name. It suggests similar names, or lists the known ones."""
    known = list(known)
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else f"known: {', '.join(known) or 'none'}"
    return f"there is no {kind} {safe_repr(name)}; {hint}"


architectures: Registry[Any] = Registry("architecture", "revgen.architectures", ("fit", "generate", "Config"))
cells: Registry[Any] = Registry("cell", "revgen.cells", ("param_shapes", "project", "step"), ("forward", "parameters"))
filters: Registry[Any] = Registry("filter", "revgen.generation", ("__call__",))
tokenizers: Registry[Any] = Registry("tokenizer level", "revgen.tokenizers", ("train", "encode", "decode"), joiner="")

cell_architecture: type[Any] | None = None
"""The model class for each cell without an architecture of its own; ``register_cell_architecture`` sets it."""

register_filter = filters.register
"""Return a decorator that registers a sampling filter: ``@register_filter("name")``."""
register_model = architectures.register
"""Return a decorator that registers a model class, whose name is an architecture: ``@register_model("name")``."""
register_tokenizer = tokenizers.register
"""Return a decorator that registers a tokenizer class, whose name is a level: ``@register_tokenizer("name")``."""


def register_cell(name: str, *, replace: bool = False) -> Callable[[T], T]:
    """Return a decorator that registers a cell, and with it an architecture of that name.

    Raises RegistrationError in the same cases as ``Registry.register``, and if an architecture has the name.
    """
    register: Callable[[T], T] = cells.register(name, replace=replace)

    def register_new(value: T) -> T:
        built_in = getattr(value, "__module__", "").startswith(f"{cells.package}.")
        if not built_in and architectures.is_registered(name):
            raise RegistrationError(f"the cell {name!r} has the name of an architecture; choose another name")
        return register(value)

    return register_new


def register_cell_architecture(model_class: T) -> T:
    """Register a model class, as a decorator, for all cells without an architecture of their own."""
    global cell_architecture
    cell_architecture = model_class  # type: ignore[assignment]
    return model_class


def is_architecture(name: str) -> bool:
    """Return whether an architecture or a cell has this name.

    Plug-in packages are imported only if the name is not built in, because importing them may be slow.
    """
    if not (architectures.is_registered(name) or cells.is_registered(name)):
        load_plugins()
    return architectures.is_registered(name) or cells.is_registered(name)


def architecture_names() -> list[str]:
    """Return the sorted names of all architectures and cells."""
    return sorted({*architectures.names(), *cells.names()})


def architecture_class(name: str) -> type[Any]:
    """Return the model class of an architecture or a cell. Raises UnknownNameError, which suggests similar names."""
    if not is_architecture(name):
        raise UnknownNameError(unknown_name_message("architecture", name, architecture_names()))
    if architectures.is_registered(name):
        model_class: type[Any] = architectures.get(name)
        return model_class
    assert cell_architecture is not None  # ``is_registered`` has imported all built-in architectures
    return cell_architecture


def levels_of(architecture: str) -> Registry[Any] | tuple[str, ...]:
    """Return the names of the tokenizer levels that an architecture works with."""
    levels: tuple[str, ...] | None = architecture_class(architecture).levels
    return tokenizers if levels is None else levels


def model_names() -> list[str]:
    """Return the names of all models, ``<architecture>-<level>``."""
    return [f"{architecture}-{level}" for architecture in architecture_names() for level in levels_of(architecture)]


def is_model(name: str) -> bool:
    """Return whether a name is ``<architecture>-<level>`` of a registered architecture."""
    architecture, _, level = name.rpartition("-")
    return is_architecture(architecture) and level in levels_of(architecture)


def missing_level_message(name: str) -> str | None:
    """Return the error message for the name of an architecture without a tokenizer level; None for other names."""
    if not (is_architecture(name) and (levels := list(levels_of(name)))):
        return None
    *others, last = (f"{name}-{level}" for level in levels)
    options = f"{', '.join(others)} or {last}" if others else last
    return f"there is no model {name!r}: the name lacks the tokenizer level; use {options}"
