"""The exceptions that revgen raises; each message says what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class RevgenError(Exception):
    """The base class of the exceptions that revgen raises on purpose.

    ``command`` is the message for the command line, if the advice is different there.
    """

    def __init__(self, message: str = "", *, command: str | None = None) -> None:
        super().__init__(message)
        self.command = command or message


class UnknownNameError(RevgenError, LookupError):
    """A name that is not registered; the message suggests similar names."""


class RegistrationError(RevgenError, ValueError):
    """An invalid registration: a duplicate name, or an object of the wrong kind."""


class OptionError(RevgenError, ValueError):
    """A parameter outside its range; the message names the parameter."""


class CorpusError(RevgenError, ValueError):
    """Text that cannot be read; the message names the file, and the line if known."""

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        location = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(location + message)
        self.path = path
        self.line = line


class VocabularyError(RevgenError, ValueError):
    """A text and a vocabulary, or two vocabularies, that do not match."""


class NotFittedError(RevgenError, RuntimeError):
    """A call that needs a fitted model, on a model without weights."""


class CheckpointError(RevgenError, RuntimeError):
    """A model directory or checkpoint that is damaged, incomplete or not from revgen; the message names the file."""


class TrainingError(RevgenError, RuntimeError):
    """Training that could not continue; the model keeps its last good weights."""


class NotTraceableError(RevgenError, TypeError):
    """A function that cannot be traced into a program, for example because it branches on the values of its arrays."""


class MissingExtraError(RevgenError, ImportError):
    """A feature whose package is not installed; the message says how to install it."""


class HubError(RevgenError, RuntimeError):
    """A failure to reach the Hub, or a request that the Hub rejected."""
