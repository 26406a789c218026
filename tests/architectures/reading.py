"""Functions that read documents with a model: in blocks, and with joined states."""

from __future__ import annotations

from typing import Any

import numpy as np

from revgen.language_model import LanguageModel


def read_in_blocks(model: LanguageModel, ids: np.ndarray, size: int) -> np.ndarray:
    """Return the logits after ids (time, batch), of which the model reads ``size`` time steps at once."""
    state, blocks = model.initial_state(ids.shape[1]), []
    for begin in range(0, len(ids), size):
        logits, state = model.forward(ids[begin : begin + size], state)
        blocks.append(logits)
    return np.concatenate(blocks)


def check_joined_states(model: LanguageModel, documents: np.ndarray, **tolerance: Any) -> None:
    """Check that documents of different length (time, batch) are continued together as they are alone."""
    _, short = model.forward(documents[:20, :1], model.initial_state(1))
    _, long = model.forward(documents[:60, 1:2], model.initial_state(1))
    joined = model.join_states([short, long])
    logits, _ = model.forward(np.stack([documents[20:40, 0], documents[60:80, 1]], 1), joined)
    np.testing.assert_allclose(logits[:, :1], model.forward(documents[20:40, :1], short)[0], **tolerance)
    np.testing.assert_allclose(logits[:, 1:], model.forward(documents[60:80, 1:2], long)[0], **tolerance)
