"""Adaptive probability maps: the last step, which corrects the probability of the mixers where it is often wrong.

A map has a row of ``NUM_POINTS`` probabilities for each small context, at equally spaced logits of the mixers'
probability. The corrected probability is interpolated between the two nearest points. In training, the nearest point
moves towards each decision, so it becomes the frequency of the right child after such a prediction.
(Mahoney 2005, *Adaptive weighing of context models for lossless data compression*: secondary symbol estimation.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.compiling import internal

MAX_POINT_LOGIT, NUM_POINTS = np.float32(8), 25
"""The points are at logits from -8 to 8."""
POINTS_PER_LOGIT = np.float32((NUM_POINTS - 1) / (2 * MAX_POINT_LOGIT))
NUM_MAPS, NUM_REFINED_CONTEXTS = 2, 1 << 14
"""One map has a context for the last token and the decision, and the other for the last two tokens and the decision."""
QUARTER, HALF, ONE = np.float32(0.25), np.float32(0.5), np.float32(1)


def initial_refined() -> NDArray[np.float32]:
    """Return maps that change no probability, (maps, contexts, points)."""
    logits = np.linspace(-MAX_POINT_LOGIT, MAX_POINT_LOGIT, NUM_POINTS)
    return np.tile((1 / (1 + np.exp(-logits))).astype(np.float32), (NUM_MAPS, NUM_REFINED_CONTEXTS, 1))


@internal
def refine(maps: Any, work: Any, depth: Any, node: Any, last: Any, before: Any, p: Any) -> Any:
    """Return the mean of the mixers' probability ``p`` and its corrections. ``last`` and ``before`` are token ranks."""
    logit = min(max(np.log(p / (ONE - p)), -MAX_POINT_LOGIT), MAX_POINT_LOGIT)
    position = (logit + MAX_POINT_LOGIT) * POINTS_PER_LOGIT
    point = min(int(position), NUM_POINTS - 2)
    fraction = position - np.float32(point)
    total = HALF * p
    for which in range(NUM_MAPS):
        key = 64 * last + min(node, 63) if which == 0 else 7919 * last + 104729 * before + 31 * node
        context = key % NUM_REFINED_CONTEXTS
        row = maps.refined[which, context]
        total += QUARTER * (row[point] * (ONE - fraction) + row[point + 1] * fraction)
        work.refined_cells[depth, which] = NUM_POINTS * context + point + (1 if fraction >= HALF else 0)
    return total
