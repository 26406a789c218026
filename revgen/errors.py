"""The exceptions that revgen raises; each message says what is wrong, where, and what to do.

A message may quote a file or an argument of any content. So each is one line of limited length, without characters that
control a terminal.
"""

from __future__ import annotations

import re
from pathlib import Path

MAX_MESSAGE_CHARS = 500
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, change the direction of a text, or cannot be encoded."""
LINE_BREAKS = re.compile(r"[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def escape_controls(text: str, keep: str = "") -> str:
    r"""Return a text that is safe to print: control characters as escapes (``\\x1b``), except those in ``keep``.

    Lone surrogates and characters that change the direction of the text are escaped too.
    """
    return CONTROLS.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode(), text
    )


def one_line(text: str, max_chars: int = MAX_MESSAGE_CHARS) -> str:
    """Return a text in one line without control characters. The middle of a long text is cut out."""
    text = escape_controls(LINE_BREAKS.sub(" ", text[: 4 * max_chars] + text[4 * max_chars :][-max_chars:]))
    if len(text) <= max_chars:
        return text
    return f"{text[: max_chars * 2 // 3]} … {text[-max_chars // 3 :]}"


class RevgenError(Exception):
    """The base class of the exceptions that revgen raises on purpose.

    ``command`` is the message for the command line, if the advice is different there.
    """

    def __init__(self, message: str = "", *, command: str | None = None) -> None:
        super().__init__(one_line(message))
        self.command = one_line(command or message)


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
