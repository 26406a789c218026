"""Reading documents: the loops over tokens and over the decisions of a token.

After each token, ``find_successors`` collects the tokens that followed the contexts before. The next token is a path
from the root of the code tree to a leaf: ``score_token`` follows it, and then learns from each decision.
``write_logits`` visits all nodes to compute the whole distribution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from revgen.context_mixing.compiling import compiled, internal
from revgen.context_mixing.contexts import (
    LENGTH,
    MATCH,
    MATCH_LENGTH,
    RECENT,
    RECENT_LENGTH,
    append,
    finish,
    hash_last,
    link,
    write_contexts,
)
from revgen.context_mixing.counting import MATCH_HASH, MIN_MATCH, find_context
from revgen.context_mixing.mixing import (
    MAX_RECENT,
    ONE,
    adjust_maps,
    learn,
    mix,
    write_inputs,
)
from revgen.context_mixing.parts import NUM_CONTEXTS, USES_DOCUMENT, USES_MATCH, USES_REFINED
from revgen.context_mixing.refining import refine

MAX_STEPS = 64
"""The largest number of positions of a slot that are looked at."""
MAX_COMPARED = 40
"""The largest number of tokens that are compared to find the longest match, which grows while the text follows it."""
MATCH_TRIES, RECENT_TRIES = 24, 8
RECENT_ORDER, MIN_RECENT_MATCH = 4, 4
"""The number of equal tokens from which two positions in the document match; it is an index of ``ORDERS`` too."""
MIN_WALKED = np.float32(3e-5)
"""The tokens of a subtree with a smaller probability are predicted by their frequencies."""


@internal
def find_match(tables: Any, document: Any, skip_begin: Any, skip_end: Any) -> None:
    """Find the longest match of the end of the document in the training text, not within a range of positions."""
    tokens, counters, text = document.tokens, document.counters, tables.text
    length, position, size = counters[LENGTH], counters[MATCH], counters[MATCH_LENGTH]
    if size > 0:
        is_equal = text[position] == tokens[length - 1] and position + 1 < len(text)
        position += 1
        size = size + 1 if is_equal and not skip_begin <= position < skip_end else 0
    if size < MAX_COMPARED and length >= MIN_MATCH:
        slot = finish(hash_last(tokens, length, MIN_MATCH), MATCH_HASH) & (len(tables.match_heads) - 1)
        candidate, tries = tables.match_heads[slot], 0
        while candidate >= 0 and tries < MATCH_TRIES:
            if not skip_begin <= candidate < skip_end:
                tries += 1
                equal, limit = 0, min(length, candidate + 1, MAX_COMPARED)
                while equal < limit and text[candidate - equal] == tokens[length - 1 - equal]:
                    equal += 1
                if equal >= MIN_MATCH and equal > size:
                    position, size = candidate + 1, equal
            candidate = tables.match_chain[candidate]
    counters[MATCH], counters[MATCH_LENGTH] = position if size > 0 else 0, size


@internal
def find_recent_match(document: Any) -> None:
    """Find the longest match of the end of the document with an earlier part of it, among the last candidates."""
    tokens, counters = document.tokens, document.counters
    length, longest = counters[LENGTH], 0
    candidate, tries = document.previous[length - 1, RECENT_ORDER], 0
    while candidate >= 0 and tries < RECENT_TRIES:
        equal, limit = 0, min(candidate + 1, MAX_COMPARED)
        while equal < limit and tokens[candidate - equal] == tokens[length - 1 - equal]:
            equal += 1
        if equal >= MIN_RECENT_MATCH and equal > longest:
            counters[RECENT], longest = candidate + 1, equal
        candidate = document.previous[candidate, RECENT_ORDER]
        tries += 1
    counters[RECENT_LENGTH] = longest


@internal
def read_token(tables: Any, document: Any, token: Any, skip_begin: Any, skip_end: Any, adapts: Any) -> None:
    """Append a token to the document, and find its contexts and matches. ``adapts`` remembers it for later tokens."""
    append(document, token, tables.classes, tables.folded)
    position = document.counters[LENGTH] - 1
    write_contexts(document, tables.classes, document.hashes[position])
    if adapts and tables.is_used[USES_DOCUMENT]:
        link(document, position)
    else:
        document.previous[position] = -1
    if tables.is_used[USES_MATCH]:
        find_match(tables, document, skip_begin, skip_end)
    find_recent_match(document)


@internal
def find_successors(tables: Any, document: Any, work: Any) -> None:
    """Find the tokens that followed the contexts of the last token, in the training text and in the document."""
    last = document.counters[LENGTH] - 1
    for i in range(NUM_CONTEXTS):
        key = document.hashes[last, i]
        context = find_context(tables, i, key) if tables.is_used[i] else -1
        work.begins[0, i] = tables.begins[context] if context >= 0 else 0
        work.ends[0, i] = tables.begins[context + 1] if context >= 0 else 0
        first = MAX_RECENT * i
        count = steps = 0
        position = document.previous[last, i] if tables.is_used[i] else -1
        while position >= 0 and count < MAX_RECENT and steps < MAX_STEPS:
            if document.hashes[position, i] == key:
                rank = tables.tree.ranks[document.tokens[position + 1]]
                k = first + count
                while k > first and work.recent_ranks[k - 1] > rank:
                    work.recent_ranks[k], work.recent_ages[k] = work.recent_ranks[k - 1], work.recent_ages[k - 1]
                    k -= 1
                work.recent_ranks[k], work.recent_ages[k] = rank, count
                count += 1
            steps += 1
            position = document.previous[position, i]
        work.recent_begins[0, i] = first
        work.recent_ends[0, i] = first + count


@internal
def enter_left(work: Any, depth: Any) -> None:
    """Write the successors in the left child of the node at ``depth`` to the next row, which has the boundaries."""
    for i in range(NUM_CONTEXTS):
        work.ends[depth + 1, i] = work.begins[depth + 1, i]
        work.begins[depth + 1, i] = work.begins[depth, i]
        work.recent_ends[depth + 1, i] = work.recent_begins[depth + 1, i]
        work.recent_begins[depth + 1, i] = work.recent_begins[depth, i]


@internal
def enter_right(work: Any, depth: Any) -> None:
    """Write the successors in the right child of the node at ``depth`` to the next row, which has the left child's."""
    for i in range(NUM_CONTEXTS):
        work.begins[depth + 1, i] = work.ends[depth + 1, i]
        work.ends[depth + 1, i] = work.ends[depth, i]
        work.recent_begins[depth + 1, i] = work.recent_ends[depth + 1, i]
        work.recent_ends[depth + 1, i] = work.recent_ends[depth, i]


@internal
def corrected(tables: Any, maps: Any, document: Any, work: Any, depth: Any, node: Any, p: Any) -> Any:
    """Return a probability of the mixers as the adaptive probability maps correct it, if the model uses them."""
    if not tables.is_used[USES_REFINED]:
        return p
    tokens, length, ranks = document.tokens, document.counters[LENGTH], tables.tree.ranks
    last, before = max(ranks[tokens[length - 1]], 0), max(ranks[tokens[max(length - 2, 0)]], 0)
    return refine(maps, work, depth, node, last, before, p)


@internal
def score_token(
    tables: Any, maps: Any, mixers: Any, document: Any, work: Any, token: Any, rates: Any, trains_maps: Any
) -> Any:
    """Return the log-probability of the next token; then learn from it if the first of ``rates`` (2,) is positive.

    All decisions are predicted before any is learned from, as in ``write_logits``.
    """
    tree = tables.tree
    rank, node = tree.ranks[token], np.int64(0)
    probability, num_mixed = ONE, 0
    while node >= 0:
        bit = 1 if rank >= tree.middle[node] else 0
        p = tree.prior[node]
        if probability >= MIN_WALKED:
            depth = num_mixed
            write_inputs(tables, maps, document, work, depth, node)
            p = mix(mixers, work, depth, node)
            work.path[depth], work.chances[depth] = node, p
            p = corrected(tables, maps, document, work, depth, node, p)
            enter_left(work, depth)
            if bit:
                enter_right(work, depth)
            num_mixed += 1
        probability *= p if bit else ONE - p
        node = tree.right[node] if bit else tree.left[node]
    for depth in range(num_mixed):
        bit = 1 if rank >= tree.middle[work.path[depth]] else 0
        if rates[0] > 0:
            learn(mixers, work, depth, work.path[depth], bit, work.chances[depth], rates[0], rates[1])
        if trains_maps:
            adjust_maps(maps, work, depth, bit)
    return np.log(probability)


@compiled
def score_document(
    tables: Any,
    maps: Any,
    mixers: Any,
    document: Any,
    work: Any,
    ids: Any,
    rates: Any,
    adapts: Any,
    trains_maps: Any,
    skip_begin: Any,
    logprobs: Any,
) -> None:
    """Write the log-probability of each token of a new document after the first to ``logprobs``, (tokens - 1,).

    If it is a part of the training text, ``skip_begin`` is its position there, which it does not match.
    """
    skip_end = skip_begin + len(ids) if skip_begin >= 0 else skip_begin
    for t in range(len(ids) - 1):
        read_token(tables, document, np.int64(ids[t]), skip_begin, skip_end, adapts)
        find_successors(tables, document, work)
        logprobs[t] = score_token(tables, maps, mixers, document, work, np.int64(ids[t + 1]), rates, trains_maps)


@internal
def write_logits(tables: Any, maps: Any, mixers: Any, document: Any, work: Any, logits: Any) -> None:
    """Write the log-probability of each possible next token to ``logits``, by rank."""
    tree = tables.tree
    path, depth = work.path, 0
    visits = np.zeros(len(path), np.int64)
    chances = np.ones(len(path), np.float32)
    right_chances = np.ones(len(path), np.float32)
    path[0] = 0
    while depth >= 0:
        node, chance = path[depth], chances[depth]
        visits[depth] += 1
        if visits[depth] == 1:
            p = tree.prior[node]
            if chance >= MIN_WALKED:
                write_inputs(tables, maps, document, work, depth, node)
                p = corrected(tables, maps, document, work, depth, node, mix(mixers, work, depth, node))
                enter_left(work, depth)
            child, child_chance = tree.left[node], chance * (ONE - p)
            right_chances[depth] = chance * p
        elif visits[depth] == 2:
            if chance >= MIN_WALKED:
                enter_right(work, depth)
            child, child_chance = tree.right[node], right_chances[depth]
        else:
            depth -= 1
            continue
        if child < 0:
            logits[-1 - child] = np.log(child_chance)
        else:
            depth += 1
            path[depth], chances[depth], visits[depth] = child, child_chance, 0


@compiled
def read_tokens(
    tables: Any, maps: Any, mixers: Any, document: Any, work: Any, ids: Any, rates: Any, adapts: Any, logits: Any
) -> None:
    """Append tokens to the document, learn from each, and write the logits after the last ones to ``logits``.

    ``logits`` is (last tokens, ranks).
    """
    first = len(ids) - len(logits)
    for t in range(len(ids)):
        token = np.int64(ids[t])
        if adapts and document.counters[LENGTH] > 0 and tables.tree.ranks[token] >= 0:
            if t == 0:
                find_successors(tables, document, work)
            score_token(tables, maps, mixers, document, work, token, rates, False)
        read_token(tables, document, token, 0, 0, adapts)
        find_successors(tables, document, work)
        if t >= first:
            write_logits(tables, maps, mixers, document, work, logits[t - first])
