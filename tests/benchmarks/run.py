"""What revgen promises of speed and quality, measured against a peer in the same run.

    python tests/benchmarks/run.py                          everything that needs no corpus
    python tests/benchmarks/run.py startup generation       some of it
    python tests/benchmarks/run.py quality --corpus DIR     DIR holds train.jsonl, valid.jsonl, valid_clean.jsonl
    python tests/benchmarks/run.py quality --corpus FILE --seconds 180 --limit 1.6

Each figure is the median of several runs, the two sides of a ratio measured in turn. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import revgen
from revgen.tables import to_text

Row = dict[str, Any]
RUNS = 5


def row(what: str, measured: float, unit: str, against: str, reference: float, goal: str, met: bool) -> Row:
    ratio = measured / reference if reference else None
    columns = ("what", "measured", "unit", "against", "reference", "ratio", "goal", "met")
    values = (what, measured, unit, against, reference, ratio, goal, "yes" if met else "NO")
    return dict(zip(columns, values, strict=True))


def medians(*tasks: Callable[[], float]) -> list[float]:
    """The median of what each task returns, the tasks run in turn, after a first round that does not count."""
    rounds = [[task() for task in tasks] for _ in range(RUNS + 1)][1:]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def seconds(command: list[str]) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return run


def startup(_: argparse.Namespace) -> Iterator[Row]:
    """Whole processes."""
    python = sys.executable
    generate, torch_alone, imported, bare = medians(
        seconds([python, "-m", "revgen", "generate", "lstm-char", "--prompt", "the ", "--seed", "1"]),
        seconds([python, "-c", "import torch"]),
        seconds([python, "-c", "import revgen"]),
        seconds([python, "-c", "pass"]),
    )
    goal = "< 0.5 of it"
    yield row("revgen generate lstm-char", generate, "s", "import torch", torch_alone, goal, generate < torch_alone / 2)
    more = imported - bare
    yield row("import revgen, beyond the start", more, "s", "limit", 0.15, "< the limit", more < 0.15)


def plain_lstm(vocab: int, hidden: int) -> tuple[nn.Embedding, nn.LSTM, nn.Linear]:
    torch.manual_seed(0)
    return nn.Embedding(vocab, hidden), nn.LSTM(hidden, hidden, 2), nn.Linear(hidden, vocab)


def same_network(embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear) -> revgen.LanguageModel:
    """A revgen model with the weights of a plain PyTorch one."""
    vocab, hidden = embedding.weight.shape
    tokenizer = revgen.tokenizers.CharTokenizer(["<s>", "</s>", "<unk>", *map(chr, range(97, 97 + vocab - 3))])
    options: dict[str, Any] = {"residual": False, "layer_norm": False, "tie_embeddings": False, "dropout": 0.0}
    model = revgen.create("lstm-char", tokenizer=tokenizer, hidden_size=hidden, **options)
    weights = {"embedding": embedding.weight, "head": head.weight, "bias": head.bias}
    for i in range(2):
        i_f_g_o = [getattr(lstm, f"{kind}_l{i}").chunk(4) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        w, u, b, c = (torch.cat([part[0], part[1], part[3], part[2]]) for part in i_f_g_o)
        weights |= {f"layers.{i}.W": w.t(), f"layers.{i}.U": u.t(), f"layers.{i}.b": b + c}
    model.weights = {name: value.detach().numpy().copy() for name, value in weights.items()}
    return model


def generation(_: argparse.Namespace) -> Iterator[Row]:
    """Two layers, vocabulary 70, one thread: one text, on NumPy and compiled, and many at once.

    (Start with OPENBLAS_NUM_THREADS=1.)
    """
    torch.set_num_threads(1)
    vocab = 70
    for hidden, cases in ((128, ((1, 2000, 6), (32, 400, 1), (256, 100, 1))), (512, ((1, 500, 6),))):
        embedding, lstm, head = plain_lstm(vocab, hidden)
        cells = [nn.LSTMCell(hidden, hidden) for _ in range(2)]
        for i, cell in enumerate(cells):
            cell.load_state_dict({name: getattr(lstm, f"{name}_l{i}") for name in cell.state_dict()})
        model, machine_code = same_network(embedding, lstm, head), same_network(embedding, lstm, head).compile()
        logits, _ = model.forward(np.arange(50)[:, None], model.initial_state(1))
        with torch.no_grad():
            expected = head(lstm(embedding(torch.arange(50)[:, None]))[0])
        assert np.abs(logits - expected.numpy()).max() < 1e-5, "not the same network"
        for made in (model, machine_code):
            made.weights["bias"][1] = -1e9  # never the document's end
            made.forget()

        for batch, steps, goal in cases:

            @torch.no_grad()
            def plain(batch: int = batch, steps: int = steps, lstm: Any = lstm, rest: Any = (embedding, head)) -> float:
                began, token, state = time.perf_counter(), torch.zeros(1, batch, dtype=torch.long), None
                for _ in range(steps):
                    output, state = lstm(rest[0](token), state)
                    token = torch.multinomial(rest[1](output[0]).softmax(-1), 1).T
                return batch * steps / (time.perf_counter() - began)

            @torch.no_grad()
            def by_cells(steps: int = steps, cells: Any = cells, rest: Any = (embedding, head)) -> float:
                states: list[Any] = [None, None]
                began, token = time.perf_counter(), torch.zeros(1, dtype=torch.long)
                for _ in range(steps):
                    x = rest[0](token)
                    for i, cell in enumerate(cells):
                        states[i] = cell(x, states[i])
                        x = states[i][0]
                    token = torch.multinomial(rest[1](x).softmax(-1), 1)[0]
                return steps / (time.perf_counter() - began)

            def ours(batch: int = batch, steps: int = steps, model: Any = model) -> float:
                began = time.perf_counter()
                texts = model.generate([""], n=batch, max_tokens=steps, seed=0)
                assert len("".join(np.ravel(texts))) == batch * steps
                return batch * steps / (time.perf_counter() - began)

            what = f"generate(n={batch}), 2×{hidden}"
            if batch == 1:
                fast, faster, slow, slower = medians(ours, partial(ours, model=machine_code), by_cells, plain)
                yield row(f"{what}, compiled", faster, "1/s", "nn.LSTM + multinomial", slower, "", True)
                yield row(f"{what}, compiled", faster, "1/s", "nn.LSTMCell", slow, "", True)
            else:
                fast, slower = medians(ours, plain)
            goal_shown = f"≥ {goal} times it" if goal > 1 else "≥ it"
            yield row(what, fast, "1/s", "nn.LSTM + multinomial", slower, goal_shown, fast >= goal * slower)
    torch.set_num_threads(os.cpu_count() or 1)


def training(_: argparse.Namespace) -> Iterator[Row]:
    """Two layers of 128, batch 64, length 70: ``fit`` against a plain float32 loop over the same network."""
    batch, length = 64, 70
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz,. "))
    texts = ["".join(random.choice(letters, 1000)) for _ in range(400)]
    for cell, goal in (("lstm", 1.5), ("gru", 1.0), ("rnn", 1.0)):
        network = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](128, 128, 2)

        def plain(network: Any = network) -> float:
            embedding, head = nn.Embedding(70, 128), nn.Linear(128, 70)
            optimizer = torch.optim.AdamW([*embedding.parameters(), *network.parameters(), *head.parameters()])
            ids = torch.randint(0, 70, (90 * length + 1, batch))
            state: Any = None
            began = time.perf_counter()
            for start in range(0, 90 * length, length):
                output, state = network(embedding(ids[start : start + length]), state)
                loss = nn.functional.cross_entropy(
                    head(output).flatten(0, 1), ids[start + 1 : start + length + 1].flatten()
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            return 90 * length * batch / (time.perf_counter() - began)

        def ours(cell: str = cell) -> float:
            options: dict[str, Any] = {"residual": False, "layer_norm": False, "dropout": 0.0}
            model = revgen.create(f"{cell}-char", hidden_size=128, num_layers=2, **options)
            history = model.fit(texts, epochs=1, batch_size=batch, sequence_length=length, progress=False)
            return history[0].tokens_per_second

        fast, slow = medians(ours, plain)
        what = f"fit {cell} 2×128, tokens/s"
        yield row(what, fast, "1/s", "plain float32 loop", slow, f"≥ {goal} times it", fast >= goal * slow)


def learner(_: argparse.Namespace) -> Iterator[Row]:
    """An AWD-LSTM of two layers of 128 with all its dropouts, batch 64, length 70, against fastai's learner."""
    batch, length, chunks = 64, 70, 60
    try:
        from fastai.text import all as fastai
    except ImportError:
        print("fastai is not installed: its learner is not measured", file=sys.stderr)
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
            began = time.perf_counter()
            learn.fit(1)
        return batch * length * chunks / (time.perf_counter() - began)

    def ours() -> float:
        letters = np.array([chr(i + 45) for i in range(70)])
        texts = ["".join(letters[part]) for part in np.array_split(ids, 200)]
        dropouts = {"weight_drop": 0.2, "input_dropout": 0.25, "hidden_dropout": 0.15, "dropout": 0.1}
        sizes = {"hidden_size": 128, "embedding_size": 128, "num_layers": 2, "embedding_dropout": 0.02}
        options: dict[str, Any] = {**sizes, **dropouts, "alpha": 2.0, "beta": 1.0}
        model = revgen.create("awd-lstm-char", **options)
        history = model.fit(texts, epochs=1, batch_size=batch, sequence_length=length, progress=False)
        return history[0].tokens_per_second

    fast, slow = medians(ours, fastai_rate)
    yield row("fit awd-lstm 2×128, tokens/s", fast, "1/s", "fastai's learner", slow, "≥ 2 times it", fast >= 2 * slow)


def arithmetic(_: argparse.Namespace) -> Iterator[Row]:
    """The arithmetic of training an LSTM, two layers of 256, batch 64, length 100, against a large matrix product."""
    hidden, vocab, batch, length = 256, 70, 64, 100
    flops = 3 * (2 * 8 * hidden * 2 * hidden + 2 * hidden * vocab)  # of a token: two layers and the output, thrice
    letters = np.array([chr(i + 45) for i in range(vocab)])
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(letters, 1000)) for _ in range(500)]

    def ours() -> float:
        model = revgen.create("lstm-char", hidden_size=hidden, num_layers=2, dropout=0.0)
        history = model.fit(texts, epochs=1, batch_size=batch, sequence_length=length, progress=False)
        return history[0].tokens_per_second * flops / 1e9

    def product(rows: int, inner: int, columns: int) -> Callable[[], float]:
        a, b = torch.randn(rows, inner, dtype=torch.bfloat16), torch.randn(inner, columns, dtype=torch.bfloat16)

        def rate() -> float:
            began, times = time.perf_counter(), 0
            while time.perf_counter() - began < 0.5:
                a @ b
                times += 1
            return times * 2 * rows * inner * columns / (time.perf_counter() - began) / 1e9

        return rate

    used, step, large = medians(ours, product(batch, hidden, 4 * hidden), product(2048, 2048, 2048))
    yield row("fit lstm 2×256, GFLOP/s", used, "", "bfloat16 product 2048³", large, "≥ half of it", used >= large / 2)
    yield row("fit lstm 2×256, GFLOP/s", used, "", "bfloat16 product 64×256×1024", step, "", True)


def encoding(_: argparse.Namespace) -> Iterator[Row]:
    """Tokenizers on the package's own corpus, repeated."""
    reviews = list(revgen.datasets.load("reviews"))
    text = "\n".join(reviews) * 50
    size = len(text.encode()) / 1e6
    for level, limit in (("char", 50.0), ("word", 3.0), ("subword", 1.0)):
        tokenizer = revgen.registry.tokenizers.get(level).train(reviews)

        def rate(tokenizer: Any = tokenizer) -> float:
            began = time.perf_counter()
            tokenizer.encode(text)
            return size / (time.perf_counter() - began)

        (measured,) = medians(rate)
        yield row(f"encode {level}", measured, "MB/s", "limit", limit, "≥ the limit", measured >= limit)


def quality(options: argparse.Namespace) -> Iterator[Row]:
    """``lstm-char`` as it is by default, in ``--seconds``: nats per character on held-out text.

    Of a directory, lowercased, on all validation texts and on the clean ones; of one text, on its last tenth.
    """
    corpus = Path(options.corpus)
    if corpus.is_file():
        text = corpus.read_text("utf-8")
        border = len(text) * 9 // 10
        train, held_out = [text[:border]], {"the last tenth": [text[border:]]}
    else:
        train, valid, clean = (
            [json.loads(line)["text"].lower() for line in (corpus / f"{name}.jsonl").read_text("utf-8").splitlines()]
            for name in ("train", "valid", "valid_clean")
        )
        held_out = {"all": valid, "clean": clean}
    model = revgen.create("lstm-char")
    history = model.fit(train, next(iter(held_out.values())), max_seconds=options.seconds)
    print(history)
    took, limit = history.seconds, options.seconds
    yield row("training time", took, "s", "limit", limit, "≤ the limit", took <= 1.02 * limit)
    for name, texts in held_out.items():
        found = model.evaluate(texts).nats_per_char
        yield row(
            f"validation, {name}", found, "nats/char", "limit", options.limit, "≤ the limit", found <= options.limit
        )


BENCHMARKS = {"startup": startup, "encoding": encoding, "generation": generation, "training": training}
BENCHMARKS |= {"learner": learner, "arithmetic": arithmetic}


def main() -> None:
    """Run the benchmarks that were named and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join([*BENCHMARKS, 'quality'])}")
    parser.add_argument("--corpus", help="the directory of the corpus for quality, or one text")
    parser.add_argument("--seconds", type=float, default=150, help="the budget of training for quality")
    parser.add_argument("--limit", type=float, default=1.5516, help="nats per character that it should reach")
    options = parser.parse_args()
    every = BENCHMARKS | {"quality": quality}
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        rows += every[name](options)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"revgen {revgen.__version__}, torch {torch.__version__}, numpy {np.__version__}; {machine}\n")
    print(to_text(rows, list(rows[0])))


if __name__ == "__main__":
    main()
