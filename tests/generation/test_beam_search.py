"""Beam search, compared with a search through all texts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from toys import Table, alphabet, chars, table

import revgen
from revgen import LanguageModel, Tokenizer
from revgen.generation import decoding
from revgen.generation.beam import BeamSearch

LENGTH = 4


@pytest.fixture
def model() -> Table:
    """A model of three letters."""
    tokenizer = chars("abc")
    return table(tokenizer, np.random.default_rng(5).normal(0, 1.5, (len(tokenizer), len(tokenizer))))


def all_texts(model: Table) -> dict[str, tuple[float, int]]:
    """The log-probability, and how many tokens it takes, of each text of at most LENGTH tokens."""
    tokenizer = model.tokenizer
    logits = model.table.astype(float)
    logits[:, [tokenizer.bos_id, tokenizer.unk_id]] = -np.inf
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = {}
    for size in range(LENGTH + 1):
        for letters in itertools.product("abc", repeat=size):
            text = "".join(letters)
            ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist()]
            ids += [tokenizer.eos_id] * (size < LENGTH)
            found[text] = (sum(logp[a, b] for a, b in itertools.pairwise(ids)), len(ids) - 1)
    return found


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.7, 1.0, 3.0])
def test_enough_beams_find_the_most_likely_texts(model: Table, penalty: float) -> None:
    texts = all_texts(model)
    best = sorted(texts, key=lambda text: -texts[text][0] / texts[text][1] ** penalty)

    found = model.generate("", n=6, num_beams=200, length_penalty=penalty, max_tokens=LENGTH)

    assert found == best[:6]


def test_beams_that_would_take_too_much_memory_are_an_error(model: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(revgen.OptionError, match="max_tokens must be at most 1,024 with these beams, not 1025"):
        model.generate("", num_beams=4096, max_tokens=1025)

    monkeypatch.setattr(decoding, "MAX_BATCH_BYTES", 100 * (32 * len(model.tokenizer) + 8))
    with pytest.raises(revgen.OptionError, match=r"num_beams must be at most \d+: more would take too much memory"):
        model.generate("", num_beams=200, max_tokens=2)


def test_only_the_best_complete_texts_are_kept(model: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    extend = BeamSearch.extend

    def record(self: BeamSearch, logits: Any) -> list[int]:
        parents = extend(self, logits)
        sizes.append(len(self.complete))
        return parents

    monkeypatch.setattr(BeamSearch, "extend", record)
    model.generate("", n=2, num_beams=50, max_tokens=30, length_penalty=-5)

    assert max(sizes) == 2


def test_one_beam_is_greedy_decoding(small_model: LanguageModel) -> None:
    greedy = small_model.generate("the ", temperature=0, max_tokens=40)

    assert small_model.generate("the ", num_beams=1, max_tokens=40, length_penalty=0) == greedy


def test_more_beams_find_more_likely_texts(small_model: LanguageModel) -> None:
    options: dict[str, Any] = {"max_tokens": 25, "length_penalty": 0, "banned_tokens": [Tokenizer.eos_id]}
    texts = [small_model.generate("this ", num_beams=beams, **options) for beams in (1, 8)]

    one, eight = (small_model.score(text).logprobs[:-1].sum() for text in texts)
    assert eight >= one


def test_a_high_length_penalty_gives_longer_texts(model: Table) -> None:
    model.table[:, model.tokenizer.eos_id] += 2

    lengths = [len(model.generate("", num_beams=30, length_penalty=p, max_tokens=12)) for p in (-1.0, 0.0, 1.0, 2.0)]

    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_beams_are_different_texts_the_best_first_whatever_the_seed(small_model: LanguageModel) -> None:
    texts = small_model.generate("the ", n=4, num_beams=4, max_tokens=20)

    assert len(set(texts)) == len(texts) == 4
    assert texts == small_model.generate("the ", n=4, num_beams=4, max_tokens=20, seed=7)
    assert texts[0] == small_model.generate("the ", num_beams=4, max_tokens=20)
    assert "the " + "".join(small_model.stream("the ", num_beams=4, max_tokens=20)) == texts[0]
    assert small_model.generate(["the ", "a"], n=4, num_beams=4, max_tokens=20)[0] == texts


def test_beam_search_returns_fewer_texts_if_there_are_no_more(model: Table) -> None:
    assert sorted(model.generate("", n=5, num_beams=5, regex="a|bc")) == ["a", "bc"]
    assert model.generate("ab", n=2, num_beams=2, max_tokens=0) == ["ab"]


def test_stop_strings_and_penalties_apply_to_beams() -> None:
    writer = alphabet()

    assert writer.generate("a", num_beams=3, max_tokens=10, stop=["gh", "de"], length_penalty=0) == "abc"
    assert writer.generate("a", num_beams=3, max_tokens=9, stop="de", min_tokens=4, length_penalty=0) == "abcdefghij"
    assert writer.generate("a", num_beams=2, max_tokens=3, banned_tokens=["c"], length_penalty=0)[:2] == "ab"
    assert writer.generate("a", num_beams=2, max_tokens=3, forced_tokens={1: "x"}, length_penalty=0) == "abxy"
    flat = table(chars("abc"), np.array([0, -5, 0, 3, 2, 1]))
    assert flat.generate("", num_beams=4, max_tokens=3, repetition_penalty=50, length_penalty=0) == "abc"


@pytest.mark.parametrize("name", ["transformer-char", "gru-word", "kneser-ney-subword"])
def test_every_kind_of_model_supports_beam_search(name: str, reviews: list[str]) -> None:
    options: dict[str, Any] = {} if "kneser" in name else {"hidden_size": 16, "num_layers": 1}
    model = revgen.create(name, tokenizer={"vocab_size": 400} if "char" not in name else None, **options)
    epochs: dict[str, Any] = {"epochs": 1} if options else {}
    model.fit(reviews[:30], progress=False, **epochs)

    texts = model.generate("the ", n=3, num_beams=3, max_tokens=12)

    assert all(text.startswith("the ") for text in texts) and len(set(texts)) == len(texts)
