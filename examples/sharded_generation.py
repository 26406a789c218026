"""Generate many texts with several processes or machines, by Dask.

    pip install distributed
    python examples/sharded_generation.py lstm-char samples --shards 8 --texts 1000 --workers 2

Each shard is a file of samples with seeds of its own, so the texts do not depend on the number of workers. If a worker
dies, Dask gives its shard to another worker, which continues the file. If the whole program ends early, start it again
with the same arguments: it continues all files.

For several machines, start a cluster (https://docs.dask.org/en/stable/deploying.html) and pass the address of its
scheduler. All machines need revgen, the model, and the directory of the samples, for example on a network file system.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from distributed import Client, LocalCluster, as_completed

import revgen

BATCH_SIZE = 32


def write_shard(model: str, path: str, prompt: str, n: int, seed: int) -> str:
    """Write a shard of ``n`` texts, or the rest of it, and return its path."""
    revgen.load(model).write_samples(
        path, prompt, n=n, seed=seed, batch_size=BATCH_SIZE, resume=True, progress=False, source=model
    )
    return path


def write_shards(
    client: Client, model: str, directory: Path, *, prompt: str, shards: int, texts: int, seed: int
) -> None:
    """Write the shards with the workers of a cluster, and print each path when its shard is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    seeds_of_shard = -(-texts // BATCH_SIZE)  # each batch takes one
    tasks = [
        client.submit(
            write_shard,
            model,
            str(directory / f"{shard:05}.jsonl"),
            prompt,
            texts,
            seed + shard * seeds_of_shard,
            pure=False,
        )
        for shard in range(shards)
    ]
    for task in as_completed(tasks):
        print(task.result(), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write shards with a cluster on this machine, or with one that runs already."""
    parser = argparse.ArgumentParser(description="Generate many texts with several processes or machines.")
    parser.add_argument("model", help="a name, a directory or a repository of the Hub")
    parser.add_argument("directory", type=Path, help="the directory of the shards")
    parser.add_argument("--prompt", default="", help="the beginning of all texts")
    parser.add_argument("--shards", type=int, default=8, help="the number of files (default: 8)")
    parser.add_argument("--texts", type=int, default=1000, help="the number of texts in each file (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first text (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="the number of processes here (default: 2)")
    parser.add_argument("--scheduler", help="the address of a cluster that runs already, such as tcp://head:8786")
    options = parser.parse_args(arguments)
    cluster = options.scheduler or LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        write_shards(
            client,
            options.model,
            options.directory.resolve(),
            prompt=options.prompt,
            shards=options.shards,
            texts=options.texts,
            seed=options.seed,
        )


if __name__ == "__main__":
    main()
