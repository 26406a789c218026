"""Fast reading of a long text with a PyTorch network, for the logits and the state after its last token.

A recurrent network reads one token after another, which leaves most of a processor idle. But its memory of old tokens
fades. So the text is divided into windows, which are read in parallel, as rows of a batch, each from an initial state.
Then each window is read again from the final state of the window before it, until its states agree with the first pass,
which was right from there on. If the states never agree, the text is read in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from revgen.networks.network import FunctionalModule
from revgen.ops import tree_map

BLOCK_SIZE = 4096
"""The number of tokens, in all rows together, that are read at once. It limits the memory for long texts."""
MAX_WINDOWS, MIN_WINDOW_SIZE, MAX_WINDOW_SIZE = 16, 4096, 16_384
"""The number of windows in a batch, and the number of tokens in a window: an LSTM remembers thousands of tokens."""
COMPARE_EVERY = 256
"""The number of tokens of a window between two comparisons of states."""
MAX_PASSES = 4
"""The number of times that windows are read again before the text is read in order."""
TOLERANCE = 1e-5
"""The largest difference between states that agree, relative to 1 plus their magnitude."""


@torch.inference_mode()
def read(network: FunctionalModule, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
    """Read tokens (time, batch) and return the logits after the last one, (batch, vocab), and the state as tensors."""
    ids = torch.as_tensor(tokens, device=network.device)
    max_windows = MAX_WINDOWS // ids.shape[1] if network.definition.has_fading_memory else 0
    features: Any = None
    while (count := min(max_windows, len(ids) // MIN_WINDOW_SIZE)) > 1:
        size = min(MAX_WINDOW_SIZE, len(ids) // count) * count
        features, state, agreed = read_windows(network, ids[:size], state, count)
        ids, max_windows = ids[size:], max_windows if agreed else 0
    if len(ids):
        features, state = read_in_order(network, ids, state)
    return network.logits(features)[-1].float().cpu().numpy(), state


def read_in_order(network: FunctionalModule, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Read ids (time, batch) in order and return the features of the last, (1, batch, features), and the state."""
    for part in torch.split(ids, max(1, BLOCK_SIZE // ids.shape[1])):
        features, state = network.features(part, state)
    return features[-1:], state


def read_windows(network: FunctionalModule, ids: Tensor, state: Any, count: int) -> tuple[Tensor, Any, bool]:
    """Read ids in ``count`` equal windows. Return the results of ``read_in_order``, and whether the states agreed."""
    batch, zeros = ids.shape[1], network.params[0].new_zeros
    first = network.definition.initial_state(batch, zeros) if state is None else state
    others = network.definition.initial_state((count - 1) * batch, zeros)
    parts = torch.split(
        ids.reshape(count, -1, batch).transpose(0, 1).flatten(1), COMPARE_EVERY
    )  # (step, count * batch)
    states = [pytree.tree_map(lambda *arrays: torch.cat(arrays), first, others)]  # the state before each part
    for part in parts:
        states.append(tree_map(torch.clone, network.features(part, states[-1])[1]))
    rows = torch.arange(count * batch, device=ids.device)
    max_wrong = len(rows)
    for _ in range(MAX_PASSES):
        ends = take_rows(states[-1], rows[:-batch])
        wrong = differing_rows(ends, take_rows(states[0], rows[batch:]))
        if not len(wrong) or len(wrong) > max_wrong:
            break
        max_wrong = len(rows) // 2  # if more are still wrong after this pass, the memory does not fade
        current, wrong = take_rows(ends, wrong), wrong + batch
        put_rows(states[0], wrong, current)
        for part, earlier in zip(parts, states[1:], strict=True):
            current = network.features(part[:, wrong], current)[1]
            remaining = differing_rows(current, take_rows(earlier, wrong))
            put_rows(earlier, wrong, current)
            if not len(remaining):
                break
            wrong, current = wrong[remaining], take_rows(current, remaining)
    wrong = differing_rows(take_rows(states[-1], rows[:-batch]), take_rows(states[0], rows[batch:]))
    if len(wrong):  # windows up to the first wrong one were read from the right states
        num_right = int(wrong[0]) // batch + 1
        state = take_rows(states[-1], rows[(num_right - 1) * batch : num_right * batch])
        return *read_in_order(network, ids[num_right * len(ids) // count :], state), False
    features, state = network.features(parts[-1][:, -batch:], take_rows(states[-2], rows[-batch:]))
    return features[-1:], state, True


def take_rows(state: Any, rows: Tensor) -> Any:
    """Return these rows of a state's batch."""
    return tree_map(lambda array: array[rows], state)


def put_rows(state: Any, rows: Tensor, values: Any) -> None:
    """Replace these rows of a state's batch."""
    for array, value in zip(pytree.tree_leaves(state), pytree.tree_leaves(values), strict=True):
        array[rows] = value


def differing_rows(state: Any, other: Any) -> Tensor:
    """Return the indices of the rows in which two states differ, in order."""
    differs = [
        ((a - b).abs() > TOLERANCE * (1 + torch.minimum(a.abs(), b.abs()))).flatten(1).any(1)
        for a, b in zip(pytree.tree_leaves(state), pytree.tree_leaves(other), strict=True)
    ]
    return torch.stack(differs).any(0).nonzero()[:, 0]
