"""Speed of training, compared with a plain loop in PyTorch, fastai's learner, and matrix products."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import custom_cells
import numpy as np
import torch
from generation_speed import plain_loop, plain_lstm, same_network
from measure import Row, Task, generating, medians, row, synchronize
from torch import nn

import revgen

RECURRENT = (
    "lstm", "gru", "elman", "rnn", "relu-gru", "relu-lstm", "peephole-lstm", "graves-lstm", "awd-lstm", "textgenrnn",
    "slstm", "mingru", "minlstm", "rglru",
)  # fmt: skip


def plain_training(cell: str, hidden: int, device: str = "cpu", chunks: int = 90) -> Task:
    """Return the task of training two layers in float32 with a simple loop: batch 64, length 70."""
    batch, length = 64, 70
    network: Any = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](hidden, hidden, 2).to(device)

    def run() -> float:
        embedding, head = nn.Embedding(70, hidden).to(device), nn.Linear(hidden, 70).to(device)
        optimizer = torch.optim.AdamW([*embedding.parameters(), *network.parameters(), *head.parameters()])
        ids = torch.randint(0, 70, (chunks * length + 1, batch))
        state: Any = None
        start = time.perf_counter()
        for begin in range(0, chunks * length, length):
            chunk = ids[begin : begin + length + 1].to(device)
            output, state = network(embedding(chunk[:-1]), state)
            loss = nn.functional.cross_entropy(head(output).flatten(0, 1), chunk[1:].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        synchronize(device)
        return chunks * length * batch / (time.perf_counter() - start)

    return run


def revgen_training(cell: str, hidden: int, device: str = "cpu", epochs: int = 1) -> Task:
    """Return the task of ``fit`` with the same network on 400,000 tokens per epoch."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz,. "))
    texts = ["".join(random.choice(letters, 1000)) for _ in range(400)]

    def run() -> float:
        options: dict[str, Any] = {"residual": False, "layer_norm": False, "dropout": 0.0}
        model: Any = revgen.create(f"{cell}-char", hidden_size=hidden, num_layers=2, **options).to(device)
        history = model.fit(texts, epochs=epochs, batch_size=64, sequence_length=70, optimizer="adamw", progress=False)
        return float(history[-1].tokens_per_second)

    return run


def training(_: argparse.Namespace) -> Iterator[Row]:
    """Compare ``fit`` with a plain float32 loop over the same network: two layers of 128, batch 64, length 70."""
    for cell, goal in (("lstm", 1.5), ("gru", 1.6), ("rnn", 1.0)):
        fast, slow = medians(revgen_training(cell, 128), plain_training(cell, 128))
        what = f"fit {cell} 2×128, tokens/s"
        yield row(what, fast, "1/s", "plain float32 loop", slow, f"≥ {goal} times it", fast >= goal * slow)


def arithmetic_rate(name: str, hidden: int) -> Task:
    """Return the task of ``fit`` with two layers, in GFLOP/s: 6 for each weight of a matrix and token."""
    options: dict[str, Any] = {"hidden_size": hidden, "num_layers": 2}
    if name == "awd-lstm":
        options["embedding_size"] = hidden
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz,. "), 1000)) for _ in range(30_000 // hidden)]

    def run() -> float:
        model: Any = revgen.create(f"{name}-char", **options)
        history = model.fit(texts, epochs=2, batch_size=64, sequence_length=70, optimizer="adamw", progress=False)
        matrix_weights = sum(array.size for array in model.weights.values() if array.ndim > 1)
        return float(history[-1].tokens_per_second * 6 * matrix_weights / 1e9)

    return run


def cells(_: argparse.Namespace) -> Iterator[Row]:
    """Compare the arithmetic of training every recurrent architecture, and three cells of its own, with the LSTM's."""
    others = [name for name in RECURRENT if name != "lstm"] + list(custom_cells.NAMES)
    for hidden in (128, 256):
        reference, *rates = medians(*(arithmetic_rate(name, hidden) for name in ("lstm", *others)))
        yield row(f"fit lstm 2×{hidden}, GFLOP/s", reference, "", "", 0.0, "", True)
        for name, rate in zip(others, rates, strict=True):
            is_met = rate >= 0.7 * reference
            yield row(f"fit {name} 2×{hidden}, GFLOP/s", rate, "", "lstm", reference, "≥ 0.7 of it", is_met)


def gpu(options: argparse.Namespace) -> Iterator[Row]:
    """Compare training and generation on a GPU with simple loops on the same GPU."""
    device = options.device
    for hidden in (128, 512, 1024):
        for cell in ("lstm", "gru"):
            fast, slow = medians(revgen_training(cell, hidden, device, 3), plain_training(cell, hidden, device))
            yield row(f"fit {cell} 2×{hidden}, tokens/s", fast, "1/s", "plain float32 loop", slow, "≥ it", fast >= slow)
    for hidden in (128, 512):
        for n in (1, 32, 256):
            parts = plain_lstm(70, hidden)
            model = same_network(*parts).to(device)
            fast, slow = medians(generating(model, 480, n), plain_loop(*parts, 480, n, device))
            yield row(f"lstm 2×{hidden}, n={n}", fast, "1/s", "nn.LSTM", slow, "≥ it", fast >= slow)


def learner(_: argparse.Namespace) -> Iterator[Row]:
    """Compare ``fit`` of an AWD-LSTM with fastai's learner: two layers of 128, all dropouts, batch 64, length 70."""
    batch, length, chunks = 64, 70, 60
    try:
        from fastai.text import all as fastai
    except ImportError:
        print("fastai is not installed, so its learner is not measured", file=sys.stderr)
        return
    ids = np.random.default_rng(0).integers(3, 70, batch * length * chunks + batch)

    def fastai_rate() -> float:
        parts = ids, ids[: batch * length + batch]  # one batch of validation
        loaders = [
            fastai.LMDataLoader([fastai.LMTensorText(part)], bs=batch, seq_len=length, num_workers=0) for part in parts
        ]
        sizes = {"emb_sz": 128, "n_hid": 128, "n_layers": 2}
        model = fastai.get_language_model(fastai.AWD_LSTM, 70, config=fastai.awd_lstm_lm_config | sizes)
        learn = fastai.Learner(
            fastai.DataLoaders(*loaders),
            model,
            loss_func=fastai.CrossEntropyLossFlat(),
            splitter=fastai.awd_lstm_lm_split,
            cbs=[fastai.ModelResetter(), *fastai.rnn_cbs(alpha=2.0, beta=1.0)],
        )
        with learn.no_bar(), learn.no_logging():
            start = time.perf_counter()
            learn.fit(1)
        return batch * length * chunks / (time.perf_counter() - start)

    def revgen_rate() -> float:
        letters = np.array([chr(i + 45) for i in range(70)])
        texts = ["".join(letters[part]) for part in np.array_split(ids, 200)]
        dropouts = {"weight_drop": 0.2, "input_dropout": 0.25, "hidden_dropout": 0.15, "dropout": 0.1}
        sizes = {"hidden_size": 128, "embedding_size": 128, "num_layers": 2, "embedding_dropout": 0.02}
        options: dict[str, Any] = {**sizes, **dropouts, "alpha": 2.0, "beta": 1.0}
        model = revgen.create("awd-lstm-char", **options)
        history = model.fit(
            texts, epochs=1, batch_size=batch, sequence_length=length, optimizer="adamw", progress=False
        )
        return history[0].tokens_per_second

    fast, slow = medians(revgen_rate, fastai_rate)
    yield row("fit awd-lstm 2×128, tokens/s", fast, "1/s", "fastai's learner", slow, "≥ 2 times it", fast >= 2 * slow)


def arithmetic(_: argparse.Namespace) -> Iterator[Row]:
    """Compare the arithmetic of training an LSTM with matrix products: two layers of 256, batch 64, length 100."""
    hidden, vocab, batch, length = 256, 70, 64, 100
    flops = 3 * (2 * 8 * hidden * 2 * hidden + 2 * hidden * vocab)  # two layers and the output, thrice
    letters = np.array([chr(i + 45) for i in range(vocab)])
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(letters, 1000)) for _ in range(500)]

    def training_flops() -> float:
        model = revgen.create("lstm-char", hidden_size=hidden, num_layers=2, dropout=0.0)
        history = model.fit(
            texts, epochs=1, batch_size=batch, sequence_length=length, optimizer="adamw", progress=False
        )
        return history[0].tokens_per_second * flops / 1e9

    def product(rows: int, inner: int, columns: int) -> Callable[[], float]:
        a, b = torch.randn(rows, inner, dtype=torch.bfloat16), torch.randn(inner, columns, dtype=torch.bfloat16)

        def rate() -> float:
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < 0.5:
                a @ b
                count += 1
            return count * 2 * rows * inner * columns / (time.perf_counter() - start) / 1e9

        return rate

    used, step, large = medians(training_flops, product(batch, hidden, 4 * hidden), product(2048, 2048, 2048))
    yield row("fit lstm 2×256, GFLOP/s", used, "", "bfloat16 product 2048³", large, "≥ half of it", used >= large / 2)
    yield row("fit lstm 2×256, GFLOP/s", used, "", "bfloat16 product 64×256×1024", step, "", True)
