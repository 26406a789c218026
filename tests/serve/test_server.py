"""The command ``revgen serve``: its processes, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_server import Server

from revgen.cli import main


@contextmanager
def serving(*options: str) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """Run ``revgen serve``, from when it answers, and end it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "revgen", "serve", *options, "--port", str(port)]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE) as process:
        server = Server(f"http://127.0.0.1:{port}")
        try:
            while True:
                try:
                    server.get("/health")
                    break
                except OSError:
                    assert process.poll() is None, "the server does not start"
                    time.sleep(0.1)
            yield server, process
        finally:
            process.terminate()
            process.wait(60)


def test_sigterm_lets_requests_end_and_torch_is_not_loaded(model_directory: str) -> None:
    answers: list[int] = []
    with serving(model_directory) as (server, process):
        body = {"model": model_directory, "prompt": "the ", "max_tokens": 4000, "temperature": 0}
        thread = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", body)[0]))
        thread.start()
        while not re.search(r"revgen_running_requests{.*} 1", server.get("/metrics")[1]):
            assert not answers, "the request has ended already"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        loaded = [Path(f"/proc/{child}/maps").read_text() for child in children]

        process.send_signal(signal.SIGTERM)

        thread.join()
        assert answers == [200]
        assert process.wait(30) == 0
        assert process.stderr and f"API {server.url}/v1" in process.stderr.readline()
    assert not any("libtorch" in maps for maps in loaded)


@pytest.mark.slow
def test_workers_share_a_port_and_count_together() -> None:
    with serving("lstm-char", "--workers", "2", "--api-key", "secret") as (server, process):
        headers = {"Authorization": "Bearer secret"}
        body = {"model": "lstm-char", "prompt": "the ", "max_tokens": 5, "seed": 1}
        texts = {json.dumps(server.post("/v1/completions", body, headers)[1]["choices"]) for _ in range(20)}
        assert len(texts) == 1
        assert 'revgen_generated_tokens_total{model="lstm-char"} 100.0' in server.get("/metrics", headers)[1]

        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no-such-model"], "no-such-model"),
        (["lstm-char", "--port", "0"], "--port must be"),
        (["lstm-char", "--max-batch", "0"], "--max-batch must be"),
        (["lstm-char", "--workers", "0"], "--workers must be"),
    ],
)
def test_an_error_is_one_line(options: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 2

    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0]


def test_a_port_in_use_is_an_error_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["serve", "lstm-char", "--port", str(port)]) == 2

    assert capfd.readouterr().err == f"revgen: cannot listen on 127.0.0.1, port {port}: Address already in use\n"


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the child processes of a process that run Python code."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_is_killed_ends_the_server_with_an_error(model_directory: str) -> None:
    with serving(model_directory) as (_, process):
        [worker] = children_of(process)
        os.kill(worker, signal.SIGKILL)

        assert process.wait(30) == 2
        assert process.stderr is not None
        assert "signal 9 ended a process of the server" in process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_outlives_a_server_that_is_killed(model_directory: str) -> None:
    with serving(model_directory) as (_, process):
        [worker] = children_of(process)
        process.kill()
        process.wait(30)

        deadline = time.monotonic() + 30
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, "the worker is still running"
            time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_listens_on_the_loopback_address_only(model_directory: str) -> None:
    with serving(model_directory) as (server, _):
        port = int(server.url.rpartition(":")[2])
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {line[1].split(":")[0] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
        assert addresses == {"0100007F"}
        assert os.environ.get("REVGEN_API_KEY") is None
