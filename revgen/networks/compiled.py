"""Networks that Numba compiles to generate one text at a time.

In NumPy, one token of a small network takes about fifty calls, and each call costs more than its arithmetic. Here, one
token takes one call. The results agree to float32 precision: only the order of summation differs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.compiler import Program
from revgen.corpus.cache import cache_directory, check_owner
from revgen.errors import MissingExtraError
from revgen.files import write_atomically
from revgen.networks.layouts import Floats, pack_weight
from revgen.networks.numba_code import NumbaWriter
from revgen.networks.numpy_code import nest_state, state_arrays
from revgen.ops import tree_map
from revgen.sequences import Forward, SamplingRule

MAX_PROGRAMS = 100
"""The number of programs in the cache; each takes about 0.2 MB."""
LOADING = threading.RLock()
"""Held while a module is imported, so that no other thread gets a module whose code is still running."""


def copy_state(state: Any, num_tokens: int) -> Any:
    """Return a copy of a state, because compiled code overwrites its arrays."""
    return tree_map(np.copy, state)


def same_state(arrays: Any) -> Any:
    """Return the arrays unchanged: they are the state."""
    return arrays


@dataclass(frozen=True)
class CompiledNetwork:
    """Compiled code for one text, a ``sequences.CompiledStep``. Raises MissingExtraError without Numba."""

    net: Any
    """The weights in one of the layouts of ``networks.layouts``."""
    to_arrays: Callable[[Any, int], Any] = copy_state
    """Convert a state to arrays that the compiled code overwrites, with room for the given number of tokens."""
    to_state: Callable[[Any], Any] = same_state
    """Convert these arrays to a state."""

    def __post_init__(self) -> None:
        check_numba()

    def step(self, token: int, state: Any) -> tuple[NDArray[np.float32], Any]:
        """Return the logits after one more token, (1, 1, vocab), and the next state."""
        from revgen.networks.kernels import token_logits

        arrays = self.to_arrays(state, 1)
        return token_logits(self.net, token, arrays)[None, None], self.to_state(arrays)

    def sample_tokens(self, token: int, state: Any, uniforms: Floats, rule: SamplingRule) -> tuple[list[int], Any]:
        """Sample a block of tokens, as ``sequences.CompiledStep`` describes."""
        from revgen.networks.kernels import sample_tokens

        arrays = self.to_arrays(state, len(uniforms))
        tokens = np.empty(len(uniforms), np.int64)
        count = sample_tokens(self.net, token, arrays, uniforms, tokens, *kernel_arguments(rule))
        return tokens[:count].tolist(), self.to_state(arrays)


class CompiledProgram:
    """Compiled code for the program of one token, a ``sequences.CompiledStep``.

    ``forward`` is the same computation on NumPy. It reads the first token of a document if the network has no state
    before that token. Raises NotTraceableError if the program has no compiled form, and MissingExtraError without
    Numba.
    """

    def __init__(self, program: Program, weights: Mapping[str, NDArray[Any]], forward: Forward) -> None:
        writer = NumbaWriter(program)
        source = writer.source()
        check_numba()
        from revgen.networks import jit, kernels
        from revgen.networks.fused import element_kernels

        self.module = load_source(source, jit, kernels, element_kernels)
        self.forward = forward
        self.states = [program.operations[i] for i in writer.states]
        self.state_structure = program.outputs[1]
        values = program.compute(writer.fixed, weights)
        self.weights = tuple(
            pack_weight(values[i]) if as_matrix else np.ascontiguousarray(values[i]).reshape(-1)
            for i, as_matrix in writer.weights
        )

    def step(self, token: int, state: Any) -> tuple[NDArray[Any], Any]:
        """Return the logits after one more token, (1, 1, vocab), and the next state."""
        arrays = state_arrays(state, self.states)
        if arrays is None:
            return self.forward(np.array([[token]]), state)
        logits = self.module.token_logits(self.weights, token, flatten(arrays))
        return logits[None, None], nest_state(arrays, self.state_structure)

    def sample_tokens(self, token: int, state: Any, uniforms: Floats, rule: SamplingRule) -> tuple[list[int], Any]:
        """Sample a block of tokens, as ``sequences.CompiledStep`` describes."""
        first_tokens: list[int] = []
        if (arrays := state_arrays(state, self.states)) is None:
            from revgen.networks.kernels import sample

            logits, state = self.forward(np.array([[token + rule.label_offset]]), state)
            temperature, log_min_p, end, biases, _ = kernel_arguments(rule)
            token = int(sample(logits[0, 0], biases, temperature, log_min_p, end, uniforms[0]))
            first_tokens, uniforms, arrays = [token], uniforms[1:], state_arrays(state, self.states)
            if token == rule.end or arrays is None:
                return first_tokens, state
        tokens = np.empty(len(uniforms), np.int64)
        inputs = self.weights, token, flatten(arrays), uniforms
        count = self.module.sample_tokens(*inputs, tokens, *kernel_arguments(rule))
        return first_tokens + tokens[:count].tolist(), nest_state(arrays, self.state_structure)


def kernel_arguments(rule: SamplingRule) -> tuple[Any, ...]:
    """Return the last arguments of the compiled functions that sample tokens."""
    return np.float32(rule.temperature), np.float32(rule.log_min_p), rule.end, rule.biases, rule.label_offset


def check_numba() -> None:
    """Raise MissingExtraError if Numba cannot be imported."""
    try:
        import revgen.networks.kernels  # noqa: F401
    except Exception as error:  # incompatible versions of Numba and NumPy may raise anything
        raise MissingExtraError(_import_error_message(error)) from error


def flatten(arrays: Iterable[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Return arrays as vectors that share their memory."""
    return tuple(array.reshape(-1) for array in arrays)


def load_source(source: str, *imported: ModuleType) -> ModuleType:
    """Save the source of a module in the cache, where Numba also keeps its machine code, and import the module.

    The name of the module depends on its source and on the source of the modules that it imports.
    """
    name = _module_name(source, imported)
    with LOADING:
        return sys.modules.get(name) or _load_module(name, source)


def _load_module(name: str, source: str) -> ModuleType:
    try:
        path = cache_directory() / "programs" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        check_owner(path.parent)
        if not path.is_file() or path.read_text("utf-8") != source:
            write_atomically(path, source.encode())
            drop_unused_programs(path.parent)
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # used now; Numba checks when it was modified
    except OSError:  # without a cache, each process compiles the module again
        path = Path(tempfile.mkdtemp(prefix="revgen-")) / f"{name}.py"
        path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before the code runs, as the machine code in the cache refers to the module
    try:
        try:
            spec.loader.exec_module(module)
        except Exception:  # perhaps the machine code is damaged
            for file in _machine_code(path):
                file.unlink(missing_ok=True)
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def is_cached(source: str, *imported: ModuleType) -> bool:
    """Return whether ``load_source`` finds machine code for this source, so that it takes no time."""
    name = _module_name(source, imported)
    try:
        return name in sys.modules or bool(_machine_code(cache_directory() / "programs" / f"{name}.py"))
    except OSError:
        return False


def _module_name(source: str, imported: Iterable[ModuleType]) -> str:
    digest = hashlib.sha256(source.encode())
    for functions in imported:
        digest.update(Path(str(functions.__file__)).read_bytes())
    return f"revgen_program_{digest.hexdigest()[:32]}"


def _machine_code(path: Path) -> list[Path]:
    """Return the files with machine code that Numba has made from a module."""
    return list((path.parent / "__pycache__").glob(f"{path.stem}.*.nb?"))


def drop_unused_programs(directory: Path) -> None:
    """Delete all but the ``MAX_PROGRAMS`` programs that were used last, with their machine code."""
    programs = sorted(directory.glob("revgen_program_*.py"), key=lambda path: path.stat().st_atime_ns, reverse=True)
    for path in programs[MAX_PROGRAMS:]:
        for file in [*(directory / "__pycache__").glob(f"{path.stem}.*"), path]:
            file.unlink(missing_ok=True)


def _import_error_message(error: Exception) -> str:
    """Return the message for a failed import of the kernels: Numba is missing, or does not work."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("numba", "llvmlite"):
        return "compiled generation needs Numba, which is not installed: pip install numba"
    return f"compiled generation is not available, as Numba cannot be imported: {error}"
