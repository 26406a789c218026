"""``revgen serve``."""

from __future__ import annotations

import argparse
import dataclasses
import os

from revgen.cli.options import MODEL, add_device
from revgen.cli.parser import Command
from revgen.errors import MissingExtraError
from revgen.serve.limits import Limits

API_KEY = "REVGEN_API_KEY"
"""The environment variable with the API key."""


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen serve``."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODEL)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on (default: 8000)")
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"the key that requests must have (default: the variable {API_KEY})"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="the number of processes, best one for each processor (default: 1)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the models, which makes single texts faster")
    for option in dataclasses.fields(Limits):
        flag, text = f"--{option.name.replace('_', '-')}", f"{option.metadata['help']} (default: {option.default})"
        parser.add_argument(flag, type=int, metavar="N", default=option.default, help=text)
    add_device(parser)


def run_serve(options: argparse.Namespace) -> int:
    """Serve models until the process gets SIGINT or SIGTERM."""
    api_key = options.api_key or os.environ.get(API_KEY) or None
    values = vars(options) | {"models": tuple(options.models), "api_key": api_key}
    limits = Limits(**{option.name: values[option.name] for option in dataclasses.fields(Limits)})
    try:
        from revgen.serve.server import ServerOptions, run_server
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the server needs {error.name}: pip install 'revgen[serve]'") from None
    names = [option.name for option in dataclasses.fields(ServerOptions) if option.name != "limits"]
    return run_server(ServerOptions(limits=limits, **{name: values[name] for name in names}))


COMMANDS = {
    "serve": Command(
        add_serve_arguments,
        run_serve,
        """\
  revgen serve lstm-char
  revgen serve lstm-char me/other my-model --port 8000 --api-key secret --workers 4""",
    )
}
