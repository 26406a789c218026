"""Documents held out for validation: they are not cut, and each part of the split has text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import revgen
from revgen import CorpusError
from revgen.corpus.tokens import tokenize
from revgen.tokenizers import CharTokenizer

CHARS = CharTokenizer.train(["aaa"])


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9, 0.99])
@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 500), min_size=2, max_size=40), seed=st.integers(0, 9))
def test_documents_are_not_cut_if_there_are_at_least_two(sizes: list[int], fraction: float, seed: int) -> None:
    tokens = tokenize(revgen.read(["a" * size for size in sizes]), CHARS)

    train, valid = tokens.split(fraction, seed)

    assert len(train.spans) >= 1 and len(valid.spans) >= 1
    assert sorted([*train.spans.tolist(), *valid.spans.tolist()]) == tokens.spans.tolist()


@pytest.mark.parametrize("texts", [["a"], ["a", ""], ["ab"]])
def test_a_split_without_characters_is_an_error_with_advice(texts: list[str]) -> None:
    model = revgen.create("kneser-ney-char", order=2)

    with pytest.raises(CorpusError, match=r"no character to (train|validate) on.*give more text.*valid=None"):
        model.fit(texts, valid=0.1, progress=False)


def test_a_model_learns_to_end_documents_when_some_are_held_out() -> None:
    names = ["Abelisaurus", "Allosaurus", "Anzu", "Mei", "Minmi", "Khaan", "Haya", "Proa", "Aorun", "Almas"]
    long_text = "M:6/8 K:Cmin E D C E G A | A G F D B, G | " * 40
    for texts in ([*names * 12, long_text], names * 2, names[:2] * 5):
        end_probabilities = []
        for valid in (None, 0.1):
            model = revgen.create("kneser-ney-char", order=4)
            model.fit(texts, valid=valid, progress=False)
            end_probabilities.append(np.mean([np.exp(model.score(name).logprobs[-1]) for name in names[:2]]))
        assert end_probabilities[1] > 0.5 * end_probabilities[0]
