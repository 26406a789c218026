"""A temporary file of log-probabilities of all tokens, which may take more space than the memory has."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.corpus.disk import check_free_space
from revgen.display.formatting import format_size
from revgen.errors import CorpusError


class LogprobFile:
    """A temporary file of log-probabilities in float16, (rows, …, vocab), which is deleted after its last use."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.num_bytes = 2 * math.prod(shape)
        try:
            check_free_space(tempfile.gettempdir(), self.num_bytes)
            self.file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the memory map
        except OSError as error:
            raise self._error(error) from error

    def write(self, row: int, logprobs: NDArray[np.floating[Any]]) -> int:
        """Write the rows from ``row`` on, (rows, …, vocab), and return the next row. Raises CorpusError."""
        try:
            self.file.seek(2 * row * math.prod(self.shape[1:]))
            self.file.write(np.ascontiguousarray(logprobs, np.float16).data)
        except OSError as error:
            raise self._error(error) from error
        return row + len(logprobs)

    def to_array(self) -> NDArray[np.float16]:
        """Return the content as a memory map, (rows, …, vocab). Raises CorpusError if it cannot be written."""
        try:
            self.file.flush()
        except OSError as error:
            raise self._error(error) from error
        return np.memmap(self.file, np.float16, "r+", shape=self.shape)

    def _error(self, error: OSError) -> CorpusError:
        return CorpusError(
            f"the predictions for {self.shape[0]:,} tokens and a vocabulary of {self.shape[-1]:,} take "
            f"{format_size(self.num_bytes)} and cannot be written to {tempfile.gettempdir()}: "
            f"{error.strerror or error}; free some disk space, set TMPDIR to another directory, or use less text"
        )
