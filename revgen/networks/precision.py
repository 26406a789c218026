"""Choose the precision of matrix products in training by a measurement, which is cached for each machine.

bfloat16 halves the bytes of a product, but only some processors multiply faster in it, and converting float32 weights
and activations takes time. So a layer is measured in both precisions, on the number of threads that training uses.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import statistics
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from revgen.corpus.cache import cache_directory, open_entry
from revgen.files import write_atomically

logger = logging.getLogger(__name__)
MIN_SPEEDUP = 1.1
"""bfloat16 is used if a layer is at least this many times as fast in it: a smaller gain is not worth the rounding."""
ROWS, INPUTS, OUTPUTS = 512, 256, 1024
"""The sizes of the measured layer: tokens of a batch, input and output features."""
NUM_ROUNDS = 5
MAX_ENTRY_BYTES = 1 << 16
UNAVAILABLE_SLOWDOWN = 3.0
"""A processor that takes this many times as long in bfloat16 emulates it: one round is enough to know."""


def bf16_matmul_is_fast(device: torch.device) -> bool:
    """Return whether matrix products train faster in bfloat16 on this device.

    GPUs that support bfloat16 do. A CPU is measured once; the result is kept in the cache directory.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    return cached_speedup(torch.get_num_threads()) >= MIN_SPEEDUP


@cache
def cached_speedup(num_threads: int) -> float:
    """Return ``measure_bf16_speedup`` from the cache, or measure it and save it if the cache can be written.

    ``num_threads`` is the current number of PyTorch's threads.
    """
    machine = describe_machine(num_threads)
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # missing or damaged: measure again
        with open_entry(_entry_name(machine)) as file:
            entry = json.loads(file.read(MAX_ENTRY_BYTES))
        if entry["machine"] == machine:
            return float(entry["bf16_speedup"])
    speedup = measure_bf16_speedup()
    logger.debug("training layers in bfloat16 was measured at %.2f times the speed of float32", speedup)
    with suppress(OSError):
        path = cache_directory() / _entry_name(machine)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"machine": machine, "bf16_speedup": round(speedup, 3)}).encode())
    return round(speedup, 3)


def describe_machine(num_threads: int) -> dict[str, str | int]:
    """Return everything that the result depends on: processor, version of PyTorch, and number of threads."""
    return {"processor": _processor(), "torch": torch.__version__, "threads": num_threads}


def _processor() -> str:
    """Return the model of the processor and, on Linux, its features, which the names of virtual machines hide."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0]
        fields = dict(line.split("\t", 1) for line in first.splitlines() if "\t" in line)
        names = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU part", "Features")
        return ";".join(fields[name].strip("\t: ") for name in names if name in fields)
    return f"{platform.machine()};{platform.processor()}"


def _entry_name(machine: dict[str, str | int]) -> str:
    """Return the name of the cache entry of a machine."""
    key = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:20]
    return f"precision-{key}.json"


def measure_bf16_speedup() -> float:
    """Return how many times as fast the forward and backward pass of a layer is in bfloat16 as in float32.

    The two are measured alternately, so that other work on the machine slows both down; the result is the median ratio.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (
        torch.randn(shape, generator=generator) for shape in ((ROWS, INPUTS), (INPUTS, OUTPUTS), (ROWS, OUTPUTS))
    )

    def seconds(enabled: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = x @ weight
        y.backward(gradient.to(y.dtype))  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    with torch.inference_mode(False), torch.enable_grad():
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        warm_up = [(seconds(False), seconds(True)) for _ in range(2)][-1]
        if warm_up[1] > UNAVAILABLE_SLOWDOWN * warm_up[0]:
            return warm_up[0] / warm_up[1]
        return statistics.median(seconds(False) / seconds(True) for _ in range(NUM_ROUNDS))
