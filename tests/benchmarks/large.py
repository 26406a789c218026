"""Measure how much time and memory it takes to read a corpus larger than memory and to train on it.

    python tests/benchmarks/large.py                                 2 GB of text, and 200 MB for comparison
    python tests/benchmarks/large.py --bytes 1e9 --model lstm-word --documents line --folder /data

Each line of the table is a process of its own. It builds the vocabulary, encodes the text, trains for some seconds, and
then reads the batches of one epoch. The second run of a size uses the cache. Memory is the peak of the resident memory
of the process and its workers, including pages of mapped files; shared pages are counted once (Linux only). On a busy
machine, compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import revgen
from revgen.display.tables import to_text

MAX_MEMORY = 1.5e9  # bytes

SCRIPT = """
import json, os, sys, time
import revgen
import revgen.training.fit  # imports torch, which is not to be measured
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import tokenize

path, name, documents, seconds = sys.argv[1:]
model = revgen.create(name)
start, cpu_start = time.perf_counter(), sum(os.times()[:4])
corpus = revgen.read(path, documents=documents)
tokens = tokenize(corpus, model.tokenizer_for(corpus))
prepare_seconds, prepare_cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
tokens_per_second = model.fit(corpus, max_seconds=float(seconds), progress=False)[0].tokens_per_second
start = time.perf_counter()
for _ in Batches(tokens, 64, 100, 0, 0):
    pass
print(json.dumps({
    "documents": len(tokens.spans), "tokens": len(tokens), "prepare_seconds": prepare_seconds,
    "prepare_cpu_seconds": prepare_cpu_seconds, "tokens_per_second": tokens_per_second,
    "epoch_seconds": time.perf_counter() - start,
}))
"""


def write_text(path: Path, size: float) -> None:
    """Write about ``size`` bytes of text: random reviews from the package, with repetition."""
    reviews, rng, num_written = list(revgen.datasets.load("reviews")), random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        while num_written < size:
            num_written += file.write("\n".join(rng.choices(reviews, k=1000)) + "\n")


def resident_memory(group: int) -> int:
    """Return the resident memory of a process group in bytes, with shared pages counted once."""
    kilobytes = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                lines = (process / "smaps_rollup").read_text().splitlines()
                kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError):  # the process has ended
            continue
    return 1024 * kilobytes


def run(path: Path, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Run the script in a new process, and return a row of the table."""
    is_cached = cache.exists()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), options.model, options.documents, str(options.seconds)],
        stdout=subprocess.PIPE,
        env=os.environ | {"REVGEN_CACHE": str(cache)},
        process_group=0,
    )
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, resident_memory(process.pid))
            time.sleep(0.1)
    finally:
        process.kill()
    if process.returncode or process.stdout is None:
        sys.exit(f"the run failed with exit code {process.returncode}")
    result = json.loads(process.stdout.read())
    return {
        "text, MB": path.stat().st_size / 1e6,
        "documents": result["documents"],
        "cached": "yes" if is_cached else "no",
        "prepare, s": result["prepare_seconds"],
        "prepare, CPU s": result["prepare_cpu_seconds"],
        "training, tokens/s": result["tokens_per_second"],
        "read an epoch, s": result["epoch_seconds"],
        "memory, MB": peak / 1e6,
        "memory limit": "ok" if peak < MAX_MEMORY else "EXCEEDED",
    }


def main() -> None:
    """Write two texts, run twice on each, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9, help="size of the larger text")
    parser.add_argument("--model", default="lstm-char", help="name of the model to train")
    parser.add_argument("--documents", choices=["file", "line"], default="file", help="what a document is")
    parser.add_argument("--seconds", type=float, default=20, help="training time")
    parser.add_argument("--folder", help="directory with free space for four times the larger text")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in (options.bytes / 10, options.bytes):
            path, cache = Path(folder, "corpus.txt"), Path(folder, f"cache-{size:.0f}")
            write_text(path, size)
            for _ in range(2):
                rows.append(run(path, options, cache))
                print(rows[-1], file=sys.stderr)
    print(to_text(rows, list(rows[0])))


if __name__ == "__main__":
    main()
