"""``run_server``: the process, or the processes, in which uvicorn runs the application."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from revgen.errors import RevgenError
from revgen.options import check, check_at_least
from revgen.serve.app import create_app
from revgen.serve.connection import connection_class
from revgen.serve.limits import Limits
from revgen.zoo import load

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""How libraries for matrix products are told their number of threads."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The models to serve, by name, and how."""

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    device: str = "cpu"
    compile: bool = False
    workers: int = 1
    quiet: bool = False
    """Whether the log has only warnings and errors."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_at_least("workers", self.workers, 1)
        has_reuse = self.workers == 1 or hasattr(socket, "SO_REUSEPORT")
        check("workers", self.workers, has_reuse, "1 on this operating system, which cannot share a port")
        check("port", self.port, 0 < self.port < 1 << 16, "from 1 to 65535")


def run_server(options: ServerOptions) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status, when all requests have been answered.

    Each worker is a process with its own models. The system spreads the connections over them. Raises RevgenError if
    the address cannot be used, or if a worker is killed, for example for a lack of memory.
    """
    check_address(options.host, options.port)
    num_threads = max(1, (os.cpu_count() or 1) // options.workers)
    for name in options.models:
        load(name, device=options.device)  # raises its errors here, and downloads the model once
    if not options.quiet:
        url = f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{options.port}"
        print(f"Serving {', '.join(options.models)}: page {url}, API {url}/v1, its options {url}/docs", file=sys.stderr)
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(num_threads))
    with TemporaryDirectory(prefix="revgen-metrics-") as directory:
        if options.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        return run_workers(options)


def run_workers(options: ServerOptions) -> int:
    """Start the workers, pass signals on to them, and return the exit status when they have ended."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=run_worker, args=(options,)) for _ in range(options.workers)]
    signals: list[int] = []

    def stop(number: int = 0, _: FrameType | None = None) -> None:
        signals.append(number)
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for worker in workers:
        worker.start()
    wait([worker.sentinel for worker in workers])
    is_wanted = bool(signals)
    stop()  # if one ends, all do
    for worker in workers:
        worker.join()
    killed = [-status for worker in workers if (status := worker.exitcode or 0) < 0 and status != -signal.SIGTERM]
    if killed and not is_wanted:
        raise RevgenError(f"signal {killed[0]} ended a process of the server, perhaps for a lack of memory")
    return max(0, *(worker.exitcode or 0 for worker in workers))


def run_worker(options: ServerOptions) -> None:
    """Load the models, and serve until SIGINT or SIGTERM, or until the parent process ends."""
    threading.Thread(target=stop_with_parent, daemon=True).start()
    models = {name: load(name, device=options.device) for name in options.models}
    for model in models.values() if options.compile else ():
        model.compile()
    app = create_app(models, api_key=options.api_key, limits=options.limits)
    level = "warning" if options.quiet else "info"
    server = make_server(app, options.limits, host=options.host, port=options.port, log_level=level)
    server.run([bound_socket(options.host, options.port, is_shared=True)] if options.workers > 1 else None)


def stop_with_parent() -> None:
    """Wait for the end of the parent process, and send this process SIGTERM."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        signal.raise_signal(signal.SIGTERM)


def make_server(app: FastAPI, limits: Limits, **options: Any) -> uvicorn.Server:
    """Return uvicorn for an application, within the limits. ``options`` are those of ``uvicorn.Config``."""
    config = uvicorn.Config(
        app,
        http=connection_class(limits.max_client_seconds),
        ws="none",
        access_log=False,
        timeout_graceful_shutdown=limits.max_seconds,
        **options,
    )
    return uvicorn.Server(config)


def check_address(host: str, port: int) -> None:
    """Raise RevgenError unless a server can listen on an address."""
    try:
        bound_socket(host, port).close()
    except OSError as error:
        raise RevgenError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def bound_socket(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a socket for connections to an address, which other processes may have too. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
