"""A corpus larger than memory: what it costs to read it and to train on it, and what a tenth of it costs.

    python tests/benchmarks/large.py                                 2 GB of text and 200 MB of it
    python tests/benchmarks/large.py --bytes 1e9 --model lstm-word --documents line --folder /data

Each line of the table is a process of its own: it learns the vocabulary and encodes the text, trains for some seconds,
and then reads one whole epoch of batches. The second run of a size finds the cache. Memory is what the process and its
workers have resident at their peak, pages of mapped files among it; what processes share is counted once (Linux). On
a machine that is busy, compare the seconds of processors.
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
from revgen.tables import to_text

LIMIT = 1.5e9  # bytes

RUN = """
import json, os, sys, time
import revgen
import revgen.training.loop  # torch, which is not what is measured
from revgen.corpus.batches import Batches
from revgen.corpus.tokens import tokenize

path, name, documents, seconds = sys.argv[1:]
model = revgen.create(name)
began, before = time.perf_counter(), sum(os.times()[:4])
corpus = revgen.read(path, documents=documents)
tokens = tokenize(corpus, model.tokenizer_for(corpus))
prepared, computed = time.perf_counter() - began, sum(os.times()[:4]) - before
trained = model.fit(corpus, max_seconds=float(seconds), progress=False)[0].tokens_per_second
began = time.perf_counter()
for _ in Batches(tokens, 64, 100, 0, 0):
    pass
print(json.dumps({
    "documents": len(tokens.spans), "tokens": len(tokens), "prepared": prepared, "computed": computed,
    "trained": trained, "epoch": time.perf_counter() - began,
}))
"""


def write(path: Path, size: float) -> None:
    """So many bytes of text: the reviews of the package, drawn again and again."""
    reviews, draw, written = list(revgen.datasets.load("reviews")), random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            written += file.write("\n".join(draw.choices(reviews, k=1000)) + "\n")


def memory(group: int) -> int:
    """The resident bytes of the processes of a group, shared pages counted once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError):  # it is gone
            continue
    return 1024 * total


def run(path: Path, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """The figures of one process."""
    there = cache.exists()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), options.model, options.documents, str(options.seconds)],
        stdout=subprocess.PIPE,
        env=os.environ | {"REVGEN_CACHE": str(cache)},
        process_group=0,
    )
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.1)
    finally:
        process.kill()
    if process.returncode or process.stdout is None:
        sys.exit(f"the run failed with {process.returncode}")
    found = json.loads(process.stdout.read())
    return {
        "text, MB": path.stat().st_size / 1e6,
        "documents": found["documents"],
        "cache": "there" if there else "",
        "vocabulary and tokens, s": found["prepared"],
        "of processors, s": found["computed"],
        "training, tokens/s": found["trained"],
        "reading an epoch, s": found["epoch"],
        "memory, MB": peak / 1e6,
        "limit": "kept" if peak < LIMIT else "PASSED",
    }


def main() -> None:
    """Write the two texts, run on each twice, print one table, and delete them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9, help="of the larger text")
    parser.add_argument("--model", default="lstm-char")
    parser.add_argument("--documents", choices=["file", "line"], default="file", help="what is a document")
    parser.add_argument("--seconds", type=float, default=20, help="of training")
    parser.add_argument("--folder", help="where there is room for four times the text")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in (options.bytes / 10, options.bytes):
            path, cache = Path(folder, "corpus.txt"), Path(folder, f"cache-{size:.0f}")
            write(path, size)
            for _ in range(2):
                rows.append(run(path, options, cache))
                print(rows[-1], file=sys.stderr)
    print(to_text(rows, list(rows[0])))


if __name__ == "__main__":
    main()
