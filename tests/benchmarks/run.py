"""What revgen promises of speed and quality, measured against a peer in the same run.

    python tests/benchmarks/run.py                          everything that needs no corpus
    python tests/benchmarks/run.py startup generation       some of it
    python tests/benchmarks/run.py quality --corpus DIR     DIR holds train.jsonl, valid.jsonl, valid_clean.jsonl
    python tests/benchmarks/run.py quality --corpus FILE --seconds 180 --limit 1.6
    python tests/benchmarks/run.py gpu                      training and generation on a GPU

Each figure is the median of several runs, the two sides of a ratio measured in turn. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
    values = (what, measured, unit, against, reference, ratio, goal, ("yes" if met else "NO") if goal else "")
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


Task = Callable[[], float]
"""What returns tokens per second."""


def writing(model: revgen.LanguageModel, steps: int, n: int = 1) -> Task:
    """``generate`` of texts that do not end before ``steps``."""

    def run() -> float:
        began = time.perf_counter()
        texts = model.generate([""], n=n, max_tokens=steps, seed=0, banned_tokens=[model.tokenizer.eos_id])
        assert len("".join(np.ravel(texts))) == n * steps
        return n * steps / (time.perf_counter() - began)

    return run


def plain_loop(
    embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear, steps: int, n: int = 1, device: str = "cpu"
) -> Task:
    """What is written first: the module, the softmax and a draw."""
    for module in (embedding, lstm, head):
        module.to(device)

    @torch.no_grad()
    def run() -> float:
        began, token, state = time.perf_counter(), torch.zeros(1, n, dtype=torch.long, device=device), None
        for _ in range(steps):
            output, state = lstm(embedding(token), state)
            token = torch.multinomial(head(output[0]).softmax(-1), 1).T
        finish(device)
        return n * steps / (time.perf_counter() - began)

    return run


def careful_loop(embedding: nn.Embedding, lstm: nn.LSTM, head: nn.Linear, steps: int) -> Task:
    """One text, by the modules of single steps."""
    cells = [nn.LSTMCell(lstm.hidden_size, lstm.hidden_size) for _ in range(2)]
    for i, cell in enumerate(cells):
        cell.load_state_dict({name: getattr(lstm, f"{name}_l{i}") for name in cell.state_dict()})

    @torch.no_grad()
    def run() -> float:
        states: list[Any] = [None, None]
        began, token = time.perf_counter(), torch.zeros(1, dtype=torch.long)
        for _ in range(steps):
            x = embedding(token)
            for i, cell in enumerate(cells):
                states[i] = cell(x, states[i])
                x = states[i][0]
            token = torch.multinomial(head(x).softmax(-1), 1)[0]
        return steps / (time.perf_counter() - began)

    return run


def without_onednn(task: Task) -> Task:
    def run() -> float:
        with torch.backends.mkldnn.flags(enabled=False):
            return task()

    return run


def hugging_face(parameters: int, vocab: int, steps: int) -> Task | None:
    """``generate`` of a GPT-2 of two layers and about as many parameters."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        print("transformers is not installed: its GPT-2 is not measured", file=sys.stderr)
        return None
    width = min(range(8, 2048, 8), key=lambda n: abs(24 * n**2 + (vocab + steps + 16) * n - parameters))
    sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": steps + 16, "vocab_size": vocab}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=None, pad_token_id=0)).eval()

    def run() -> float:
        began = time.perf_counter()
        model.generate(torch.zeros(1, 1, dtype=torch.long), do_sample=True, top_k=0, max_new_tokens=steps)
        return steps / (time.perf_counter() - began)

    return run


TEXTGENRNN = """
import os, sys, time, types
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf, tensorflow.keras.utils
tf.config.threading.set_intra_op_parallelism_threads(1)
sys.modules["tensorflow.keras.utils"].multi_gpu_model = None  # what it imports of old versions and does not use here
old = sys.modules["keras.backend.tensorflow_backend"] = types.ModuleType("")
old.set_session = lambda session: None
from textgenrnn import textgenrnn
model = textgenrnn()
model.generate(1, max_gen_length=10, return_as_list=True)
began = time.perf_counter()
(text,) = model.generate(1, max_gen_length=100, temperature=1.0, return_as_list=True)
print("\\n", len(text) / (time.perf_counter() - began))
"""


def textgenrnn(python: str) -> float:
    """Characters per second of textgenrnn's own model, as its README has it, by a Python that has it."""
    output = subprocess.run([python, "-c", TEXTGENRNN], check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def seconds_to_read(size: float) -> float:
    """To read so many bytes that were read just before, at the best of many times: a scalar product of an array."""
    array = np.ones(max(int(size / 4), 1), np.float32)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        np.dot(array, array)
        times.append(time.perf_counter() - began)
    return min(times)


def weight_bytes(model: revgen.LanguageModel, itemsize: int) -> int:
    """Return the bytes of the matrices that one token reads: all but an embedding that is not the output layer too."""
    matrices = {name: array for name, array in model.weights.items() if array.ndim > 1}
    unread = {"embedding", "labels"} if "head" in matrices else set()
    return sum(array.size * itemsize for name, array in matrices.items() if name not in unread)


def against_the_floor(name: str, hidden: int, steps: int) -> Iterator[Row]:
    """Microseconds a token of one architecture, beside those that it takes to read its weights."""
    model: Any = revgen.create(f"{name}-char", hidden_size=hidden, num_layers=2)
    model.prepare(same_network(*plain_lstm(70, 1)).tokenizer, 0)
    half = copy.copy(model)
    half.weights = {key: array.astype(np.float16).astype(np.float32) for key, array in model.weights.items()}
    ways = {"NumPy": model, "compiled": copy.copy(model).compile(), "compiled, weights of float16": half.compile()}
    rates = medians(*(writing(way, steps) for way in ways.values()))
    for (what, way), rate in zip(ways.items(), rates, strict=True):
        floor = seconds_to_read(weight_bytes(way, 2 if way is half else 4))
        yield row(f"{name} 2×{hidden}, {what}", 1e6 / rate, "µs", "reading its weights", 1e6 * floor, "", True)


def generation(options: argparse.Namespace) -> Iterator[Row]:
    """One text on one thread, and many at once: two layers, vocabulary 70. (Start with OPENBLAS_NUM_THREADS=1.)"""
    torch.set_num_threads(1)
    vocab = 70
    for hidden, steps in ((128, 2000), (512, 500)):
        parts = plain_lstm(vocab, hidden)
        model, machine_code = same_network(*parts), same_network(*parts).compile()
        logits, _ = model.forward(np.arange(50)[:, None], model.initial_state(1))
        with torch.no_grad():
            expected = parts[2](parts[1](parts[0](torch.arange(50)[:, None]))[0])
        assert np.abs(logits - expected.numpy()).max() < 1e-5, "not the same network"
        careful, simple = careful_loop(*parts, steps), plain_loop(*parts, steps)
        peers = {"nn.LSTM": simple, "nn.LSTM, oneDNN off": without_onednn(simple)}
        peers |= {"nn.LSTMCell": careful, "nn.LSTMCell, oneDNN off": without_onednn(careful)}
        gpt = hugging_face(model.num_parameters, vocab, steps // 4)
        peers |= {"GPT-2 of Hugging Face": gpt} if gpt else {}
        fast, faster, *others = medians(writing(model, steps), writing(machine_code, steps), *peers.values())
        rates = dict(zip(peers, others, strict=True))
        best = max(list(peers)[1:4], key=rates.__getitem__)
        for name, rate, goals in (
            ("NumPy", fast, {"nn.LSTM": 8}),
            ("compiled", faster, {"nn.LSTM": 15, best: 4, "GPT-2 of Hugging Face": 0}),
        ):
            for peer, goal in goals.items():
                if peer in rates:
                    shown = f"≥ {goal} times it" if goal else ""
                    what = f"lstm 2×{hidden}, {name}"
                    yield row(what, rate, "1/s", peer, rates[peer], shown, rate >= goal * rates[peer])
        for n in (32, 256) if hidden == 128 else ():
            fast, slow = medians(writing(model, 12800 // n, n), plain_loop(*parts, 12800 // n, n))
            yield row(f"lstm 2×{hidden}, n={n}", fast, "1/s", "nn.LSTM", slow, "≥ it", fast >= slow)

    for name in ("elman", "rnn", "gru", "lstm", "slstm", "mingru", "rglru", "textgenrnn", "mlp", "transformer"):
        for hidden, steps in ((128, 1000), (512, 200)):
            yield from against_the_floor(name, hidden, steps)
    model = revgen.create("kneser-ney-char")
    model.fit(list(revgen.datasets.load("reviews")), progress=False)
    for what, rate in zip(
        ("NumPy", "compiled"), medians(writing(model, 2000), writing(copy.copy(model).compile(), 2000)), strict=True
    ):
        yield row(f"kneser-ney, order 6, {what}", 1e6 / rate, "µs", "", 0, "", True)
    if options.textgenrnn:
        own = revgen.load("textgenrnn-char")
        (fast,) = medians(writing(own, 300))
        slow = textgenrnn(options.textgenrnn)
        yield row("load(textgenrnn-char), NumPy", fast, "1/s", "textgenrnn 2.0", slow, "", True)
    torch.set_num_threads(os.cpu_count() or 1)


def finish(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def plain_training(cell: str, hidden: int, device: str = "cpu", chunks: int = 90) -> Task:
    """What is written first: two layers in float32, batch 64, length 70."""
    batch, length = 64, 70
    network: Any = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](hidden, hidden, 2).to(device)

    def run() -> float:
        embedding, head = nn.Embedding(70, hidden).to(device), nn.Linear(hidden, 70).to(device)
        optimizer = torch.optim.AdamW([*embedding.parameters(), *network.parameters(), *head.parameters()])
        ids = torch.randint(0, 70, (chunks * length + 1, batch))
        state: Any = None
        began = time.perf_counter()
        for start in range(0, chunks * length, length):
            chunk = ids[start : start + length + 1].to(device)
            output, state = network(embedding(chunk[:-1]), state)
            loss = nn.functional.cross_entropy(head(output).flatten(0, 1), chunk[1:].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        finish(device)
        return chunks * length * batch / (time.perf_counter() - began)

    return run


def own_training(cell: str, hidden: int, device: str = "cpu", epochs: int = 1) -> Task:
    """``fit`` of the same network on 400,000 tokens an epoch."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz,. "))
    texts = ["".join(random.choice(letters, 1000)) for _ in range(400)]

    def run() -> float:
        options: dict[str, Any] = {"residual": False, "layer_norm": False, "dropout": 0.0}
        model: Any = revgen.create(f"{cell}-char", hidden_size=hidden, num_layers=2, **options).to(device)
        history = model.fit(texts, epochs=epochs, batch_size=64, sequence_length=70, progress=False)
        return float(history[-1].tokens_per_second)

    return run


def training(_: argparse.Namespace) -> Iterator[Row]:
    """Two layers of 128, batch 64, length 70: ``fit`` against a plain float32 loop over the same network."""
    for cell, goal in (("lstm", 1.5), ("gru", 1.0), ("rnn", 1.0)):
        fast, slow = medians(own_training(cell, 128), plain_training(cell, 128))
        what = f"fit {cell} 2×128, tokens/s"
        yield row(what, fast, "1/s", "plain float32 loop", slow, f"≥ {goal} times it", fast >= goal * slow)


def gpu(options: argparse.Namespace) -> Iterator[Row]:
    """Training and generation on a GPU, against the loops that are written first, on the same GPU."""
    device = options.device
    for hidden in (128, 512, 1024):
        for cell in ("lstm", "gru"):
            fast, slow = medians(own_training(cell, hidden, device, 3), plain_training(cell, hidden, device))
            yield row(f"fit {cell} 2×{hidden}, tokens/s", fast, "1/s", "plain float32 loop", slow, "≥ it", fast >= slow)
    for hidden in (128, 512):
        for n in (1, 32, 256):
            parts = plain_lstm(70, hidden)
            model = same_network(*parts).to(device)
            fast, slow = medians(writing(model, 480, n), plain_loop(*parts, 480, n, device))
            yield row(f"lstm 2×{hidden}, n={n}", fast, "1/s", "nn.LSTM", slow, "≥ it", fast >= slow)


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
    model: Any = revgen.create("lstm-char").to(options.device)
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
BY_NAME = {"quality": quality, "gpu": gpu}


def main() -> None:
    """Run the benchmarks that were named and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join([*BENCHMARKS, *BY_NAME])}")
    parser.add_argument("--corpus", help="the directory of the corpus for quality, or one text")
    parser.add_argument("--seconds", type=float, default=150, help="the budget of training for quality")
    parser.add_argument("--limit", type=float, default=1.5516, help="nats per character that it should reach")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for gpu and quality")
    parser.add_argument("--textgenrnn", help="a Python that has textgenrnn and TensorFlow 2.15, for generation")
    options = parser.parse_args()
    every = BENCHMARKS | BY_NAME
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        rows += every[name](options)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"revgen {revgen.__version__}, torch {torch.__version__}, numpy {np.__version__}; {machine}\n")
    print(to_text(rows, list(rows[0])))


if __name__ == "__main__":
    main()
