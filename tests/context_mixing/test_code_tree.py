"""Tests of the binary code for tokens."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from revgen.context_mixing.code_tree import (
    DIGIT,
    LETTER,
    LINE_END,
    OTHER,
    PAUSE,
    SENTENCE_END,
    SPACE,
    CodeTree,
    build_code_tree,
    case_folded,
    token_classes,
    tree_depth,
)


def code_length(tree: CodeTree, rank: int) -> int:
    """Follow the path to a leaf, check the ranges of its nodes, and return the number of decisions."""
    node, length = 0, 0
    while node >= 0:
        assert tree.low[node] <= rank < tree.high[node]
        node = int(tree.right[node] if rank >= tree.middle[node] else tree.left[node])
        length += 1
    assert node == -1 - rank
    return length


@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=60))
def test_every_token_but_the_start_has_a_leaf(counts: list[int]) -> None:
    tree = build_code_tree(np.array(counts))
    assert tree.ranks[0] == -1
    assert sorted(tree.ranks[1:].tolist()) == list(range(len(counts) - 1))
    lengths = [code_length(tree, rank) for rank in tree.ranks[1:].tolist()]
    assert tree_depth(tree) == max(lengths)
    assert sum(2.0**-length for length in lengths) == 1
    sizes = tree.high - tree.low
    assert sizes[0] == len(counts) - 1
    assert ((tree.prior > 0) & (tree.prior < 1)).all()


def test_mean_code_length_is_within_one_decision_of_the_entropy() -> None:
    counts = np.random.default_rng(0).zipf(1.3, 200).clip(max=10**6)
    tree = build_code_tree(counts)
    p = (counts[1:] + 1) / (counts[1:] + 1).sum()
    mean = sum(p[i] * code_length(tree, int(rank)) for i, rank in enumerate(tree.ranks[1:]))
    entropy = -sum(q * math.log2(q) for q in p)
    assert entropy <= mean < entropy + 1


def test_tokens_have_the_class_of_their_first_character() -> None:
    vocabulary = ["<s>", "</s>", "<unk>", "a", "été", "7", " ", "\n\n", ".", "。", ",", "(", "春"]
    expected = [
        OTHER,
        OTHER,
        OTHER,
        LETTER,
        LETTER,
        DIGIT,
        SPACE,
        LINE_END,
        SENTENCE_END,
        SENTENCE_END,
        PAUSE,
        OTHER,
        LETTER,
    ]
    assert token_classes(vocabulary).tolist() == expected
    folded = case_folded([*vocabulary, "A"])
    assert folded[-1] == folded[3] and len({*folded.tolist()}) == len(vocabulary)
