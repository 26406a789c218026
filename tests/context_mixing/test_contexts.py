"""Tests of the contexts of words."""

from __future__ import annotations

import numpy as np
import pytest

from revgen.context_mixing.code_tree import case_folded, token_classes
from revgen.context_mixing.contexts import new_document, write_all_contexts
from revgen.context_mixing.parts import CONTEXTS, NUM_CONTEXTS

VOCABULARY = ("<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyzT .\n")


def contexts_after(text: str) -> dict[str, int]:
    """Return the hash of each context at the end of a text, by name."""
    ids = np.array([0, *(VOCABULARY.index(character) for character in text)])
    hashes = np.zeros((len(ids), NUM_CONTEXTS), np.uint32)
    with np.errstate(over="ignore"):
        write_all_contexts(new_document(len(ids)), ids, token_classes(VOCABULARY), case_folded(VOCABULARY), hashes)
    return dict(zip(CONTEXTS, hashes[-1].tolist(), strict=True))


@pytest.mark.parametrize(
    ("context", "text", "equal", "different"),
    [
        ("stem before and word", "she walked ho", "then walking ho", "she talked ho"),
        ("ending before and word", "she walked ho", "then talked ho", "she walking ho"),
        ("2 stems and word", "she walked home on", "one walking homes on", "she talked home on"),
        ("1 word and 2 tokens", "the song of so", "that of also", "the song to so"),
        ("start of sentence and word", "one. then he sang to", "two two. then it to", "one. now he sang to"),
        ("long word before and word", "a guitar is on a", "my guitar of the a", "a drum is on a"),
        ("long word, ending before and word", "guitar king a", "guitar sing a", "guitar kind a"),
        ("2 tokens and classes", "abcd fghij", "xyzw klmij", "abcd fghik"),
        ("word", "the Tune", "a tune", "the tunes"),
    ],
)
def test_context_is_equal_only_if_its_parts_are(context: str, text: str, equal: str, different: str) -> None:
    hashes = [contexts_after(text)[context] for text in (text, equal, different)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_ending_of_a_short_word_is_the_word() -> None:
    assert contexts_after("to go")["ending before and word"] != contexts_after("so go")["ending before and word"]
    assert contexts_after("to go")["ending before and word"] == contexts_after("a to go")["ending before and word"]
