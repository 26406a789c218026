"""A long run of everything that must survive: training, saving, loading, sampling and serving, killed at random.

Usage: python tests/soak.py [--seconds 3600] [--seed 0] [--directory DIRECTORY]

Each round trains a model with checkpoints. The process is killed at random moments and resumed until it ends, while
this process loads the model that it saves, another process samples texts into a file and is killed too, and a server
answers requests with the model of the round before. The weights must equal those of a run that nobody disturbed, and
the texts those of one uninterrupted call. Prints the figures as JSON; the exit status is 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import revgen

NAMES = ("gru-char", "lstm-word", "transformer-subword")
TRAIN, SAMPLE = "train", "sample"
PROMPT = "the "


def train(name: str, directory: Path) -> None:
    """Train a small model with checkpoints, or resume its training, and save it in ``directory / "model"``."""
    import torch

    torch.set_num_threads(1)
    texts = list(revgen.datasets.load("reviews"))[:50]
    sizes: dict[str, Any] = {"num_heads": 2} if name.startswith("transformer") else {}
    model = revgen.create(name, hidden_size=16, num_layers=1, dropout=0.1, **sizes)
    checkpoint = revgen.CheckpointConfig(directory / "run", steps=5)
    model.fit(
        texts, 0.1, epochs=3, batch_size=8, sequence_length=32, checkpoint=checkpoint, resume=True, progress=False
    )
    model.save(directory / "model")


def sample(model: Path, path: Path) -> None:
    """Sample texts into a file, or continue it."""
    revgen.load(model).write_samples(
        path, PROMPT, n=120, batch_size=8, max_tokens=60, seed=1, resume=True, progress=False
    )


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start this program with other arguments, with its messages in the log of the run."""
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)])


class Soak:
    """The processes, the counts and the problems of a run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.model_name = self.expected = ""
        self.server_memory: list[int] = []

    def check(self, is_right: bool, problem: str) -> None:
        """Count a result, and remember a problem."""
        self.counts["checks"] += 1
        if not is_right:
            self.problems.append(problem)
            print(problem, file=sys.stderr, flush=True)

    def run_killed(self, kind: str, seconds: float, watch: Path | None, *arguments: object) -> None:
        """Run a process that is killed at random until it ends by itself; load the model in ``watch`` meanwhile."""
        while True:
            process = start(kind, *arguments)
            deadline = time.monotonic() + self.rng.uniform(0.3, 1.2) * seconds
            while process.poll() is None and time.monotonic() < deadline:
                self.request()
                if watch is not None and (watch / "config.json").exists():
                    self.load(watch)
                time.sleep(0.05)
            if process.poll() is not None:
                self.check(process.returncode == 0, f"{kind} ended with {process.returncode}")
                return
            process.kill()
            process.wait()
            self.counts[f"kills ({kind})"] += 1
            seconds *= 1.2  # on a busy machine, a process may need longer than before to start
            if watch is not None and (watch / "config.json").exists():
                self.load(watch)

    def load(self, directory: Path) -> None:
        """Load a model that another process may be saving."""
        try:
            revgen.load(directory).generate(PROMPT, max_tokens=5)
            self.counts["loads"] += 1
        except revgen.RevgenError as error:
            self.check(False, f"load: {error}")

    def serve(self, model: Path) -> None:
        """Start a server of a model, instead of the one before, which is killed or interrupted."""
        if self.server is not None:
            self.server.send_signal(self.rng.choice([signal.SIGKILL, signal.SIGINT]))
            self.server.wait()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        arguments = ["serve", str(model), "--port", str(self.port)]
        log = subprocess.DEVNULL
        code = "import sys; from revgen_command import run; sys.exit(run())"
        self.server = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=log, stderr=log)
        text = revgen.load(model).generate(PROMPT, max_tokens=20, temperature=0)
        self.model_name, self.expected = str(model), text.removeprefix(PROMPT)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        self.check(False, "the server did not start")

    def request(self) -> None:
        """Ask the server for a text without randomness, and compare it with what ``generate`` returns."""
        if self.server is None:
            return
        body = {"model": self.model_name, "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = json.load(response)["choices"][0]["text"]
        except OSError as error:
            self.check(False, f"the server failed: {error}")
            return
        self.check(text == self.expected, f"the server answered {text!r}, not {self.expected!r}")
        self.counts["requests"] += 1

    def measure_server(self) -> None:
        """Record the resident memory of the server in MiB."""
        if self.server is not None and Path(f"/proc/{self.server.pid}/statm").exists():
            pages = int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1])
            self.server_memory.append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)

    def run(self, seconds: float) -> dict[str, Any]:
        """Run for some time, and return the figures."""
        began = time.monotonic()
        references: dict[str, tuple[str, float, bytes]] = {}
        for name in NAMES:
            start_time = time.monotonic()
            reference = self.directory / f"{name}-reference"
            self.check(start(TRAIN, name, reference).wait() == 0, f"{name} cannot be trained")
            duration = time.monotonic() - start_time
            self.check(start(SAMPLE, reference / "model", reference / "samples.jsonl").wait() == 0, f"{name}: samples")
            texts = (reference / "samples.jsonl").read_bytes()
            references[name] = revgen.load(reference / "model").fingerprint, duration, texts
        while time.monotonic() - began < seconds:
            name = NAMES[self.counts["rounds"] % len(NAMES)]
            fingerprint, duration, texts = references[name]
            directory = self.directory / f"round-{self.counts['rounds']}"
            self.run_killed(TRAIN, duration, directory / "run", name, directory)
            model = revgen.load(directory / "model")
            self.check(model.fingerprint == fingerprint, f"{name} ended with other weights in {directory}")
            junk = [path.name for path in directory.rglob("*") if path.suffix in (".new", ".part")]
            self.check(not junk, f"{directory} has {junk}")
            self.measure_server()
            self.serve(directory / "model")
            self.measure_server()
            self.run_killed(SAMPLE, 4, None, directory / "model", directory / "samples.jsonl")
            self.check((directory / "samples.jsonl").read_bytes() == texts, f"{name} sampled other texts")
            self.counts["rounds"] += 1
        self.measure_server()
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            self.server.wait()
        return {
            "seconds": round(time.monotonic() - began),
            **self.counts,
            "problems": self.problems,
            "server MiB": self.server_memory[-2:],
        }


def main() -> int:
    """Run one of the processes, or all of them."""
    if sys.argv[1:2] == [TRAIN]:
        train(sys.argv[2], Path(sys.argv[3]))
        return 0
    if sys.argv[1:2] == [SAMPLE]:
        sample(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="an empty directory (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="revgen-soak-") as temporary:
        figures = Soak(options.directory or Path(temporary), options.seed).run(options.seconds)
    print(json.dumps(figures, indent=2))
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
