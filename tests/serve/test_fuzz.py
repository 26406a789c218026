"""Random requests never make the server fail."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from local_server import Server, running

import revgen
from revgen import LanguageModel
from revgen.serve.limits import Limits
from revgen.serve.schema import OPTION_FIELDS

FIELDS = [
    *("model", "prompt", "input", "n", "stream", "stream_options", "echo", "logprobs", "best_of", "suffix", "user"),
    *("encoding_format", "dimensions", "pool", "unknown", *OPTION_FIELDS),
]
SCALARS: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, 20, 1 << 31, 1 << 63, -(1 << 63), 1 << 200, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-320),
    *(1e30, 1e308, float("inf"), float("-inf"), float("nan"), "", "a", "the ", "x" * 300, "\x00", "é漢\U0001f600"),
    *("char", "[a-z]+", "(", "a|b*", "(a*)*b", "[^\\d]{2,5}", "\\", "float", "base64", "mean", "9", "-1", "1e5"),
]


def random_value(rng: random.Random, depth: int = 0) -> Any:
    """Return a random JSON value."""
    kind = rng.random()
    if depth > 2 or kind < 0.7:
        return rng.choice(SCALARS)
    values = [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return values if kind < 0.88 else {str(rng.choice(SCALARS)): value for value in values}


def valid_value(rng: random.Random, name: str) -> Any:
    """Return a value that is mostly valid for a field."""
    values: dict[str, list[Any]] = {
        "model": ["char", "word", "subword"],
        "prompt": ["the ", "", ["a", "b"], [5, 6, 7], [[5], [6, 7]], "漢字 ", "the\x00"],
        "input": ["the ", ["a", ""], [5, 6], [[5], []]],
        "stop": ["a", ["e", "th"], None],
        "logit_bias": [{"5": 3}, {"7": -100.0}, {}],
        "banned_tokens": [["a"], [5], []],
        "choices": [["yes", "no"], ["a"], [""]],
        "regex": ["[a-z]{3}", "(yes|no)", "a*", "[^a]+"],
        "stream_options": [{"include_usage": True}, None],
    }
    return rng.choice(values.get(name, [None, True, 1, 2, 0.5, "a"]))


def random_body(rng: random.Random) -> bytes:
    """Return a request that is nearly right, random JSON, or damaged JSON."""
    body: Any = {name: valid_value(rng, name) for name in ("model", "prompt")} | {"max_tokens": rng.randrange(9)}
    if rng.random() < 0.3:
        body = {"model": body["model"], "input": valid_value(rng, "input")}
    for _ in range(rng.randrange(5)):
        name = rng.choice(FIELDS)
        body[name] = valid_value(rng, name) if rng.random() < 0.6 else random_value(rng)
    if rng.random() < 0.05:
        body = random_value(rng)
    data = bytearray(json.dumps(body).encode())
    while data and rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.03 else data)


@pytest.fixture(scope="module")
def server(models_by_level: dict[str, LanguageModel]) -> Iterator[Server]:
    """A server of small models with low limits."""
    limits = Limits(max_texts=8, max_tokens=50, max_prompt_tokens=200, max_seconds=20)
    models = {**models_by_level, "counts": revgen.create("kneser-ney-char", order=3)}
    models["counts"].fit(["the band plays a song"] * 5, progress=False)
    with running(models, limits=limits) as server:
        yield server


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.fuzz)])
def test_no_request_makes_the_server_fail(server: Server, count: int) -> None:
    rng = random.Random(count)
    statuses: dict[int, int] = {}
    for _ in range(count):
        body, path = random_body(rng), rng.choice(["/v1/completions"] * 3 + ["/v1/embeddings"])

        status, answer = server.post(path, body)

        statuses[status] = statuses.get(status, 0) + 1
        assert status in (200, 400, 404), (status, path, body, answer)
        if status != 200:
            assert answer["error"].keys() == {"message", "type", "param", "code"}
        elif isinstance(answer, str):
            assert answer.endswith("data: [DONE]\n\n"), (body, answer)
    assert statuses[200] > count / 10 and statuses[400] > count / 10, statuses


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_hostile_model_makes_no_request_fail(value: float) -> None:
    texts = ["the band plays a song \ud800"] * 8
    gru = revgen.create("gru-char", hidden_size=8, num_layers=1, tokenizer={"min_count": 1})
    gru.fit(texts, epochs=1, progress=False)
    counts = revgen.create("cm-char", tokenizer=gru.tokenizer)
    counts.fit(texts, epochs=1, progress=False)
    models = {"gru": gru, "cm": counts, "gated": revgen.mix([gru, gru], gated=True)}
    for model in models.values():
        model.weights = {n: np.full_like(a, value) if a.dtype.kind == "f" else a for n, a in model.weights.items()}
        model.metadata = {
            "description": "\ud800",
            "training": {"epochs": value, "seconds": 10**400},
            "samples": ["\ud800"],
        }
    with np.errstate(all="ignore"), running(models) as server:
        assert server.get("/page/models")[0] == 200
        for name in models:
            for options in ({}, {"logprobs": 20, "echo": True}, {"n": 3, "stop": "b"}, {"regex": "a*"}):
                for stream in (True, False):
                    body = {"model": name, "prompt": "the", "max_tokens": 4, "stream": stream, **options}
                    status, answer = server.post("/v1/completions", body)
                    assert status == 200 and "NaN" not in str(answer), answer
            status, answer = server.post("/v1/embeddings", {"model": name, "input": "the"})
            assert status == 400 and len(answer["error"]["message"]) < 600


@pytest.mark.parametrize("name", ["x" * 100_000, "\ud800", "\x1b[31m\n"])
def test_errors_quote_little_of_a_request(name: str, server: Server) -> None:
    status, answer = server.post("/v1/completions", {"model": name, "prompt": "the"})

    assert status in (400, 404) and len(answer["error"]["message"]) < 600 and "\n" not in answer["error"]["message"]
