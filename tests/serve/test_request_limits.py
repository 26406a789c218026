"""Limits, the API key, clients that leave, and requests of nonsense."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from local_server import Server, running
from toys import LETTERS, Table, chars, table

from revgen import LanguageModel
from revgen.serve.limits import Limits

LIMITS = Limits(max_prompt_tokens=50, max_tokens=1 << 30, max_texts=4, max_batch=2, max_queue=2, max_seconds=2)
STREAM = {"model": "slow", "prompt": "a", "max_tokens": 40_000, "logprobs": 20, "stream": True}
ENDLESS = {"model": "slow", "prompt": "a", "max_tokens": 1 << 30}


class Slow(Table):
    """A model that takes a while for each token, and never ends a text. It counts its steps."""

    steps = 0

    def forward(self, tokens: Any, state: Any) -> Any:
        time.sleep(0.005)
        self.steps += 1
        return super().forward(tokens, state)


def endless_model(kind: type[Table] = Table) -> Any:
    """Return a model of letters that never ends a text."""
    tokenizer = chars(LETTERS)
    logits = np.zeros(len(tokenizer), np.float32)
    logits[tokenizer.eos_id] = -np.inf
    return table(tokenizer, logits, kind)


def slow_model() -> Any:
    """Return a model that also takes a while for each token."""
    return endless_model(Slow)


@pytest.fixture
def slow() -> Iterator[tuple[Server, Any]]:
    """A server of a slow model with low limits, and the model."""
    model = slow_model()
    with running({"slow": model}, limits=LIMITS) as server:
        yield server, model


def connect(server: Server) -> socket.socket:
    """Return a connection to a server."""
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def begin_request(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a request, and return the connection."""
    connection = connect(server)
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def begin_stream(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a request for a stream, and return the connection after its first bytes."""
    connection = begin_request(server, body | {"stream": True})
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    return connection


def gauge(server: Server, name: str) -> float:
    """Return a number of the metrics."""
    lines = server.get("/metrics")[1].splitlines()
    values = [line.split()[-1] for line in lines if line.startswith(f'{name}{{model="slow"}}')]
    return float(values[0]) if values else 0.0


def wait_for(server: Server, name: str, value: float) -> None:
    """Wait until a number of the metrics has this value."""
    end = time.monotonic() + 60
    while gauge(server, name) != value:
        assert time.monotonic() < end, f"{name} is {gauge(server, name)}"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_generation(slow: tuple[Server, Any], stream: bool) -> None:
    server, model = slow
    connection = begin_stream(server, ENDLESS) if stream else begin_request(server, ENDLESS)
    wait_for(server, "revgen_running_requests", 1)
    while not model.steps:
        time.sleep(0.01)

    connection.close()

    wait_for(server, "revgen_running_requests", 0)
    steps = model.steps
    time.sleep(0.05)
    assert model.steps <= steps + 1
    assert gauge(server, "revgen_generated_tokens_total") > 0


def test_requests_wait_until_there_is_room_and_are_refused_when_the_queue_is_full(slow: tuple[Server, Any]) -> None:
    server, _ = slow
    connections = [begin_request(server, ENDLESS) for _ in range(2)]
    wait_for(server, "revgen_running_requests", 2)
    connections += [begin_request(server, ENDLESS) for _ in range(2)]
    wait_for(server, "revgen_waiting_requests", 2)

    status, body = server.post("/v1/completions", ENDLESS)

    assert (status, body["error"]["type"], body["error"]["code"]) == (429, "rate_limit_error", "queue_full")
    for connection in connections:
        connection.close()
    wait_for(server, "revgen_running_requests", 0)
    wait_for(server, "revgen_waiting_requests", 0)


def test_a_request_that_takes_too_long_ends_with_an_error(slow: tuple[Server, Any]) -> None:
    server, _ = slow
    connection = begin_stream(server, ENDLESS)

    status, body = server.post("/v1/completions", ENDLESS)

    assert status == 504 and "longer than 2 seconds" in body["error"]["message"]
    received = b""
    while b"longer than 2 seconds" not in received:
        received += connection.recv(1 << 16)
    connection.close()
    wait_for(server, "revgen_running_requests", 0)


def test_texts_of_a_long_prompt_do_not_starve_the_others(slow: tuple[Server, Any]) -> None:
    server, _ = slow
    connection = begin_stream(server, ENDLESS)

    status, body = server.post("/v1/completions", {"model": "slow", "prompt": "b" * 50, "max_tokens": 3})

    assert status == 200 and len(body["choices"][0]["text"]) == 3
    connection.close()


def test_a_request_joins_those_that_came_first_and_ends_before_them(slow: tuple[Server, Any]) -> None:
    server, _ = slow
    connection = begin_stream(server, ENDLESS)

    status, body = server.post("/v1/completions", {"model": "slow", "prompt": "b", "max_tokens": 3})

    assert status == 200 and len(body["choices"][0]["text"]) == 3
    assert gauge(server, "revgen_running_requests") == 1, "the other continues"
    connection.close()


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"model": "slow", "prompt": "a" * 51}, 400, "prompt", "context_length_exceeded"),
        ({"model": "slow", "prompt": [5] * 51}, 400, "prompt", "context_length_exceeded"),
        ({"model": "slow", "prompt": "a" * 1000}, 400, "prompt", "context_length_exceeded"),
        ({"model": "slow", "prompt": "a", "stop": ["b"] * 65}, 400, "stop", None),
        ({"model": "slow", "prompt": "a", "n": 5}, 400, "n", None),
        ({"model": "slow", "prompt": ["a"] * 5}, 400, "prompt", None),
        ({"model": "slow", "prompt": "a", "max_tokens": 1 << 29, "logprobs": 5}, 400, "logprobs", None),
        ({"model": "other", "prompt": "a"}, 404, "model", "model_not_found"),
        ({"prompt": "a"}, 400, "model", None),
        ({"model": "slow", "max_tokens": "5"}, 400, "max_tokens", None),
        ({"model": "slow", "max_tokens": True}, 400, "max_tokens", None),
        ({"model": "slow", "prompt": {"a": 1}}, 400, "prompt", None),
        ([], 400, None, None),
        (b"{", 400, None, None),
        (b"\xff\xfe", 400, None, None),
        (b'{"model": "slow", "prompt": "\\ud800"}', 400, None, None),
        (b"[" * 100_000, 400, None, None),
        (b'{"model": "slow", "temperature": NaN}', 400, "temperature", None),
        (b'{"model": "slow", "temperature": 1e999}', 400, "temperature", None),
        (b'{"model": "slow", "seed": ' + b"9" * 5000 + b"}", 400, None, None),
        (b" " * (1 << 20) + b"{}", 413, None, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_error_has_the_form_of_the_protocol(
    slow_limits: Server, body: Any, status: int, param: str | None, code: str | None
) -> None:
    got, answer = slow_limits.post("/v1/completions", body)

    assert got == status, answer
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code), answer
    assert answer["error"]["type"] == "invalid_request_error" and answer["error"]["message"]


@pytest.fixture(scope="module")
def slow_limits() -> Iterator[Server]:
    """A server of a slow model with low limits."""
    model = slow_model()
    with running({"slow": model}, limits=LIMITS) as server:
        yield server


def test_other_requests_have_errors_of_the_same_form(slow_limits: Server) -> None:
    for status, answer in (
        slow_limits.get("/v1/other"),
        slow_limits.get("/v1/completions"),
        slow_limits.get("/v1/models/other"),
        slow_limits.post("/v1/completions", {}, {"Content-Type": "text/plain"}),
        slow_limits.post("/v1/embeddings", {"model": "slow", "input": "a"}),  # not a network
    ):
        assert 400 <= status < 500
        assert answer["error"].keys() == {"message", "type", "param", "code"}


def test_only_requests_with_the_api_key_are_answered(small_model: LanguageModel) -> None:
    with running({"small": small_model}, api_key="secret") as server:
        for wrong in ("", "secret", "Bearer secre", "Bearer secret ", "Bearer é"):
            headers = {"Authorization": wrong}
            status, body = server.get("/v1/models", headers)
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
            assert server.get("/metrics", headers)[0] == 401
        assert server.get("/v1/models", {"Authorization": "Bearer secret"})[0] == 200
        assert server.get("/health")[0] == 200


def test_a_model_that_fails_gives_an_error_and_the_server_continues() -> None:
    model = slow_model()
    with running({"slow": model}) as server:
        model.forward = None
        status, body = server.post("/v1/completions", {"model": "slow", "prompt": "a"})
        assert (status, body["error"]["type"]) == (500, "server_error")
        del model.forward

        assert server.post("/v1/completions", {"model": "slow", "prompt": "a", "max_tokens": 2})[0] == 200


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server of an endless model that waits for a slow client for one second."""
    with running({"slow": endless_model()}, limits=Limits(max_client_seconds=1, max_tokens=1 << 16)) as server:
        yield server


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes before the server closes a connection."""
    with connection, connection.makefile("rb") as file:
        return file.read()


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_connection_without_a_request_ends(impatient: Server) -> None:
    connections = [connect(impatient) for _ in range(3)]

    for connection, sent in zip(connections, (b"", HEAD[:9], HEAD), strict=True):
        connection.sendall(sent)

    assert [read_to_end(connection) for connection in connections] == [b""] * 3


def test_a_body_that_does_not_end_is_an_error(impatient: Server) -> None:
    connections = [connect(impatient) for _ in range(4)]
    bodies = (
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"Content-Length: 1\r\n\r\n",
    )
    for connection, body in zip(connections, bodies, strict=False):
        connection.sendall(HEAD + body)
    connections[3].sendall(HEAD + b"Content-Length: 100000000\r\n\r\n" + b"a" * 100_000)

    *slow, large = [read_to_end(connection) for connection in connections]

    for response in slow:
        head, body = response.split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408") and b"connection: close" in head
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert large.startswith(b"HTTP/1.1 413")


def test_a_client_that_does_not_read_its_stream_stops_its_generation(impatient: Server) -> None:
    connection = begin_request(impatient, STREAM)

    wait_for(impatient, "revgen_running_requests", 1)
    wait_for(impatient, "revgen_running_requests", 0)
    assert b"[DONE]" not in read_to_end(connection)


def test_the_text_that_a_client_leaves_unread_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revgen.serve.engine.MAX_UNREAD_PIECES", 4000)
    with running({"slow": endless_model()}, limits=Limits(max_tokens=1 << 16)) as server:
        connection = begin_request(server, STREAM)

        wait_for(server, "revgen_running_requests", 1)
        wait_for(server, "revgen_running_requests", 0)

        received = b""
        while b"[DONE]" not in received and b"reads the stream too slowly" not in received:
            received += connection.recv(1 << 16)
        connection.close()
    assert b"[DONE]" not in received


def test_a_slow_response_does_not_end_a_connection() -> None:
    with running({"slow": slow_model()}, limits=Limits(max_client_seconds=1)) as server:
        assert server.post("/v1/completions", {"model": "slow", "prompt": "a", "max_tokens": 300})[0] == 200


def test_requests_are_answered_before_the_server_ends() -> None:
    model = slow_model()
    answers: list[int] = []
    with running({"slow": model}) as server:
        body = {"model": "slow", "prompt": "a", "max_tokens": 50}
        thread = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", body)[0]))
        thread.start()
        wait_for(server, "revgen_running_requests", 1)

    thread.join()
    assert answers == [200]
