"""The throughput of the web server, for one client at a time and for 64 at once."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Row, row

import revgen

NUM_CLIENTS = 64
SECONDS, WARM_UP_SECONDS = 6.0, 1.0
MAX_TOKENS = 128
PROMPTS = ("The band ", "This album is ", "On the second song, ", "She sings ", "Guitars and drums ")


@dataclass
class Load:
    """The completions of some clients in a time."""

    seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    """The number of tokens of each client."""
    first: list[float] = field(default_factory=list)
    """The time to the first token of each request, in seconds."""

    @property
    def rate(self) -> float:
        """The number of tokens per second of all clients together."""
        return sum(self.tokens) / self.seconds


async def client(port: int, model: str, number: int, load: Load, begin: float) -> None:
    """Send streamed requests one after the other, and count the tokens of those that end in the time of the load."""
    end = begin + load.seconds
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = 0
    while time.perf_counter() < end:
        body = {
            "model": model,
            "prompt": PROMPTS[(number + request) % len(PROMPTS)],
            "max_tokens": MAX_TOKENS,
            "stream": True,
            "seed": number + 1000 * request,
            **({} if Path(model).is_dir() else {"stream_options": {"include_usage": True}}),
        }
        data = json.dumps(body).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        start = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await reader.readuntil(b"\r\n\r\n")
        is_first = True
        while size := int(await reader.readline(), 16):
            event = await reader.readexactly(size + 2)
            if is_first:
                load.first.append(time.perf_counter() - start)
                is_first = False
            if (i := event.find(b'"completion_tokens"')) >= 0 and begin < time.perf_counter() < end:
                load.tokens[number] += int(event[i + 20 :].split(b",")[0])
        await reader.readline()
        request += 1
    writer.close()


async def measure_load(port: int, model: str, num_clients: int, seconds: float = SECONDS) -> Load:
    """Return what some clients get from a server in a time."""
    load = Load(seconds, [0] * num_clients)
    begin = time.perf_counter() + WARM_UP_SECONDS
    await asyncio.gather(*(client(port, model, i, load, begin) for i in range(num_clients)))
    return load


@contextmanager
def server(command: list[str], port: int, path: str = "/health", seconds: float = 120) -> Iterator[None]:
    """Run a server, from when it answers."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}  # its defaults
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            end = time.perf_counter() + seconds
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").close()
                    break
                except OSError:
                    if time.perf_counter() > end or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port that no program uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure_server(command: list[str], port: int, model: str, seconds: float = SECONDS) -> tuple[Load, Load]:
    """Return what one client gets from a server, and what many get at once."""
    with server(command, port):
        asyncio.run(measure_load(port, model, 2, 1.0))
        one = asyncio.run(measure_load(port, model, 1, seconds))
        return one, asyncio.run(measure_load(port, model, NUM_CLIENTS, seconds))


def save_llama(directory: Path, num_parameters: int) -> None:
    """Save a Llama with random weights and about this number of parameters, whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = ["<s>", *pre_tokenizers.ByteLevel.alphabet()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    fast.save_pretrained(directory)
    width = 192
    layers = round((num_parameters - 2 * len(alphabet) * width) / (16 * width**2))
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def serve(_: argparse.Namespace) -> Iterator[Row]:
    """Measure one client at a time and many at once, and the server of ``transformers`` with a model of equal size."""
    port = free_port()
    workers = ["--workers", str(os.cpu_count())]
    command = [sys.executable, "-m", "revgen", "serve", "lstm-char", "--port", str(port), *workers]
    one, many = measure_server(command, port, "lstm-char")
    name = f"serve lstm-char, {NUM_CLIENTS} clients"
    yield row(name, many.rate, "tokens/s", "one client", one.rate, "≥ 5 times", many.rate >= 5 * one.rate)
    first = 1000 * statistics.median(many.first)
    yield row(f"{name}: first token, median", first, "ms", "limit", 50.0, "< the limit", first < 50)
    slowest, mean = min(many.tokens), statistics.mean(many.tokens)
    yield row(f"{name}: slowest client", slowest, "tokens", "mean", mean, "≥ half of it", slowest >= mean / 2)
    with TemporaryDirectory() as directory:
        save_llama(Path(directory), revgen.load("lstm-char").num_parameters)
        script = Path(sys.executable).with_name("transformers")
        command = [str(script), "serve", directory, "--port", str(port), "--continuous-batching", "--device", "cpu"]
        their_one, their_many = measure_server(command, port, directory)
    yield row("serve, one client", one.rate, "tokens/s", "transformers serve", their_one.rate, "", True)
    yield row(name, many.rate, "tokens/s", "transformers serve", their_many.rate, "", True)
    their_first = 1000 * statistics.median(their_many.first)
    yield row(f"{name}: first token, median", first, "ms", "transformers serve", their_first, "", True)
