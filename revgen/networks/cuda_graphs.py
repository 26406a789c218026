"""Functions of tensors, recorded as CUDA graphs, so that a GPU does not wait for Python between kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

MAX_GRAPHS = 8
"""The largest number of graphs per function. Each graph holds as much memory as a call of the function needs."""

Function: TypeAlias = Callable[..., Any]
Record: TypeAlias = Callable[[Function, Any], tuple[Any, Callable[[], None]]]
"""A function and its arguments -> the tensors for its results, and a function that fills them."""


def record_cuda_graph(function: Function, arguments: Any) -> tuple[Any, Callable[[], None]]:
    """Record ``function(*arguments)`` as a CUDA graph on the current stream.

    Returns the tensors that hold the results, and a function that replays the graph: it computes the results from the
    current values of the arguments. Raises RuntimeError if the function waits for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    # With "thread_local", other threads may wait for the GPU during the recording.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = function(*arguments)
    return results, graph.replay


RECORDERS: dict[str, Record] = {"cuda": record_cuda_graph}
"""The function that records, by device type. On other devices, functions run without a recording."""


class CudaGraphCache:
    """A function that is recorded when it is called for the second time with arguments of the same shapes.

    Arguments and results are tensors in tuples, lists or dictionaries. No Python code runs in a replay, so no shape may
    depend on the values of tensors, and side effects must be changes of tensors in place. A function that cannot be
    recorded runs without a recording. Threads wait for each other, because a recording has one set of tensors.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        self.function = function
        self.lock = Lock()
        self.record = RECORDERS.get(device.type)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.num_calls: Counter[Any] = Counter()  # by shapes
        self.recordings: dict[Any, tuple[list[Tensor], Any, Callable[[], None]]] = {}  # inputs, results, replay

    def __call__(self, *arguments: Any) -> Any:
        with self.lock:
            return self._call(arguments) if self.stream is None else self._call_on(self.stream, arguments)

    def _call_on(self, stream: torch.cuda.Stream, arguments: Any) -> Any:
        # All calls use the same stream: PyTorch sums a gradient on the stream on which it was first computed.
        caller_stream = torch.cuda.current_stream(stream.device)
        stream.wait_stream(caller_stream)
        with torch.cuda.stream(stream):
            results = self._call(arguments)
        caller_stream.wait_stream(stream)
        return results

    def _call(self, arguments: Any) -> Any:
        if self.record is None and not self.recordings:
            return self.function(*arguments)
        leaves, structure = pytree.tree_flatten(arguments)
        if any(leaf is None for leaf in leaves):  # the first state of a text may be None
            return self.function(*arguments)
        shapes = structure, *((leaf.shape, leaf.dtype) for leaf in leaves)
        self.num_calls[shapes] += 1
        # The first call is never recorded, because libraries initialize themselves in it.
        is_recordable = self.num_calls[shapes] > 1 and len(self.recordings) < MAX_GRAPHS
        if self.record is not None and is_recordable and shapes not in self.recordings:
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
