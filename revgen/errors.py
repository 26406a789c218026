"""The family of errors: each says what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class RevgenError(Exception):
    """The root of the family: catch it to catch every error that revgen raises on purpose.

    ``command`` is the message for the command line, where it gives other advice than the one for Python.
    """

    def __init__(self, message: str = "", *, command: str | None = None) -> None:
        super().__init__(message)
        self.command = command or message


class UnknownNameError(RevgenError, LookupError):
    """A name that no registry knows; the message lists the nearest names."""


class RegistrationError(RevgenError, ValueError):
    """A registration that cannot stand: a duplicate name, or an object of the wrong kind."""


class OptionError(RevgenError, ValueError):
    """A parameter outside its range; the message names the parameter."""


class CorpusError(RevgenError, ValueError):
    """Text that cannot be read; the message names the file and the line where there is one."""

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class VocabularyError(RevgenError, ValueError):
    """Text and vocabulary, or two vocabularies, that do not belong together."""


class NotFittedError(RevgenError, RuntimeError):
    """A model without weights was asked for something that needs them."""


class CheckpointError(RevgenError, RuntimeError):
    """A model directory or checkpoint that is damaged, foreign or incomplete; names the file."""


class TrainingError(RevgenError, RuntimeError):
    """Training that could not go on; the model keeps its last good weights."""


class NotTraceableError(RevgenError, TypeError):
    """An equation that cannot be recorded as a program, because it depends on the values of arrays."""


class MissingExtraError(RevgenError, ImportError):
    """A feature needs a package that is not installed; the message says how to install it."""


class HubError(RevgenError, RuntimeError):
    """The Hub could not be reached, or refused."""
