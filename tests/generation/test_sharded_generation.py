"""The example that generates texts with several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revgen.language_model import LanguageModel

ROOT = Path(__file__).parents[2]
SHARDS, TEXTS, SEED = 3, 400, 5


@pytest.mark.slow
def test_shards_are_complete_after_a_worker_is_killed(small_model: LanguageModel, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    model = small_model.save(tmp_path / "model")
    command = [sys.executable, ROOT / "examples" / "sharded_generation.py", model, tmp_path / "samples"]
    options = {"shards": SHARDS, "texts": TEXTS, "seed": SEED, "workers": 2}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*map(str, command), *(f"--{name}={value}" for name, value in options.items())],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not read_lines(tmp_path / "samples" / "00000.jsonl"):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if any("spawn_main" in argument for argument in child.cmdline())
        ]
        assert len(workers) == 2
        worker = next(w for w in workers if has_open(w, tmp_path / "samples" / "00000.jsonl"))
        worker.send_signal(signal.SIGKILL)
        cut_off = len(read_lines(tmp_path / "samples" / "00000.jsonl"))
        output, errors = process.communicate(timeout=120)

    assert process.returncode == 0, errors
    assert cut_off < TEXTS
    assert sorted(Path(line).name for line in output.split()) == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]
    for shard in range(SHARDS):
        lines = read_lines(tmp_path / "samples" / f"{shard:05}.jsonl")
        expected = tmp_path / f"expected-{shard}.jsonl"
        seed = SEED + shard * 13  # the batches of a shard
        small_model.write_samples(expected, n=TEXTS, seed=seed, batch_size=32, progress=False, source=str(model))
        assert [json.loads(line) for line in lines] == [json.loads(line) for line in read_lines(expected)]


def has_open(process: object, path: Path) -> bool:
    """Return whether a process has a file open."""
    files = process.open_files()  # type: ignore[attr-defined]
    return any(file.path == str(path) for file in files)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, none if it does not exist."""
    return path.read_text("utf-8").splitlines() if path.exists() else []
