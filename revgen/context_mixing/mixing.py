"""The mixer: from the counts in all contexts to the probability of one binary decision.

An input is the logit of the probability of the right child by the counts in one context. A mixer is a weighted sum of
all inputs, followed by the logistic function. ``NUM_MIXERS`` small contexts each select the weights of one mixer, and a
last mixer combines their outputs. Each is trained by gradient descent on its own logarithmic loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.compiling import internal
from revgen.context_mixing.contexts import (
    LENGTH,
    MATCH,
    MATCH_LENGTH,
    RECENT,
    RECENT_LENGTH,
    WORD_LENGTH,
)
from revgen.context_mixing.parts import FIRST_SELECTOR, NUM_CONTEXTS, NUM_ORDERS, USES_INTERPOLATED
from revgen.context_mixing.refining import NUM_MAPS, NUM_POINTS, initial_refined

MAX_RECENT = 24
"""The number of occurrences of a context in the document that are counted, the last ones."""

COUNT_LEVELS = np.searchsorted([1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 40, 70, 120, 200], np.arange(256), "right")
"""The level of each number of occurrences in the training text: counts of one level are not distinguished."""
TYPICAL_COUNTS = (0, 1, 2, 3, 4, 5, 6.5, 9, 13, 19, 31, 54, 94, 158, 400)
RECENT_LEVELS = np.searchsorted([1, 2, 3, 4, 7], np.arange(MAX_RECENT + 1), "right")
TYPICAL_RECENT_COUNTS = (0, 1, 2, 3, 5, 10)
MATCH_LEVELS = np.searchsorted([1, 8, 10, 13, 16, 22, 32, 63], np.arange(64), "right")
"""The level of the length of a match; 0 if there is none. A match in the document counts as twice as long."""
NUM_LEVELS, NUM_RECENT_LEVELS, NUM_MATCH_LEVELS = len(TYPICAL_COUNTS), len(TYPICAL_RECENT_COUNTS), 9

MIXER_SIZES = (40, 40, 256, 512, 64, 256, 512, 256)
"""The number of values of each small context, in the order of ``SELECTORS``."""
NUM_MIXERS = len(MIXER_SIZES)
_MIXER_BEGINS = np.concatenate([[0], np.cumsum(MIXER_SIZES)[:-1]])
FINAL_BY_MATCH, FINAL_BY_TOKEN = 256, 256 + MIXER_SIZES[0]
"""The first sets of weights of the last mixer that are selected by the match and by the last token; the sets before are
selected by the decision."""
NUM_FINAL = FINAL_BY_TOKEN + 256
COUNT_INPUTS, RECENT_INPUTS, MATCH_INPUTS, INTERPOLATED_INPUTS = 3, 2, 3, 4
FIRST_RECENT = COUNT_INPUTS * NUM_CONTEXTS
FIRST_MATCH = FIRST_RECENT + RECENT_INPUTS * NUM_CONTEXTS
FIRST_INTERPOLATED = FIRST_MATCH + 2 * MATCH_INPUTS
NUM_INPUTS = FIRST_INTERPOLATED + INTERPOLATED_INPUTS + 1
MIDDLE_ORDER = 5
BIAS = np.float32(0.4)

MIN_PROBABILITY = np.float32(1 / 4096)
"""The smallest probability in a map."""
MAX_LOGIT = np.float32(11)
MAX_HITS = np.float32(1000)
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


class Mixers(NamedTuple):
    """The weights of the mixers (sets, inputs) and of the last mixer (sets, mixers)."""

    weights: NDArray[np.float32]
    final: NDArray[np.float32]


class Maps(NamedTuple):
    """The probability of the right child for each pair of levels of its counts, for each kind of context.

    ``counts`` (contexts, levels²) is for the training text, and ``recent`` (contexts, 2 levels²) for the document,
    where it matters too which child came last. ``match`` (2, levels) is the probability that a match predicts the
    child. ``refined`` (maps, contexts, points) are the maps of ``refining``. The others are the numbers of decisions
    from which each was estimated.
    """

    counts: NDArray[np.float32]
    recent: NDArray[np.float32]
    match: NDArray[np.float32]
    refined: NDArray[np.float32]
    counts_hits: NDArray[np.float32]
    recent_hits: NDArray[np.float32]
    match_hits: NDArray[np.float32]
    refined_hits: NDArray[np.float32]


SAVED_MAPS = ("counts", "recent", "match", "refined")


class Work(NamedTuple):
    """Arrays that are overwritten at each token. The axis ``depth`` is for the decisions from the root to a leaf.

    ``begins`` and ``ends`` (depth, contexts) are the entries of ``Tables`` in each context, and ``recent_begins`` and
    ``recent_ends`` are the same for ``recent_ranks`` and ``recent_ages``: the tokens after the last occurrences of the
    context in the document, sorted by rank, and how many occurrences came later. ``rights`` and ``totals`` (orders,)
    are counts of the training text. ``path`` (depth,) are the nodes, and ``chances`` (depth,) the probabilities of
    their right children.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    recent_begins: NDArray[np.int64]
    recent_ends: NDArray[np.int64]
    recent_ranks: NDArray[np.int64]
    recent_ages: NDArray[np.int64]
    inputs: NDArray[np.float32]
    selected: NDArray[np.int64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    rights: NDArray[np.float32]
    totals: NDArray[np.float32]
    count_cells: NDArray[np.int64]
    recent_cells: NDArray[np.int64]
    match_cells: NDArray[np.int64]
    match_bits: NDArray[np.int64]
    refined_cells: NDArray[np.int64]
    path: NDArray[np.int64]
    chances: NDArray[np.float32]


def initial_mixers() -> Mixers:
    """Return mixers that average the logits of the contexts."""
    weights = np.zeros((sum(MIXER_SIZES), NUM_INPUTS), np.float32)
    weights[:, 0:FIRST_RECENT:COUNT_INPUTS] = 0.1
    weights[:, FIRST_RECENT:FIRST_MATCH:RECENT_INPUTS] = 0.05
    weights[:, FIRST_INTERPOLATED + 1] = 0.3
    return Mixers(weights, np.full((NUM_FINAL, NUM_MIXERS), ONE / (3 * NUM_MIXERS), np.float32))


def initial_maps() -> Maps:
    """Return maps with the estimate (n + 0.4) / (N + 0.8) for n of N occurrences."""
    n, m = np.array(TYPICAL_COUNTS), np.array(TYPICAL_RECENT_COUNTS)
    by_count = (n + 0.4) / (n[:, None] + n + 0.8)
    by_recent = np.repeat((m + 0.4) / (m[:, None] + m + 0.8), 2)
    counts, recent = (np.tile(p.astype(np.float32).ravel(), (NUM_CONTEXTS, 1)) for p in (by_count, by_recent))
    match = np.full((2, NUM_MATCH_LEVELS), 0.8, np.float32)
    refined = initial_refined()
    hits = [np.full_like(array, n) for array, n in ((counts, 8), (recent, 8), (match, 2), (refined, 8))]
    return Maps(counts, recent, match, refined, *hits)


def saved_arrays(mixers: Mixers, maps: Maps) -> dict[str, NDArray[np.float32]]:
    """Return copies of the arrays to save, by name. Maps are saved as logits, which float16 can represent."""
    arrays = {f"mixers.{name}": array.copy() for name, array in mixers._asdict().items()}
    return arrays | {f"maps.{name}": np.log(p / (1 - p)) for name, p in zip(SAVED_MAPS, maps, strict=False)}


def from_saved(arrays: Mapping[str, NDArray[Any]]) -> tuple[Mixers, Maps]:
    """Return the mixers and the maps of the arrays that ``saved_arrays`` returned."""
    mixers = Mixers._make(arrays[f"mixers.{name}"] for name in Mixers._fields)
    maps = [1 / (1 + np.exp(-arrays[f"maps.{name}"].clip(-9, 9))) for name in SAVED_MAPS]
    return mixers, Maps._make([*maps, *(np.full_like(array, MAX_HITS) for array in maps)])


def new_work(depth: int) -> Work:
    """Return arrays for a code tree of this depth."""
    depth += 2
    return Work(
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros(NUM_CONTEXTS * MAX_RECENT, np.int64),
        np.zeros(NUM_CONTEXTS * MAX_RECENT, np.int64),
        np.zeros((depth, NUM_INPUTS), np.float32),
        np.zeros((depth, NUM_MIXERS), np.int64),
        np.zeros((depth, NUM_MIXERS), np.float32),
        np.zeros((depth, NUM_MIXERS), np.float32),
        np.zeros(NUM_ORDERS, np.float32),
        np.zeros(NUM_ORDERS, np.float32),
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros((depth, NUM_CONTEXTS), np.int64),
        np.zeros((depth, 2), np.int64),
        np.zeros((depth, 2), np.int64),
        np.zeros((depth, NUM_MAPS), np.int64),
        np.zeros(depth, np.int64),
        np.zeros(depth, np.float32),
    )


@internal
def logit(p: Any) -> Any:
    """Return the logarithm of the odds, ln(p / (1 - p)); the input is clipped."""
    p = min(max(p, MIN_PROBABILITY), ONE - MIN_PROBABILITY)
    return np.log(p / (ONE - p))


@internal
def logistic(x: Any) -> Any:
    """Return the inverse of ``logit``."""
    return ONE / (ONE + np.exp(-x))


@internal
def add_counts(tables: Any, maps: Any, work: Any, depth: Any, node: Any) -> Any:
    """Write the inputs of the training text's counts; return twice the highest order that knows the node, + 1 if it
    knows one child only.

    The row ``depth + 1`` of ``work.begins`` gets the first entry of the right child.
    """
    middle, inputs, highest = tables.tree.middle[node], work.inputs[depth], 0
    for i in range(NUM_CONTEXTS):
        left = right = 0
        entry, end = work.begins[depth, i], work.ends[depth, i]
        while entry < end and tables.ranks[entry] < middle:
            left += tables.counts[entry]
            entry += 1
        work.begins[depth + 1, i] = entry
        for k in range(entry, end):
            right += tables.counts[k]
        total = left + right
        if i < NUM_ORDERS:
            work.rights[i], work.totals[i] = right, total
        first = COUNT_INPUTS * i
        if total == 0:
            work.count_cells[depth, i] = -1
            inputs[first] = inputs[first + 1] = inputs[first + 2] = ZERO
            continue
        cell = COUNT_LEVELS[min(left, 255)] * NUM_LEVELS + COUNT_LEVELS[min(right, 255)]
        work.count_cells[depth, i] = cell
        p = maps.counts[i, cell]
        inputs[first] = logit(p)
        inputs[first + 1] = np.float32(4) * (p - HALF)
        inputs[first + 2] = HALF * logit((np.float32(right) + np.float32(0.4)) / (np.float32(total) + np.float32(0.8)))
        if i < NUM_ORDERS:
            highest = 2 * i + (1 if left == 0 or right == 0 else 0)
    return highest


@internal
def add_recent_counts(tables: Any, maps: Any, work: Any, depth: Any, node: Any) -> Any:
    """Write the inputs of the document's counts; return the number of contexts that know the node.

    The row ``depth + 1`` of ``work.recent_begins`` gets the first entry of the right child.
    """
    middle, inputs, known = tables.tree.middle[node], work.inputs[depth], 0
    for i in range(NUM_CONTEXTS):
        begin, end = work.recent_begins[depth, i], work.recent_ends[depth, i]
        entry, left_age, right_age = begin, MAX_RECENT, MAX_RECENT
        while entry < end and work.recent_ranks[entry] < middle:
            left_age = min(left_age, work.recent_ages[entry])
            entry += 1
        for k in range(entry, end):
            right_age = min(right_age, work.recent_ages[k])
        work.recent_begins[depth + 1, i] = entry
        first = FIRST_RECENT + RECENT_INPUTS * i
        if begin == end:
            work.recent_cells[depth, i] = -1
            inputs[first] = inputs[first + 1] = ZERO
            continue
        known += 1
        cell = RECENT_LEVELS[entry - begin] * NUM_RECENT_LEVELS + RECENT_LEVELS[end - entry]
        cell = 2 * cell + (1 if right_age < left_age else 0)
        work.recent_cells[depth, i] = cell
        p = maps.recent[i, cell]
        inputs[first] = logit(p)
        inputs[first + 1] = TWO * (p - HALF)
    return known


@internal
def add_interpolated(work: Any, depth: Any) -> None:
    """Write the inputs of estimates that interpolate all orders, without and with the counts of the document.

    p(n) = (right + s p(n - 1)) / (total + s), where n is an order and s the weight of the shorter context.
    """
    inputs = work.inputs[depth]
    p = q = HALF
    for i in range(NUM_ORDERS):
        strength = np.float32(4) if i < 3 else ONE
        right, total = work.rights[i], work.totals[i]
        p = (right + strength * p) / (total + strength)
        right += TWO * np.float32(work.recent_ends[depth, i] - work.recent_begins[depth + 1, i])
        total += TWO * np.float32(work.recent_ends[depth, i] - work.recent_begins[depth, i])
        q = (right + strength * q) / (total + strength)
        if i == MIDDLE_ORDER:
            inputs[FIRST_INTERPOLATED + 2], inputs[FIRST_INTERPOLATED + 3] = logit(p), logit(q)
    inputs[FIRST_INTERPOLATED], inputs[FIRST_INTERPOLATED + 1] = logit(p), logit(q)


@internal
def add_match(tables: Any, maps: Any, work: Any, depth: Any, node: Any, which: Any, token: Any, length: Any) -> Any:
    """Write the inputs of a match that predicts a token; return the level of its length, 0 if it predicts nothing."""
    tree, inputs, first = tables.tree, work.inputs[depth], FIRST_MATCH + MATCH_INPUTS * which
    rank = tree.ranks[token]
    if length == 0 or rank < tree.low[node] or rank >= tree.high[node]:
        work.match_cells[depth, which] = -1
        inputs[first] = inputs[first + 1] = inputs[first + 2] = ZERO
        return 0
    level = MATCH_LEVELS[min(length * (1 + which), 63)]
    bit = 1 if rank >= tree.middle[node] else 0
    sign = np.float32(2 * bit - 1)
    p = maps.match[which, level]
    work.match_cells[depth, which] = level
    work.match_bits[depth, which] = bit
    inputs[first] = sign * logit(p)
    inputs[first + 1] = sign * TWO * (p - HALF)
    inputs[first + 2] = sign * np.float32(min(length, 32)) / np.float32(16)
    return level


@internal
def write_inputs(tables: Any, maps: Any, document: Any, work: Any, depth: Any, node: Any) -> None:
    """Write the inputs of a decision, and the weights that each mixer uses."""
    tokens, counters, ranks, selected = document.tokens, document.counters, tables.tree.ranks, work.selected[depth]
    highest = add_counts(tables, maps, work, depth, node)
    known = add_recent_counts(tables, maps, work, depth, node)
    match = add_match(tables, maps, work, depth, node, 0, tables.text[counters[MATCH]], counters[MATCH_LENGTH])
    recent = add_match(tables, maps, work, depth, node, 1, tokens[counters[RECENT]], counters[RECENT_LENGTH])
    if tables.is_used[USES_INTERPOLATED]:
        add_interpolated(work, depth)
    work.inputs[depth, NUM_INPUTS - 1] = BIAS

    length = counters[LENGTH]
    c1, c2, c3 = tokens[length - 1], tokens[max(length - 2, 0)], tokens[max(length - 3, 0)]
    classes = tables.classes
    selected[0] = 4 * match + min((recent + 1) // 2, 3)
    selected[1] = highest
    selected[2] = min(node, 255)
    selected[3] = 64 * classes[c1] + 8 * classes[c2] + classes[c3]
    selected[4] = 4 * (12 * known // NUM_CONTEXTS) + (length >= 32) + (length >= 128) + (length >= 512)
    selected[5] = min(max(ranks[c1], 0), 255)
    selected[6] = 32 * min(counters[WORD_LENGTH], 15) + min(node, 31)
    selected[7] = min(max(ranks[c2], 0), 255)
    for k in range(NUM_MIXERS):
        if not tables.is_used[FIRST_SELECTOR + k]:
            selected[k] = 0


@internal
def mix(mixers: Any, work: Any, depth: Any, node: Any) -> Any:
    """Return the probability of the right child of a node."""
    inputs, selected = work.inputs[depth], work.selected[depth]
    total = ZERO
    for k in range(NUM_MIXERS):
        weights = mixers.weights[_MIXER_BEGINS[k] + selected[k]]
        x = ZERO
        for j in range(NUM_INPUTS):
            x += weights[j] * inputs[j]
        x = min(max(x, -MAX_LOGIT), MAX_LOGIT)
        work.logits[depth, k] = x
        work.probabilities[depth, k] = logistic(x)
        weight = mixers.final[min(node, 255), k] + mixers.final[FINAL_BY_MATCH + selected[0], k]
        total += (weight + mixers.final[FINAL_BY_TOKEN + selected[5], k]) * x
    return logistic(min(max(total, -MAX_LOGIT), MAX_LOGIT))


@internal
def learn(mixers: Any, work: Any, depth: Any, node: Any, bit: Any, p: Any, rate: Any, final_rate: Any) -> None:
    """Take one step of gradient descent with the decision ``bit``, whose probability was ``p``."""
    inputs, selected, target = work.inputs[depth], work.selected[depth], np.float32(bit)
    error = final_rate * (target - p)
    for k in range(NUM_MIXERS):
        mixers.final[min(node, 255), k] += error * work.logits[depth, k]
        mixers.final[FINAL_BY_MATCH + selected[0], k] += error * work.logits[depth, k]
        mixers.final[FINAL_BY_TOKEN + selected[5], k] += error * work.logits[depth, k]
        weights = mixers.weights[_MIXER_BEGINS[k] + selected[k]]
        step = rate * (target - work.probabilities[depth, k])
        for j in range(NUM_INPUTS):
            weights[j] += step * inputs[j]


@internal
def adjust(values: Any, hits: Any, cell: Any, target: Any) -> None:
    """Move the probability in a cell of a map towards a decision; the cell becomes their mean over time."""
    p = values[cell] + (target - values[cell]) / (hits[cell] + np.float32(1.5))
    values[cell] = min(max(p, MIN_PROBABILITY), ONE - MIN_PROBABILITY)
    hits[cell] = min(hits[cell] + ONE, MAX_HITS)


@internal
def adjust_maps(maps: Any, work: Any, depth: Any, bit: Any) -> None:
    """Move the probabilities that were looked up for a decision towards it."""
    target = np.float32(bit)
    for i in range(NUM_CONTEXTS):
        if work.count_cells[depth, i] >= 0:
            adjust(maps.counts[i], maps.counts_hits[i], work.count_cells[depth, i], target)
        if work.recent_cells[depth, i] >= 0:
            adjust(maps.recent[i], maps.recent_hits[i], work.recent_cells[depth, i], target)
    for which in range(2):
        if work.match_cells[depth, which] >= 0:
            is_hit = ONE if work.match_bits[depth, which] == bit else ZERO
            adjust(maps.match[which], maps.match_hits[which], work.match_cells[depth, which], is_hit)
    for which in range(NUM_MAPS):
        cell = work.refined_cells[depth, which]
        row, point = cell // NUM_POINTS, cell % NUM_POINTS
        adjust(maps.refined[which, row], maps.refined_hits[which, row], point, target)
