"""``revgen serve``."""

from __future__ import annotations

import argparse
import dataclasses
import os

from revgen.cli.options import MODEL, add_device
from revgen.cli.parser import Command
from revgen.errors import MissingExtraError
from revgen.serve.limits import Limits
from revgen.zoo import load

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
    parser.add_argument("--compile", action="store_true", help="compile the models, which makes single texts faster")
    for option in dataclasses.fields(Limits):
        flag, text = f"--{option.name.replace('_', '-')}", f"{option.metadata['help']} (default: {option.default})"
        parser.add_argument(flag, type=int, metavar="N", default=option.default, help=text)
    add_device(parser)


def run_serve(options: argparse.Namespace) -> None:
    """Serve models until the process gets SIGINT or SIGTERM; it ends when all requests are answered."""
    try:
        import uvicorn

        from revgen.serve.app import create_app
    except ImportError as error:
        raise MissingExtraError(f"the server needs {error.name}: pip install 'revgen[serve]'") from None
    limits = Limits(**{option.name: getattr(options, option.name) for option in dataclasses.fields(Limits)})
    models = {name: load(name, device=options.device) for name in options.models}
    for model in models.values() if options.compile else ():
        model.compile()
    app = create_app(models, api_key=options.api_key or os.environ.get(API_KEY) or None, limits=limits)
    uvicorn.run(app, host=options.host, port=options.port, timeout_graceful_shutdown=limits.max_seconds)


COMMANDS = {
    "serve": Command(
        add_serve_arguments,
        run_serve,
        """\
  revgen serve lstm-char
  revgen serve lstm-char me/other my-model --port 8000 --api-key secret""",
    )
}
