"""Speed of generation, compared with loops in PyTorch, a GPT-2 of transformers, and textgenrnn."""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from custom_cells import NAMES
from handwritten import handwritten_loop
from measure import Row, Task, generating, medians, row, synchronize, with_cost
from torch import nn

import revgen


def plain_lstm(vocab: int, hidden: int) -> tuple[nn.Embedding, nn.LSTM, nn.Linear]:
    torch.manual_seed(0)
    return nn.Embedding(vocab, hidden), nn.LSTM(hidden, hidden, 2), nn.Linear(hidden, vocab)


def same_network(embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear) -> revgen.LanguageModel:
    """Return a model of revgen with the weights of a PyTorch network."""
    vocab, hidden = embedding.weight.shape
    tokenizer = revgen.tokenizers.CharTokenizer(["<s>", "</s>", "<unk>", *map(chr, range(97, 97 + vocab - 3))])
    options: dict[str, Any] = {"residual": False, "layer_norm": False, "tie_embeddings": False, "dropout": 0.0}
    model = revgen.create("lstm-char", tokenizer=tokenizer, hidden_size=hidden, **options)
    weights = {"embedding": embedding.weight, "head": head.weight, "bias": head.bias}
    for i in range(2):
        i_f_g_o = [getattr(lstm, f"{name}_l{i}").chunk(4) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        w, u, b, c = (torch.cat([i, f, o, g]) for i, f, g, o in i_f_g_o)
        weights |= {f"layers.{i}.W": w.t(), f"layers.{i}.U": u.t(), f"layers.{i}.b": b + c}
    model.weights = {name: value.detach().numpy().copy() for name, value in weights.items()}
    return model


def plain_loop(
    embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear, steps: int, n: int = 1, device: str = "cpu"
) -> Task:
    """Return the task of the simplest loop: the module, the softmax and a sample."""
    for module in (embedding, lstm, head):
        module.to(device)

    @torch.no_grad()
    def run() -> float:
        start, token, state = time.perf_counter(), torch.zeros(1, n, dtype=torch.long, device=device), None
        for _ in range(steps):
            output, state = lstm(embedding(token), state)
            token = torch.multinomial(head(output[0]).softmax(-1), 1).T
        synchronize(device)
        return n * steps / (time.perf_counter() - start)

    return run


def cell_loop(embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear, steps: int) -> Task:
    """Return the task of a loop over ``nn.LSTMCell``, for one text."""
    cells = [nn.LSTMCell(lstm.hidden_size, lstm.hidden_size) for _ in range(2)]
    for i, cell in enumerate(cells):
        cell.load_state_dict({name: getattr(lstm, f"{name}_l{i}") for name in cell.state_dict()})

    @torch.no_grad()
    def run() -> float:
        states: list[Any] = [None, None]
        start, token = time.perf_counter(), torch.zeros(1, dtype=torch.long)
        for _ in range(steps):
            x = embedding(token)
            for i, cell in enumerate(cells):
                states[i] = cell(x, states[i])
                x = states[i][0]
            token = torch.multinomial(head(x).softmax(-1), 1)[0]
        return steps / (time.perf_counter() - start)

    return run


def without_onednn(task: Task) -> Task:
    def run() -> float:
        with torch.backends.mkldnn.flags(enabled=False):
            return task()

    return run


def hugging_face(parameters: int, vocab: int, steps: int) -> Task | None:
    """Return the task of ``generate`` of a GPT-2 with two layers and about as many parameters."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        print("transformers is not installed, so GPT-2 is not measured", file=sys.stderr)
        return None
    width = min(range(8, 2048, 8), key=lambda n: abs(24 * n**2 + (vocab + steps + 16) * n - parameters))
    sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": steps + 16, "vocab_size": vocab}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=None, pad_token_id=0)).eval()

    def run() -> float:
        start = time.perf_counter()
        model.generate(torch.zeros(1, 1, dtype=torch.long), do_sample=True, top_k=0, max_new_tokens=steps)
        return steps / (time.perf_counter() - start)

    return run


TEXTGENRNN = """
import os, sys, time, types
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf, tensorflow.keras.utils
tf.config.threading.set_intra_op_parallelism_threads(1)
sys.modules["tensorflow.keras.utils"].multi_gpu_model = None  # imported from old versions, but not used here
backend = sys.modules["keras.backend.tensorflow_backend"] = types.ModuleType("")
backend.set_session = lambda session: None
from textgenrnn import textgenrnn
model = textgenrnn()
model.generate(1, max_gen_length=10, return_as_list=True)
start = time.perf_counter()
(text,) = model.generate(1, max_gen_length=100, temperature=1.0, return_as_list=True)
print("\\n", len(text) / (time.perf_counter() - start))
"""


def textgenrnn_rate(python: str) -> float:
    """Return the characters per second of textgenrnn's own model, with a Python that has textgenrnn."""
    output = subprocess.run([python, "-c", TEXTGENRNN], check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def seconds_to_read(size: float) -> float:
    """Return the seconds to read ``size`` bytes from the cache: the fastest of many scalar products of an array."""
    array = np.ones(max(int(size / 4), 1), np.float32)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        np.dot(array, array)
        times.append(time.perf_counter() - start)
    return min(times)


def weight_bytes(model: revgen.LanguageModel, itemsize: int) -> int:
    """Return the bytes of the matrices that one token reads: all but an embedding that is not the output layer too."""
    matrices = {name: array for name, array in model.weights.items() if array.ndim > 1}
    unread = {"embedding", "labels"} if "head" in matrices else set()
    return sum(array.size * itemsize for name, array in matrices.items() if name not in unread)


def compare_with_bandwidth(name: str, hidden: int, steps: int) -> Iterator[Row]:
    """Yield the microseconds per token of an architecture, and the microseconds that reading its weights takes."""
    model: Any = revgen.create(f"{name}-char", hidden_size=hidden, num_layers=2)
    model.prepare(same_network(*plain_lstm(70, 1)).tokenizer, 0)
    half = copy.copy(model)
    half.weights = {key: array.astype(np.float16).astype(np.float32) for key, array in model.weights.items()}
    variants = {"NumPy": model, "compiled": copy.copy(model).compile(), "compiled, float16 weights": half.compile()}
    rates = medians(*(generating(variant, steps) for variant in variants.values()))
    for (what, variant), rate in zip(variants.items(), rates, strict=True):
        read_time = seconds_to_read(weight_bytes(variant, 2 if variant is half else 4))
        figure = row(f"{name} 2×{hidden}, {what}", 1e6 / rate, "µs", "reading its weights", 1e6 * read_time, "", True)
        yield with_cost(figure, variant, rate)


def custom_cells(hidden: int, steps: int) -> Iterator[Row]:
    """Compare the three ways to generate with a cell of the user: the equation, its NumPy calls and compiled code."""
    for name in NAMES:
        model: Any = revgen.create(f"{name}-char", hidden_size=hidden, num_layers=2)
        model.prepare(same_network(*plain_lstm(70, 1)).tokenizer, 0)
        equation, compiled = copy.copy(model), copy.copy(model).compile()
        equation._num_tokens = -sys.maxsize  # never prepared
        slow, numpy, fast = medians(*(generating(m, steps) for m in (equation, model, compiled)))
        what = f"{name} 2×{hidden}"
        yield with_cost(row(f"{what}, NumPy", numpy, "1/s", "the equation", slow, "", True), model, numpy)
        for peer, rate, goal in (("the equation", slow, 5), ("NumPy", numpy, 0)):
            figure = row(
                f"{what}, compiled", fast, "1/s", peer, rate, f"≥ {goal} times it" if goal else "", fast >= 5 * slow
            )
            yield with_cost(figure, compiled, fast)


def generation(options: argparse.Namespace) -> Iterator[Row]:
    """Measure generation of one text on one thread, and of many at once. Start with OPENBLAS_NUM_THREADS=1."""
    torch.set_num_threads(1)
    vocab = 70
    for hidden, steps in ((128, 2000), (512, 500)):
        parts = plain_lstm(vocab, hidden)
        model, compiled = same_network(*parts), same_network(*parts).compile()
        logits, _ = model.forward(np.arange(50)[:, None], model.initial_state(1))
        with torch.no_grad():
            expected = parts[2](parts[1](parts[0](torch.arange(50)[:, None]))[0])
        assert np.abs(logits - expected.numpy()).max() < 1e-5, "not the same network"
        cells, simple = cell_loop(*parts, steps), plain_loop(*parts, steps)
        peers = {"nn.LSTM": simple, "nn.LSTM, oneDNN off": without_onednn(simple)}
        peers |= {"nn.LSTMCell": cells, "nn.LSTMCell, oneDNN off": without_onednn(cells)}
        peers |= {"a loop written for Numba": handwritten_loop(model, steps)}
        gpt = hugging_face(model.num_parameters, vocab, steps // 4)
        peers |= {"GPT-2 of Hugging Face": gpt} if gpt else {}
        fast, faster, *others = medians(generating(model, steps), generating(compiled, steps), *peers.values())
        rates = dict(zip(peers, others, strict=True))
        best = max(list(peers)[1:4], key=rates.__getitem__)
        for name, rate, goals in (
            ("NumPy", fast, {"nn.LSTM": 8}),
            (
                "compiled",
                faster,
                {"nn.LSTM": 15, best: 4, "a loop written for Numba": 1 / 1.3, "GPT-2 of Hugging Face": 0},
            ),
        ):
            for peer, goal in goals.items():
                if peer in rates:
                    goal_text = f"≥ {goal:.2g} times it" if goal else ""
                    what = f"lstm 2×{hidden}, {name}"
                    is_met = rate >= goal * rates[peer]
                    yield with_cost(row(what, rate, "1/s", peer, rates[peer], goal_text, is_met), model, rate)
        for n in (32, 256) if hidden == 128 else ():
            fast, slow = medians(generating(model, 12800 // n, n), plain_loop(*parts, 12800 // n, n))
            yield row(f"lstm 2×{hidden}, n={n}", fast, "1/s", "nn.LSTM", slow, "≥ it", fast >= slow)

    for hidden in (64, 128):
        yield from custom_cells(hidden, 2000)
    for name in ("elman", "rnn", "gru", "lstm", "slstm", "mingru", "rglru", "textgenrnn", "mlp", "transformer"):
        for hidden, steps in ((128, 1000), (512, 200)):
            yield from compare_with_bandwidth(name, hidden, steps)
    model = revgen.create("kneser-ney-char")
    model.fit(list(revgen.datasets.load("reviews")), progress=False)
    for what, rate in zip(
        ("NumPy", "compiled"),
        medians(generating(model, 2000), generating(copy.copy(model).compile(), 2000)),
        strict=True,
    ):
        yield row(f"kneser-ney, order 6, {what}", 1e6 / rate, "µs", "", 0, "", True)
    if options.textgenrnn:
        own = revgen.load("textgenrnn-char")
        (fast,) = medians(generating(own, 300))
        slow = textgenrnn_rate(options.textgenrnn)
        yield row("load(textgenrnn-char), NumPy", fast, "1/s", "textgenrnn 2.0", slow, "", True)
    torch.set_num_threads(os.cpu_count() or 1)
