"""A network as compiled code that generates one text at a time, by Numba.

One token of a small network takes about fifty calls on NumPy, and each call costs more than its arithmetic. Here one
token is one call. The results agree to float32 precision: only the order of summation differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.errors import MissingExtraError
from revgen.networks.layouts import Floats
from revgen.ops import tree_map


def copy_state(state: Any, num_tokens: int) -> Any:
    """Return a copy of a state: its arrays are overwritten."""
    return tree_map(np.copy, state)


def same_state(arrays: Any) -> Any:
    """Return the arrays, which are the state."""
    return arrays


@dataclass(frozen=True)
class CompiledNetwork:
    """Compiled code for one text, a ``model.CompiledStep``. Raises MissingExtraError without Numba."""

    net: Any
    """The weights in one of the layouts of ``networks.layouts``."""
    to_arrays: Callable[[Any, int], Any] = copy_state
    """Convert a state to arrays that the compiled code overwrites, with room for a number of tokens."""
    to_state: Callable[[Any], Any] = same_state
    """Convert these arrays to a state."""

    def __post_init__(self) -> None:
        try:
            import revgen.networks.kernels  # noqa: F401
        except Exception as error:  # an installation whose versions do not fit may raise anything
            raise MissingExtraError(_import_error_message(error)) from error

    def step(self, token: int, state: Any) -> tuple[NDArray[np.float32], Any]:
        """Return the logits after one more token, (1, 1, vocab), and the next state."""
        from revgen.networks.kernels import token_logits

        arrays = self.to_arrays(state, 1)
        return token_logits(self.net, token, arrays)[None, None], self.to_state(arrays)

    def sample_tokens(
        self,
        token: int,
        state: Any,
        uniforms: Floats,
        temperature: float,
        biases: Floats,
        end: int,
        label_offset: int,
    ) -> tuple[list[int], Any]:
        """Sample a block of tokens (``model.CompiledStep``)."""
        from revgen.networks.kernels import sample_tokens

        arrays = self.to_arrays(state, len(uniforms))
        tokens = np.empty(len(uniforms), np.int64)
        settings = np.float32(temperature), end, biases, label_offset
        count = sample_tokens(self.net, token, arrays, uniforms, tokens, *settings)
        return tokens[:count].tolist(), self.to_state(arrays)


def _import_error_message(error: Exception) -> str:
    """Return the message for a failed import of the kernels: Numba is missing, or does not work."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("numba", "llvmlite"):
        return "compiled generation needs Numba: pip install 'revgen[fast]'"
    return f"compiled generation is not available, as Numba cannot be imported: {error}"
