"""Reading a long text with a PyTorch network, for the state and the logits after its last token.

A recurrent network reads token after token, which leaves a processor idle. What it keeps of a text fades, so here some
windows of the text are read side by side, as rows of a batch, each from an empty state. Then each window is read again
from the state at the end of the one before, until its states agree with those of the first reading: from there on, that
reading was right. Where the states do not come to agree, the text is read from front to back.
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

BLOCK = 4096
"""Tokens of all rows that are read at once, which bounds the memory for a text of any length."""
WINDOWS, SHORTEST, LONGEST = 16, 4096, 16_384
"""Rows of windows that are read side by side, and the fewest and most tokens of one: an LSTM remembers thousands."""
STEP = 256
"""Tokens of a window between two comparisons of states."""
ATTEMPTS = 4
"""How often windows are read again before the text is read from front to back."""
TOLERANCE = 1e-5
"""The difference between two states, relative to 1 plus their size, up to which they are the same."""


@torch.inference_mode()
def read(network: FunctionalModule, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
    """Read tokens (time, batch) -> the logits after the last one, (batch, vocab), and the state, in tensors."""
    ids = torch.as_tensor(tokens, device=network.device)
    most = WINDOWS // ids.shape[1] if network.equation.forgets else 0
    features: Any = None
    while (count := min(most, len(ids) // SHORTEST)) > 1:
        size = min(LONGEST, len(ids) // count) * count
        features, state, agreed = read_windows(network, ids[:size], state, count)
        ids, most = ids[size:], most if agreed else 0
    if len(ids):
        features, state = read_in_order(network, ids, state)
    return network.logits(features)[-1].float().cpu().numpy(), state


def read_in_order(network: FunctionalModule, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Read ids (time, batch) from front to back -> the features of the last, (1, batch, features), and the state."""
    for part in torch.split(ids, max(1, BLOCK // ids.shape[1])):
        features, state = network.features(part, state)
    return features[-1:], state


def read_windows(network: FunctionalModule, ids: Tensor, state: Any, count: int) -> tuple[Tensor, Any, bool]:
    """Read ids as ``read_in_order`` does, by ``count`` equal windows, and tell whether their states came to agree."""
    batch, new = ids.shape[1], network.params[0].new_zeros
    before = network.equation.initial_state(batch, new) if state is None else state
    empty = network.equation.initial_state((count - 1) * batch, new)
    parts = torch.split(ids.reshape(count, -1, batch).transpose(0, 1).flatten(1), STEP)  # (step, count * batch)
    states = [pytree.tree_map(lambda one, others: torch.cat([one, others]), before, empty)]  # between parts
    for part in parts:
        states.append(tree_map(torch.clone, network.features(part, states[-1])[1]))
    order = torch.arange(count * batch, device=ids.device)
    most = len(order)
    for _ in range(ATTEMPTS):
        ends = rows(states[-1], order[:-batch])
        wrong = differing(ends, rows(states[0], order[batch:]))
        if not len(wrong) or len(wrong) > most:
            break
        most = len(order) // 2  # where more are still wrong after this time, the network does not forget
        now, wrong = rows(ends, wrong), wrong + batch
        put(states[0], wrong, now)
        for part, seen in zip(parts, states[1:], strict=True):
            now = network.features(part[:, wrong], now)[1]
            left = differing(now, rows(seen, wrong))
            put(seen, wrong, now)
            if not len(left):
                break
            wrong, now = wrong[left], rows(now, left)
    wrong = differing(rows(states[-1], order[:-batch]), rows(states[0], order[batch:]))
    if len(wrong):  # the windows before the first of them were read from the right states
        right = int(wrong[0]) // batch + 1
        state = rows(states[-1], order[(right - 1) * batch : right * batch])
        return *read_in_order(network, ids[right * len(ids) // count :], state), False
    features, state = network.features(parts[-1][:, -batch:], rows(states[-2], order[-batch:]))
    return features[-1:], state, True


def rows(state: Any, which: Tensor) -> Any:
    """Return a state with these rows of the batch."""
    return tree_map(lambda array: array[which], state)


def put(state: Any, which: Tensor, values: Any) -> None:
    """Put values into these rows of a state."""
    for array, value in zip(pytree.tree_leaves(state), pytree.tree_leaves(values), strict=True):
        array[which] = value


def differing(state: Any, other: Any) -> Tensor:
    """Return in order the rows in which two states differ."""
    apart = [
        ((a - b).abs() > TOLERANCE * (1 + torch.minimum(a.abs(), b.abs()))).flatten(1).any(1)
        for a, b in zip(pytree.tree_leaves(state), pytree.tree_leaves(other), strict=True)
    ]
    return torch.stack(apart).any(0).nonzero()[:, 0]
