"""A server for tests: the application in a thread of its own, with uvicorn, on a free port."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from revgen import LanguageModel
from revgen.serve.app import create_app
from revgen.serve.limits import Limits
from revgen.serve.server import make_server


@dataclass(frozen=True)
class Server:
    """The address of a server."""

    url: str

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Return the status and the JSON of a response, or its text."""
        return send(urllib.request.Request(self.url + path, headers=dict(headers or {})))

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Send JSON, or bytes as they are, and return the status and the JSON of the response."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        return send(urllib.request.Request(self.url + path, data, headers))


def send(request: urllib.request.Request) -> tuple[int, Any]:
    """Return the status and the JSON of a response, or its text."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, text = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


@contextmanager
def running(
    models: Mapping[str, LanguageModel], *, api_key: str | None = None, limits: Limits | None = None
) -> Iterator[Server]:
    """Run a server with these models."""
    limits = limits or Limits()
    server = make_server(create_app(models, api_key=api_key, limits=limits), limits, port=0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join()
