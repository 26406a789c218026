"""Arguments that several commands share, and the conversion of their values."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from revgen.errors import CheckpointError
from revgen.files import expand_user, is_rank_zero, lock
from revgen.generation.config import DEFAULTS, GenerationConfig
from revgen.generation_file import OPTIONS

MODEL = "the name of a pretrained model, the directory of a saved model, or a repository on the Hub (me/name)"
VALID = "the fraction of the documents to hold out for validation, or a file"
LABELS = "the column or JSON field with the label of each document"

READ_HELP = {
    "field": "the column or JSON field with the text (default: text)",
    "documents": "the documents of a text file: the whole file (default), each line, or blocks between blank lines",
    "errors": "what to do with malformed lines (default: raise)",
    "encoding": "the encoding of the files (default: UTF-8, or as the file declares)",
    "delimiter": "between the fields of .csv and .tsv files (default: detected from the name and the first line)",
    "quoting": "whether quotes enclose the fields of a table",
    "max_document_bytes": "the largest line, row or JSON value that is read (default: 256 MB)",
}
READ_CHOICES = {"documents": ["file", "line", "blank"], "errors": ["raise", "skip"], "quoting": ["minimal", "none"]}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add a model and its revision."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--revision", help="the branch, tag or commit of a repository")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    help_text = '"cpu" (default), "cuda", "mps", or "auto" for a GPU if there is one'
    parser.add_argument("--device", default="cpu", help=help_text)


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Add a prompt and the number of texts."""
    parser.add_argument("--prompt", help="the text to continue (default: the prompt of the model, if it has one)")
    parser.add_argument("-n", type=int, default=1, help="the number of texts (default: 1)")


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``generate``."""
    for option in dataclasses.fields(GenerationConfig):
        text: str = option.metadata["help"]
        if "Guide" in str(option.type):
            continue  # an object, which the command line cannot give
        if option.name == "filters":
            text = "apply this registered filter after the other options; can be repeated"
            parser.add_argument("--filter", dest="filters", action="append", metavar="NAME", help=text)
            continue
        own = "that of the model, or " if option.name in OPTIONS else ""
        default = f" (default: {own}{option.default})" if option.default else ""
        add_option(parser, option.name, str(option.type), f"{text[0].lower()}{text[1:].rstrip('.')}{default}")


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``revgen.read``."""
    for name, text in READ_HELP.items():
        kind = int if name == "max_document_bytes" else str
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, choices=READ_CHOICES.get(name), help=text)


def add_option(parser: argparse.ArgumentParser, name: str, annotation: str, text: str) -> None:
    """Add an option for a keyword argument. Its type follows from the annotation, and without the option it is None.

    An option for a list or a dictionary is given once for each item.
    """
    flag, first_type = f"--{name.replace('_', '-')}", annotation.partition(" | ")[0]
    if first_type == "bool":
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif name in PAIRS:
        metavar, convert = PAIRS[name]
        parser.add_argument(flag, action="append", type=convert, metavar=metavar, help=f"{text}; can be repeated")
    elif name == "temperature":
        parser.add_argument(flag, type=parse_temperature, metavar="T[,T…]", help=text)
    elif re.search(r"\b(Sequence|Collection)\[", annotation):
        parser.add_argument(flag, action="append", metavar="TEXT", help=f"{text}; can be repeated")
    elif first_type in NUMBERS:
        metavar, convert = NUMBERS[first_type]
        parser.add_argument(flag, type=convert, metavar=metavar, help=text)
    else:
        parser.add_argument(flag, help=text)


def select_options(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return the options that the command line gives, by name."""
    values = {name: getattr(options, name, None) for name in names}
    return {name: dict(value) if name in PAIRS else value for name, value in values.items() if value is not None}


def get_generation_options(options: argparse.Namespace) -> Any:
    """Return the keyword arguments for ``generate``."""
    return select_options(options, DEFAULTS)


def get_read_options(options: argparse.Namespace) -> Any:
    """Return the keyword arguments for ``revgen.read``."""
    return select_options(options, READ_HELP)


def as_paths(names: Iterable[str]) -> list[Path]:
    """Return paths. As strings, the names of missing files would be read as texts."""
    return [Path(name) for name in names]


def parse_valid(text: str) -> float | str:
    """Return a fraction, or the name of a file."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_temperature(text: str) -> float | list[float]:
    """Return a temperature, or a list of them for a schedule."""
    try:
        temperatures = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
    return temperatures if len(temperatures) > 1 else temperatures[0]


def parse_logit_bias(text: str) -> tuple[str, float]:
    """Return the token and the bias of ``TOKEN=BIAS``; the token may contain "="."""
    token, _, bias = text.rpartition("=")
    try:
        return token, float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not TOKEN=BIAS: {text!r}") from None


def parse_forced_token(text: str) -> tuple[int, str]:
    """Return the index and the token of ``INDEX=TOKEN``."""
    index, _, token = text.partition("=")
    try:
        return int(index), token
    except ValueError:
        raise argparse.ArgumentTypeError(f"not INDEX=TOKEN: {text!r}") from None


NUMBERS: dict[str, tuple[str, Callable[[str], Any]]] = {"int": ("N", int), "float": ("X", float)}
"""The name of a value in the help, and the function that parses it."""

PAIRS: dict[str, tuple[str, Callable[[str], tuple[Any, Any]]]] = {
    "logit_bias": ("TOKEN=BIAS", parse_logit_bias),
    "forced_tokens": ("INDEX=TOKEN", parse_forced_token),
}
"""The options that are dictionaries: the form of an entry, and the function that parses it."""


@contextmanager
def claim_directory(name: str) -> Iterator[None]:
    """Make the directory of ``--out``, and let no other process save into it during the block.

    After an error, the directory is deleted if it is empty.
    """
    make_directory(name)
    directory = expand_user(name)
    try:
        with ExitStack() as stack:
            if is_rank_zero():
                try:
                    stack.enter_context(lock(directory))
                except BlockingIOError as error:
                    raise CheckpointError(
                        f"--out {name}: {error.strerror}: wait until it ends, or name another one"
                    ) from None
                except OSError as error:
                    raise CheckpointError(f"--out {name}: {error.strerror or error}") from None
            yield
    except BaseException:
        with suppress(OSError):  # it is not empty
            directory.rmdir()
        raise


def make_directory(name: str) -> None:
    """Make the directory of ``--out``, before a long training run and not after it."""
    try:
        expand_user(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"--out {name}: {error.strerror or error}") from None
