"""The names of the parts of context mixing: contexts, other inputs, and mixers."""

from __future__ import annotations

import numpy as np

ORDERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24)
"""The numbers of last tokens that are contexts."""
CONTEXTS = (
    *(f"order {order}" for order in ORDERS),
    *("word", "1 word and word", "2 words and word", "word before and word", "3 words and word"),
    *("third word before and word", "punctuation and word", "1 word and length", "2 words and length"),
    *("skip 1, 2 tokens", "skip 1, 3 tokens", "skip the second, 2 tokens", "skip the second, 3 tokens"),
    *("skip the third, 4 tokens", "column", "start of line", "classes", "classes and word"),
    *("stem before and word", "ending before and word", "2 stems and word", "1 word and 2 tokens"),
    *("start of sentence and word", "long word before and word", "long word, ending before and word"),
    "2 tokens and classes",
)
"""The contexts, in the order of ``contexts.write_contexts``. "Word" is the part of the current word that is read, a
stem is the first four letters of a word, and an ending its last three."""
SELECTORS = (
    *("by match", "by known order", "by decision", "by classes", "by document"),
    *("by last token", "by length of word", "by token before"),
)
"""The small contexts that select the weights of the mixers, in the order of ``mixing.write_inputs``."""
PARTS = (*CONTEXTS, "match", "document", "interpolated", "refined", *SELECTORS)
"""All parts that a model can do without.

"Match" is the longest match in the training text, "document" the counts and the longest match in the document,
"interpolated" an estimate from all orders, and "refined" the maps of ``refining``.
"""
TOKEN_BITS = np.uint64(32)
"""The bits of a token in a number that joins the hash of a context and a token."""
NUM_ORDERS, NUM_CONTEXTS = len(ORDERS), len(CONTEXTS)
USES_MATCH, USES_DOCUMENT, USES_INTERPOLATED, USES_REFINED = (
    PARTS.index(name) for name in ("match", "document", "interpolated", "refined")
)
FIRST_SELECTOR = PARTS.index(SELECTORS[0])
