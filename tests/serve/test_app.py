"""The API with the client of OpenAI, and with curl."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from local_server import Server, running
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from revgen import LanguageModel

LEVELS = ("char", "word", "subword")


@pytest.fixture(scope="module")
def server(models_by_level: dict[str, LanguageModel]) -> Iterator[Server]:
    """A server with a small model of each level, by the name of the level, and with one that has its own defaults."""
    own = copy.deepcopy(models_by_level["char"])
    own.generation_config = {"prompt": "the ", "temperature": 0.5, "min_p": 0.1, "max_tokens": 50, "min_tokens": 10}
    with running({**models_by_level, "own": own}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    """OpenAI's client, connected to the server."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [*LEVELS, "own"]
    assert client.models.retrieve("word").owned_by == "revgen"
    with pytest.raises(NotFoundError, match="'other' does not exist"):
        client.models.retrieve("other")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0}, {"top_p": 0.9, "temperature": 1.3}, {"frequency_penalty": 0.5}, {"stop": ["e", "a "]}],
    ids=str,
)
def test_a_completion_is_the_text_of_generate(
    client: OpenAI, models_by_level: dict[str, LanguageModel], level: str, options: dict[str, Any]
) -> None:
    completion = client.completions.create(model=level, prompt="the ", max_tokens=30, seed=3, **options)

    text = models_by_level[level].generate("the ", max_tokens=30, seed=3, **options)
    assert "the " + completion.choices[0].text == text
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_several_prompts_and_texts_are_those_of_generate(
    client: OpenAI, models_by_level: dict[str, LanguageModel]
) -> None:
    prompts = ["the ", "a longer beginning of a ", ""]

    completion = client.completions.create(model="char", prompt=prompts, n=3, max_tokens=20, seed=1, echo=True)

    texts = models_by_level["char"].generate(prompts, n=3, max_tokens=20, seed=1)
    assert [choice.text for choice in completion.choices] == [text for row in texts for text in row]
    assert [choice.index for choice in completion.choices] == list(range(9))


def test_options_of_revgen_are_extra_fields(client: OpenAI, models_by_level: dict[str, LanguageModel]) -> None:
    for options in ({"min_p": 0.1}, {"top_k": 3}, {"regex": "[a-c]{5}"}, {"choices": ["yes", "no"]}):
        completion = client.completions.create(model="char", prompt="the ", max_tokens=10, seed=2, extra_body=options)

        text = models_by_level["char"].generate("the ", max_tokens=10, seed=2, **options)
        assert "the " + completion.choices[0].text == text


def test_fields_that_a_request_omits_are_the_defaults_of_the_model(
    server: Server, models_by_level: dict[str, LanguageModel]
) -> None:
    def complete(**fields: Any) -> str:
        _, body = server.post("/v1/completions", {"model": "own", "seed": 3, **fields})
        return str(body["choices"][0]["text"])

    def generate(prompt: str, **options: Any) -> str:
        model: Any = models_by_level["char"]
        return str(model.generate(prompt, **{"seed": 3, "temperature": 0.5, "min_p": 0.1, **options}))

    text = generate("the ", max_tokens=50, min_tokens=10)
    assert complete() == complete(temperature=None, min_p=None, prompt=None) == text
    assert complete(prompt="the ") == text.removeprefix("the ")
    assert complete(prompt="", max_tokens=25, min_p=0) == generate("", max_tokens=25, min_tokens=5, min_p=0)
    assert complete(temperature=0) == generate("the ", max_tokens=50, min_tokens=10, temperature=0, min_p=None)
    assert len(complete(regex="[a-c]{30}")) == 34


def test_a_stream_has_the_same_text_and_its_usage(client: OpenAI, models_by_level: dict[str, LanguageModel]) -> None:
    request: Any = {"model": "char", "prompt": ["the ", "a"], "n": 2, "max_tokens": 40, "seed": 5, "echo": True}
    texts, reasons, usage = [""] * 4, [None] * 4, None

    for event in client.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            assert reasons[choice.index] is None, "the last event of a text has the reason"
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason

    rows = models_by_level["char"].generate(["the ", "a"], n=2, max_tokens=40, seed=5)
    assert texts == [text for row in rows for text in row]
    assert set(reasons) <= {"stop", "length"}
    assert usage == client.completions.create(**request).usage


def test_the_asynchronous_client_gets_many_texts_at_once(
    server: Server, models_by_level: dict[str, LanguageModel]
) -> None:
    async def texts() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def complete(seed: int) -> str:
                options: Any = {"max_tokens": 20 + seed, "temperature": 1 + seed % 3 / 10}
                stream = await client.completions.create(model="char", prompt="so ", seed=seed, stream=True, **options)
                return "".join([event.choices[0].text async for event in stream])

            return await asyncio.gather(*map(complete, range(20)))

    model = models_by_level["char"]
    alone = [model.generate("so ", seed=i, max_tokens=20 + i, temperature=1 + i % 3 / 10) for i in range(20)]
    assert ["so " + text for text in asyncio.run(texts())] == alone


@pytest.mark.parametrize("level", LEVELS)
def test_token_ids_are_a_prompt(client: OpenAI, models_by_level: dict[str, LanguageModel], level: str) -> None:
    tokenizer = models_by_level[level].tokenizer
    ids = tokenizer.encode("the band and").tolist()

    one, many = (
        client.completions.create(model=level, prompt=prompt, max_tokens=5, seed=1, echo=True)
        for prompt in (ids, [ids, ids])
    )

    assert one.choices[0].text.startswith(tokenizer.decode(ids))
    assert one.usage is not None and one.usage.prompt_tokens == len(ids)
    assert len(many.choices) == 2


def test_a_bias_is_added_to_the_token_with_this_id(client: OpenAI, models_by_level: dict[str, LanguageModel]) -> None:
    token = int(models_by_level["char"].tokenizer.encode("z")[0])

    completion = client.completions.create(model="char", max_tokens=5, prompt="", logit_bias={str(token): 100})

    assert completion.choices[0].text == "zzzzz"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_score(
    client: OpenAI, models_by_level: dict[str, LanguageModel], level: str, stream: bool
) -> None:
    model = models_by_level[level]
    request: Any = {"model": level, "prompt": "the band", "max_tokens": 12, "seed": 4, "echo": True, "logprobs": 2}
    if stream:
        choices = [event.choices[0] for event in client.completions.create(**request, stream=True)]
    else:
        choices = client.completions.create(**request).choices
    text = "".join(choice.text for choice in choices)
    logprobs: list[float] = []
    offsets: list[int] = []
    for choice in choices:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        logprobs += choice.logprobs.token_logprobs
        offsets += choice.logprobs.text_offset or []
        assert choice.logprobs.top_logprobs is not None
        assert all(1 <= len(alternatives) <= 2 for alternatives in choice.logprobs.top_logprobs)

    assert offsets == sorted(offsets) and offsets[0] == 0 and offsets[-1] < len(text)
    if level == "char":  # at other levels, the text may have other tokens than those that were sampled
        np.testing.assert_allclose(logprobs, model.score(text).logprobs[: len(logprobs)], rtol=1e-3, atol=1e-4)


def test_a_prompt_is_scored_without_a_continuation(client: OpenAI, models_by_level: dict[str, LanguageModel]) -> None:
    completion = client.completions.create(model="char", prompt="the band", max_tokens=0, echo=True, logprobs=0)

    choice = completion.choices[0]
    assert choice.text == "the band" and choice.finish_reason == "length"
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    expected = models_by_level["char"].score("the band").logprobs[:-1]
    np.testing.assert_allclose(choice.logprobs.token_logprobs, expected, rtol=1e-4)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_are_those_of_embed(
    client: OpenAI, models_by_level: dict[str, LanguageModel], encoding_format: Any
) -> None:
    texts = ["a great song", "the band"]

    response = client.embeddings.create(model="char", input=texts, encoding_format=encoding_format)

    expected = models_by_level["char"].embed(texts)
    vectors: list[Any] = [item.embedding for item in response.data]
    if encoding_format == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert response.usage.prompt_tokens == len("a great songthe band")


def test_the_client_gets_embeddings_in_its_own_default_encoding(
    client: OpenAI, models_by_level: dict[str, LanguageModel]
) -> None:
    response = client.embeddings.create(model="char", input="a great song")

    expected = models_by_level["char"].embed(["a great song"])[0]
    np.testing.assert_allclose(response.data[0].embedding, expected, rtol=1e-4, atol=1e-5)


def test_chat_is_answered_with_an_error_that_says_what_to_use(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="use /v1/completions"):
        client.chat.completions.create(model="char", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(NotFoundError, match="use /v1/completions"):
        client.responses.create(model="char", input="hello")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 1 << 30}, "max_tokens"),
        ({"logit_bias": {"song": 1}}, "logit_bias"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"prompt": [5, -1]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"extra_body": {"regex": "("}}, "regex"),
        ({"extra_body": {"label": "positive"}}, None),
        ({"extra_body": {"tempreature": 1}}, "tempreature"),
    ],
    ids=str,
)
def test_an_error_names_the_parameter(client: OpenAI, options: dict[str, Any], param: str | None) -> None:
    with pytest.raises(BadRequestError) as error:
        client.completions.create(**{"model": "char", "prompt": "the ", **options})

    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tempreature": 1}, "there is no field 'tempreature'; did you mean temperature?"),
        ({"prompt": 5}, "prompt must be a valid string or a valid array"),
        ({"max_tokens": "5"}, "max_tokens must be a valid integer"),
        ({"n": 0}, "n must be greater than or equal to 1"),
        ({"stop": ["."] * 99}, "at most 64 items"),
        ({"stream_options": {"usage": True}}, "stream_options: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_an_error_says_what_a_field_must_be(server: Server, options: dict[str, Any], message: str) -> None:
    status, body = server.post("/v1/completions", {"model": "char", **options})

    assert status == 400
    assert message in body["error"]["message"]


def test_a_base_url_without_the_version_is_explained(server: Server) -> None:
    client = OpenAI(base_url=server.url, api_key="none", max_retries=0)

    with pytest.raises(NotFoundError, match=f"use the base URL {server.url}/v1"):
        client.completions.create(model="char", prompt="the ")


def test_curl_gets_a_completion_and_a_stream(server: Server) -> None:
    def curl(*options: str) -> str:
        request = '{"model": "char", "prompt": "the ", "max_tokens": 5, "temperature": 0, "stream": %s}'
        command = ["curl", "--silent", "--no-buffer", f"{server.url}/v1/completions", "--json", request % options[0]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = json.loads(curl("false"))["choices"][0]["text"]
    *events, last, end = curl("true").split("\n\n")

    assert "".join(json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events) == text
    assert (last, end) == ("data: [DONE]", "")


def test_the_document_of_the_api_describes_the_options(server: Server) -> None:
    _, document = server.get("/openapi.json")

    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert {"prompt", "temperature", "min_p", "regex", "logprobs"} <= fields.keys()
    assert fields["min_p"]["description"].startswith("Keep tokens that are at least this fraction as likely")
    assert server.get("/docs")[0] == 200


def test_metrics_count_requests_and_tokens(server: Server) -> None:
    def value(name: str) -> float:
        lines = server.get("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value("revgen_generated_tokens_total"), value('revgen_requests_total{path="/v1/completions",status="200"}')
    server.post("/v1/completions", {"model": "char", "prompt": "x", "max_tokens": 7, "regex": "[a-z]{7}"})

    after = value("revgen_generated_tokens_total"), value('revgen_requests_total{path="/v1/completions",status="200"}')
    assert (after[0] - before[0], after[1] - before[1]) == (7, 1)
    assert value("revgen_running_requests") == value("revgen_waiting_requests") == 0
    assert server.get("/health") == (200, {"status": "ok"})
