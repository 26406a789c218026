"""A binary code for the tokens, so that a token is predicted as a sequence of binary decisions.

The code is Huffman's, so a frequent token takes few decisions. (Huffman 1952, *A method for the construction of
minimum-redundancy codes*.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.tokenizers import Tokenizer

OTHER, LETTER, DIGIT, SPACE, LINE_END, SENTENCE_END, PAUSE = range(7)
"""The classes of tokens. A token is in the class of its first character."""


class CodeTree(NamedTuple):
    """A binary tree whose leaves are the tokens. Node 0 is the root, and frequent nodes have small numbers.

    ``ranks`` (vocab,) numbers the leaves from left to right; it is -1 for the start token, which has no leaf. ``left``
    and ``right`` (nodes,) are the children of a node: the number of a node, or -1 - rank for a leaf. The leaves of a
    node are ``low`` to ``high`` - 1, and those of its right child begin at ``middle``. ``prior`` is the probability of
    the right child by frequency.
    """

    ranks: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    low: NDArray[np.int64]
    middle: NDArray[np.int64]
    high: NDArray[np.int64]
    prior: NDArray[np.float32]


def build_code_tree(counts: NDArray[np.integer[Any]]) -> CodeTree:
    """Build Huffman's code from the number of occurrences of each token, (vocab,). Every token counts once more."""
    heap: list[tuple[int, int, Any]] = [
        (int(count) + 1, token, token) for token, count in enumerate(counts) if token != Tokenizer.bos_id
    ]
    heapq.heapify(heap)
    for number in range(len(counts), 2 * len(counts) - 2):  # the number breaks ties, so the code is reproducible
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (first[0] + second[0], number, (first, second)))

    ranks = np.full(len(counts), -1)
    nodes: list[list[Any]] = []
    weights: list[int] = []
    num_ranks = 0

    def add(item: tuple[int, int, Any]) -> int:
        """Number the leaves below a node from left to right; return the node, or -1 - rank of a leaf."""
        nonlocal num_ranks
        weight, _, content = item
        if isinstance(content, int):
            ranks[content] = num_ranks
            num_ranks += 1
            return -num_ranks
        node = len(nodes)
        nodes.append([0, 0, num_ranks, 0, 0, content[1][0] / weight])
        weights.append(weight)
        nodes[node][0] = add(content[0])
        nodes[node][3] = num_ranks
        nodes[node][1] = add(content[1])
        nodes[node][4] = num_ranks
        return node

    add(heap[0])
    order = np.argsort(-np.array(weights), kind="stable")
    new_numbers = np.argsort(order)
    columns = [np.array(column)[order] for column in zip(*nodes, strict=True)]
    children = [np.where(column >= 0, new_numbers[np.maximum(column, 0)], column) for column in columns[:2]]
    left, right, low, middle, high = [column.astype(np.int64) for column in (*children, *columns[2:5])]
    return CodeTree(ranks, left, right, low, middle, high, columns[5].astype(np.float32))


def tree_depth(tree: CodeTree) -> int:
    """Return the largest number of decisions for one token."""
    depths = np.ones(len(tree.left), np.int64)
    for node in np.argsort(tree.low - tree.high):  # parents first
        for child in (tree.left[node], tree.right[node]):
            if child >= 0:
                depths[child] = depths[node] + 1
    return int(depths.max())


def token_classes(vocabulary: Sequence[str]) -> NDArray[np.int64]:
    """Return the class of each token, (vocab,)."""
    return np.array([_token_class(token) if i > Tokenizer.unk_id else OTHER for i, token in enumerate(vocabulary)])


def case_folded(vocabulary: Sequence[str]) -> NDArray[np.uint64]:
    """Return a number for each token, (vocab,), that is equal for tokens that differ only in case."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(token.casefold(), len(numbers)) for token in vocabulary], np.uint64)


def _token_class(token: str) -> int:
    first = token[:1]
    if first in "\n\r":
        return LINE_END
    classes = ((str.isalpha, LETTER), (str.isdecimal, DIGIT), (str.isspace, SPACE))
    if matches := [number for is_member, number in classes if is_member(first)]:
        return matches[0]
    if first in ".!?…。！？":
        return SENTENCE_END
    return PAUSE if first in ",;:，；：、" else OTHER
