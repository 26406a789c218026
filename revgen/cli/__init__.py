"""The command ``revgen``. Each command parses its arguments, calls the public interface, and prints the result."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence

from revgen.cli.parser import CommandParser, Parser, replace_parameters
from revgen.errors import RevgenError
from revgen.version import __version__

COMMANDS = {
    "list": ("models", "list the available models"),
    "info": ("models", "show the card of a model"),
    "generate": ("generate", "generate text"),
    "synthesize": ("generate", "generate a text with several models that take turns, word by word"),
    "serve": ("serve", "answer requests of the OpenAI protocol, and show a page in the browser"),
    "write": ("generate", "write a text together with a model, in the terminal"),
    "fit": ("train", "train a new model, or fine-tune one"),
    "compare": ("train", "train several models on the same text, and compare them"),
    "evaluate": ("evaluate", "measure how well a model predicts text"),
    "explain": ("evaluate", "show how expected each token of a text was"),
    "novelty": ("evaluate", "find the parts of a text that are copied from a model's training text"),
    "check": ("check", "check a cell, an architecture, a tokenizer or a filter of your own"),
    "push": ("share", "push one or several models to the Hub"),
    "pull": ("share", "download a model from the Hub to the cache"),
    "export": ("share", "export a model as a web page, or as an ONNX graph"),
    "cache": ("share", "list the models in the Hub's cache, or remove one"),
    "datasets": ("datasets", "list the corpora in the package, or fetch one from the Hub"),
    "doctor": ("doctor", "show what revgen finds here: versions, processor, GPU, caches, extras"),
    "completion": ("completion", "print the script that completes commands and names in a shell"),
}
"""The module and the summary of each command."""

TOUR = """\
revgen: small language models that you train on your own text. A short tour:

  revgen generate lstm-char                     generate text with a model that is ready to use
  revgen list                                   see all models
  revgen fit gru-char my.txt --out my-model     train a model on your own text
  revgen generate my-model -n 5                 let it generate 5 texts
  revgen evaluate my-model other.txt            measure how well it predicts another text
  revgen export my-model page.html              make a web page of it that you can send to a friend
  revgen serve my-model                         answer requests of the OpenAI protocol, with a page at /

revgen --help lists all commands, and revgen COMMAND --help explains one. revgen doctor shows what is installed."""

EXAMPLES = """examples:
  revgen generate lstm-char
  revgen fit gru-char reviews.txt --valid 0.1 --epochs 5 --out my-model
  revgen evaluate my-model held_out.txt
  revgen list "lstm-*\""""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0 for success, 2 for an error, which is one line on standard error.

    A command may return a status of its own: ``check`` returns 1 if a check fails.
    """
    if sys.stdout is None:  # it was closed before the start
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may be unable to show every character of a text
    parser, commands = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        print(TOUR)
        return 0
    from revgen.cli.console import logger, notes_on_stderr, print_error  # here, so that --help imports little

    if options.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    start = time.perf_counter()
    try:
        with notes_on_stderr(options.quiet, options.verbose):
            status = options.run(options)
            logger.debug("finished after %.1f s", time.perf_counter() - start)
        sys.stdout.flush()
    except RevgenError as error:
        if options.verbose:
            import traceback

            traceback.print_exc()
        print_error(replace_parameters(" ".join(error.command.split()), options.command, commands))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:  # the disk of standard output is full
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - Python flushes it at the end
        print_error(f"the output cannot be written: {error.strerror or error}")
        return 2
    return status or 0


def build_parser() -> tuple[Parser, dict[str, CommandParser]]:
    """Return the parser of the command line, and the parser of each command by name."""
    parser = Parser(
        prog="revgen",
        description="A zoo of small language models: generate text, train on your own, evaluate.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"revgen {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", parser_class=CommandParser)
    commands = {
        name: subparsers.add_parser(name, help=summary, summary=summary, command=name, module=module)
        for name, (module, summary) in COMMANDS.items()
    }
    return parser, commands
