"""The contexts in which tokens are counted, each as a hash of 32 bits.

A context is a part of the text before a token: its last n tokens, the current word and the words before it, tokens with
a gap, or the position in the line. Two positions with equal contexts are likely to continue alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.context_mixing.code_tree import LETTER, LINE_END, SENTENCE_END, SPACE
from revgen.context_mixing.compiling import compiled, internal
from revgen.context_mixing.parts import NUM_CONTEXTS, ORDERS

MAX_ORDER = ORDERS[-1]
_ORDERS = np.array(ORDERS)

WORD, WORD_1, WORD_2, WORD_3, LINE_START, CLASSES = range(6)
STEM, STEM_1, STEM_2, ENDING_1, LONG_WORD, FIRST_WORD, NUM_HASHES = range(6, 13)
"""The indices of ``Document.rolling``: hashes of the current word, the three words before it, the first tokens of the
line, and the classes of the last tokens. Then the stems of the current word and of the two words before it, the ending
of the word before, the last long word, and the first word of the sentence."""
STEM_SIZE, ENDING_SIZE, MIN_LONG_WORD = 4, 3, 5
"""The numbers of tokens of a stem and of an ending, and of the shortest long word."""
LENGTH, COLUMN, INDENT, WORD_LENGTH, PUNCTUATION, NUM_COUNTERS = range(6)
MATCH, MATCH_LENGTH, RECENT, RECENT_LENGTH = range(NUM_COUNTERS, NUM_COUNTERS + 4)
"""The indices of ``Document.counters``: the number of tokens read, the column and the indentation of the line, the
length of the word, and the last token that is no letter and no space. Then the token of the training text, and the
token of the document, that continue the longest match, and the lengths of these matches."""
CLASS_BITS = np.uint64(3)
CLASS_MASK = np.uint64((1 << 36) - 1)
LINE_START_SIZE = 3


class Document(NamedTuple):
    """The part of a document that was read. In a state, each array has a first axis for the documents of a batch.

    ``hashes`` (capacity, contexts) are the contexts after each of the ``tokens`` (capacity,). ``heads`` (slots,
    contexts) is the last position in each slot of a hash table, and ``previous`` (capacity, contexts) the position
    before it in the same slot, or -1.
    """

    tokens: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    previous: NDArray[np.int32]
    heads: NDArray[np.int32]
    rolling: NDArray[np.uint64]
    counters: NDArray[np.int64]


def new_document(capacity: int, batch: tuple[int, ...] = ()) -> Document:
    """Return empty documents for this number of tokens."""
    slots = 1 << max(4, (capacity - 1).bit_length() - 1)
    return Document(
        np.zeros((*batch, capacity), np.int64),
        np.zeros((*batch, capacity, NUM_CONTEXTS), np.uint32),
        np.zeros((*batch, capacity, NUM_CONTEXTS), np.int32),
        np.full((*batch, slots, NUM_CONTEXTS), -1, np.int32),
        np.zeros((*batch, NUM_HASHES), np.uint64),
        np.zeros((*batch, RECENT_LENGTH + 1), np.int64),
    )


@internal
def combine(key: Any, value: Any) -> Any:
    """Return a hash of 64 bits of a hash and a number."""
    key = np.uint64(key)
    return (key + np.uint64(value) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key >> np.uint64(31)


@internal
def finish(key: Any, number: Any) -> Any:
    """Return a hash of 32 bits of a hash and the number of a context. Its highest bits are well mixed too."""
    key = combine(key, np.uint64(number) + np.uint64(1000))
    key = (key ^ key >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    return np.uint32((key ^ key >> np.uint64(29)) >> np.uint64(32))


@internal
def hash_last(tokens: Any, end: Any, count: Any) -> Any:
    """Return a hash of the last ``count`` of ``end`` tokens."""
    key = np.uint64(0)
    for k in range(1, count + 1):
        key = combine(key, tokens[end - k])
    return key


@internal
def end_word(document: Any, folded: Any) -> None:
    """Move the current word, which the last token ended, to the words before."""
    counters, rolling = document.counters, document.rolling
    last = counters[LENGTH] - 2
    ending = np.uint64(0)
    for k in range(min(ENDING_SIZE, counters[WORD_LENGTH])):
        ending = combine(ending, folded[document.tokens[last - k]])
    if counters[WORD_LENGTH] >= MIN_LONG_WORD:
        rolling[LONG_WORD] = rolling[WORD]
    if rolling[FIRST_WORD] == np.uint64(0):
        rolling[FIRST_WORD] = rolling[WORD]
    rolling[WORD_3], rolling[WORD_2], rolling[WORD_1] = rolling[WORD_2], rolling[WORD_1], rolling[WORD]
    rolling[STEM_2], rolling[STEM_1], rolling[ENDING_1] = rolling[STEM_1], rolling[STEM], ending
    rolling[WORD] = rolling[STEM] = np.uint64(0)
    counters[WORD_LENGTH] = 0


@internal
def append(document: Any, token: Any, classes: Any, folded: Any) -> None:
    """Append a token to the document, and update the values that ``write_contexts`` needs."""
    counters, rolling = document.counters, document.rolling
    document.tokens[counters[LENGTH]] = token
    counters[LENGTH] += 1
    kind = classes[token]
    if kind == LETTER:
        rolling[WORD] = combine(rolling[WORD], folded[token])
        counters[WORD_LENGTH] += 1
        if counters[WORD_LENGTH] <= STEM_SIZE:
            rolling[STEM] = combine(rolling[STEM], folded[token])
    else:
        if rolling[WORD] != np.uint64(0):
            end_word(document, folded)
        if kind != SPACE:
            counters[PUNCTUATION] = token
        if kind in (SENTENCE_END, LINE_END):
            rolling[FIRST_WORD] = np.uint64(0)
    if kind == LINE_END:
        counters[COLUMN] = counters[INDENT] = 0
        rolling[LINE_START] = np.uint64(0)
    else:
        if kind == SPACE and counters[INDENT] == counters[COLUMN]:
            counters[INDENT] += 1
        counters[COLUMN] += 1
        if counters[COLUMN] <= LINE_START_SIZE:
            rolling[LINE_START] = combine(rolling[LINE_START], token)
    rolling[CLASSES] = (rolling[CLASSES] << CLASS_BITS | np.uint64(kind)) & CLASS_MASK


@internal
def write_contexts(document: Any, classes: Any, out: Any) -> None:
    """Write the hashes of all contexts after the last token of the document to ``out``, (contexts,)."""
    tokens, counters, rolling = document.tokens, document.counters, document.rolling
    length = counters[LENGTH]
    key = np.uint64(0)
    i = 0
    for k in range(MAX_ORDER + 1):
        if 0 < k <= length:
            key = combine(key, tokens[length - k])
        if k == _ORDERS[i]:
            out[i] = finish(key, i)
            i += 1

    c1 = tokens[length - 1]
    c2 = tokens[max(length - 2, 0)]
    c3 = tokens[max(length - 3, 0)]
    c4 = tokens[max(length - 4, 0)]
    c5 = tokens[max(length - 5, 0)]
    w1, w2, w3 = rolling[WORD_1], rolling[WORD_2], rolling[WORD_3]
    word = combine(rolling[WORD], np.int64(0) if classes[c1] == LETTER else c1)
    word_1 = combine(word, w1)
    size = combine(c1, counters[WORD_LENGTH])
    by_stem, by_long_word = combine(word, rolling[STEM_1]), combine(word, rolling[LONG_WORD])
    keys = (
        word,
        word_1,
        combine(word_1, w2),
        combine(word, w2),
        combine(combine(word_1, w2), w3),
        combine(word_1, w3),
        combine(word, counters[PUNCTUATION]),
        combine(w1, size),
        combine(combine(w1, w2), size),
        combine(c2, c3),
        combine(combine(c2, c3), c4),
        combine(c1, c3),
        combine(combine(c1, c3), c4),
        combine(combine(combine(c1, c2), c4), c5),
        combine(min(counters[COLUMN], 255), c1),
        combine(combine(combine(rolling[LINE_START], counters[INDENT]), c1), c2),
        rolling[CLASSES],
        combine(rolling[CLASSES] & np.uint64(0x7FFF), word),
        by_stem,
        combine(word, rolling[ENDING_1]),
        combine(by_stem, rolling[STEM_2]),
        combine(combine(w1, c1), c2),
        combine(word, rolling[FIRST_WORD]),
        by_long_word,
        combine(by_long_word, rolling[ENDING_1]),
        combine(combine(rolling[CLASSES] & np.uint64(0xFFFFFF), c1), c2),
    )
    for key in keys:
        out[i] = finish(key, i)
        i += 1


@internal
def link(document: Any, position: Any) -> None:
    """Add a position to the hash table of the document."""
    mask = np.uint32(document.heads.shape[0] - 1)
    for i in range(NUM_CONTEXTS):
        slot = document.hashes[position, i] & mask
        document.previous[position, i] = document.heads[slot, i]
        document.heads[slot, i] = position


@compiled
def relink(document: Any) -> None:
    """Fill the hash table of the document, which is empty."""
    for position in range(document.counters[LENGTH]):
        link(document, position)


@compiled
def write_all_contexts(document: Any, ids: Any, classes: Any, folded: Any, out: Any) -> None:
    """Read a document, and write the contexts after each of its tokens to ``out`` (tokens, contexts)."""
    for t in range(len(ids)):
        append(document, np.int64(ids[t]), classes, folded)
        write_contexts(document, classes, out[t])
