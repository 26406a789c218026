"""Speed of training a transformer, compared with a plain model and loop in PyTorch: nanoGPT's setting for CPUs."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Row, Task, medians, row
from torch import Tensor, nn

import revgen

HIDDEN, LAYERS, HEADS, LENGTH, BATCH, VOCAB = 128, 4, 4, 64, 12, 65


class PlainLayer(nn.Module):
    """A pre-norm layer: causal attention, then a feedforward block, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN, bias=False) for _ in range(2))
        self.qkv, self.output, self.up, self.down = (
            nn.Linear(HIDDEN * inputs, HIDDEN * outputs, bias=False)
            for inputs, outputs in ((1, 3), (1, 1), (1, 4), (4, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(batch, length, HIDDEN))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))  # type: ignore[no-any-return]


class PlainTransformer(nn.Module):
    """A transformer with learned positions; the output shares the weights of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, HIDDEN), nn.Embedding(LENGTH, HIDDEN)
        self.layers = nn.Sequential(*(PlainLayer() for _ in range(LAYERS)), nn.LayerNorm(HIDDEN, bias=False))

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1])))
        logits = x @ self.tokens.weight.T
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def nanogpt(directory: Path) -> nn.Module:
    """Return the model of a checkout of nanoGPT in the same sizes."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", directory / "model.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "block_size": LENGTH, "vocab_size": VOCAB}
    with contextlib.redirect_stdout(io.StringIO()):
        network: nn.Module = module.GPT(module.GPTConfig(**sizes, dropout=0.0, bias=False))
    return network


def plain_training(network: nn.Module, steps: int = 100) -> Task:
    """Return the task of training a network in float32 with a simple loop on random parts of a text."""
    ids = torch.randint(0, VOCAB, (100_000,))
    matrices, vectors = ([p for p in network.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            begins = torch.randint(len(ids) - LENGTH, (BATCH,))
            rows = torch.stack([ids[begin : begin + LENGTH + 1] for begin in begins])
            _, loss = network(rows[:, :-1], rows[:, 1:].contiguous())
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        return steps * BATCH * LENGTH / (time.perf_counter() - start)

    return run


def revgen_training() -> float:
    """Return the tokens per second of ``fit`` with the same sizes."""
    random = np.random.default_rng(0)
    letters = np.array([chr(i + 45) for i in range(VOCAB - 3)])
    texts = ["".join(random.choice(letters, 1000)) for _ in range(75)]
    sizes: dict[str, Any] = {"hidden_size": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS, "context": LENGTH}
    model: Any = revgen.create("transformer-char", **sizes, dropout=0.0)
    options: dict[str, Any] = {"batch_size": BATCH, "sequence_length": LENGTH, "optimizer": "adamw"}
    history = model.fit(texts, epochs=1, progress=False, **options)
    return float(history[0].tokens_per_second)


def transformer(options: argparse.Namespace) -> Iterator[Row]:
    """Compare ``fit`` with a plain float32 loop: four layers of 128, batch 12, length 64."""
    networks: dict[str, nn.Module] = {"plain float32 loop": PlainTransformer()}
    if options.nanogpt:
        networks["nanoGPT's model"] = nanogpt(Path(options.nanogpt))
    fast, *slow = medians(revgen_training, *map(plain_training, networks.values()))
    for name, reference in zip(networks, slow, strict=True):
        goal = fast >= 1.5 * reference
        yield row("fit transformer 4×128, tokens/s", fast, "1/s", name, reference, "≥ 1.5 times it", goal)
