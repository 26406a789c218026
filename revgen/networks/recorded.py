"""Functions of tensors that are recorded as CUDA graphs, so that a GPU need not wait for Python between its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

MAX_GRAPHS = 8
"""Recordings of a function that are kept: each has the memory of a call of its own."""

Function: TypeAlias = Callable[..., Any]
Record: TypeAlias = Callable[[Function, Any], tuple[Any, Callable[[], None]]]


def cuda_graph(function: Function, arguments: Any) -> tuple[Any, Callable[[], None]]:
    """``function(*arguments)`` as a CUDA graph on the present stream: the tensors that hold its results, and what
    computes them from what the arguments hold then. Raises RuntimeError where the function waits for the GPU."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may wait for the GPU meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = function(*arguments)
    return results, graph.replay


RECORDERS: dict[str, Record] = {"cuda": cuda_graph}
"""What records functions, by the type of the device; on others they are called as they are."""


class CudaGraphCache:
    """``function``, recorded from the second time on that arguments of the same shapes come.

    Arguments and results are tensors in tuples, lists or dicts. The function draws no shape from values, and changes
    tensors in place alone: in a replay no Python runs. One that cannot be recorded is called as it is. Threads call it
    one at a time, as a recording has one set of tensors.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        self.function = function
        self.lock = Lock()
        self.record = RECORDERS.get(device.type)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.seen: Counter[Any] = Counter()
        self.recordings: dict[Any, tuple[list[Tensor], Any, Callable[[], None]]] = {}

    def __call__(self, *arguments: Any) -> Any:
        with self.lock:
            return self._call(arguments) if self.stream is None else self._call_on(self.stream, arguments)

    def _call_on(self, stream: torch.cuda.Stream, arguments: Any) -> Any:
        # One stream for all calls: gradients are summed on the stream that they were first seen on.
        outside = torch.cuda.current_stream(stream.device)
        stream.wait_stream(outside)
        with torch.cuda.stream(stream):
            results = self._call(arguments)
        outside.wait_stream(stream)
        return results

    def _call(self, arguments: Any) -> Any:
        if self.record is None and not self.recordings:
            return self.function(*arguments)
        leaves, form = pytree.tree_flatten(arguments)
        if any(leaf is None for leaf in leaves):  # a state that is not there yet
            return self.function(*arguments)
        shapes = form, *((leaf.shape, leaf.dtype) for leaf in leaves)
        self.seen[shapes] += 1
        # The first call is not recorded: libraries get ready in it.
        again = self.seen[shapes] > 1 and shapes not in self.recordings
        if self.record is not None and again and len(self.recordings) < MAX_GRAPHS:
            copies = pytree.tree_map(Tensor.clone, arguments)
            try:
                self.recordings[shapes] = pytree.tree_leaves(copies), *self.record(self.function, copies)
            except RuntimeError:
                self.record = None
        if shapes not in self.recordings:
            return self.function(*arguments)
        inputs, results, replay = self.recordings[shapes]
        torch._foreach_copy_(inputs, leaves)
        replay()
        return pytree.tree_map(Tensor.clone, results)
