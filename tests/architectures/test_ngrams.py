"""Tests of the n-gram models: probabilities computed by hand, definitions, pruning and damaged files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

import revgen
from revgen.architectures.kneser_ney import continuation_counts, discounts
from revgen.architectures.ngram import validate_trie
from revgen.ngrams import count
from revgen.testing import check_model
from revgen.tokenizers import CharTokenizer
from revgen.tokenizers.hex_fallback import DIGIT_TOKENS

TOY = ["abab", "abc"]


def fitted(name: str, texts: list[str], **options: Any) -> revgen.LanguageModel:
    model = revgen.create(name, tokenizer={"min_count": 1}, **options)
    model.fit(texts, progress=False)
    return model


def distribution(model: revgen.LanguageModel, text: str) -> dict[str, float]:
    """Return the probability of each token except digits after a text."""
    ids = np.array(model.encode_prompt(text))[:, None]
    logits, _ = model.forward(ids, model.initial_state(1))
    p = dict(zip(model.tokenizer.vocabulary, np.exp(logits[-1, 0]).tolist(), strict=True))
    return {token: p[token] for token in p if token not in DIGIT_TOKENS}


@pytest.mark.parametrize("name", revgen.list_models(["ngram-*", "kneser-ney-*"]))
def test_ngram_models_pass_check_model(name: str) -> None:
    check_model(name, order=4)


def test_maximum_likelihood_is_the_relative_frequency() -> None:
    model = fitted("ngram-char", TOY, order=2)
    assert distribution(model, "b") == pytest.approx(
        {"a": 1 / 3, "c": 1 / 3, "</s>": 1 / 3, "<s>": 0, "<unk>": 0, "b": 0}
    )
    assert model.score("abc").total == pytest.approx(math.log(1 * 1 * (1 / 3) * 1))
    assert model.evaluate(["ca"]).nats_per_char == math.inf


@pytest.mark.parametrize(("unseen", "ends"), [("end", 1.0), ("back_off", 0.0)])
def test_unseen_context_ends_the_text_or_backs_off(unseen: str, ends: float) -> None:
    model = fitted("ngram-char", TOY, order=3, unseen=unseen)
    assert distribution(model, "cb")["</s>"] == pytest.approx(max(ends, 1 / 3))


def test_continuation_counts_equal_a_count_by_hand() -> None:
    # Documents <s> a b a b </s> and <s> a b c </s>, as ids: <s> 0, </s> 1, a 3, b 4, c 5.
    orders = count([np.array([0, 3, 4, 3, 4, 1]), np.array([0, 3, 4, 5, 1])], vocab=6, order=3)
    bigrams = {
        (int(c), int(w)): int(n) for c, w, n in zip(orders[1].contexts, orders[1].words, orders[1].counts, strict=True)
    }
    assert bigrams == {(0, 3): 2, (3, 4): 3, (4, 1): 1, (4, 3): 1, (4, 5): 1, (5, 1): 1}
    low, middle, high = continuation_counts(orders)
    assert low.tolist() == [0, 2, 0, 2, 1, 1]  # </s> follows b and c; a follows <s> and b; b a; c b
    # "<s> a" starts documents and keeps its count 2; <s> and b precede "a b"; one word precedes each of the others.
    assert middle.tolist() == [2, 2, 1, 1, 1, 1]
    assert high.sum() == sum(orders[2].counts)


def test_discounts_equal_the_formula() -> None:
    counts = np.repeat([1, 2, 3, 4, 5], [10, 6, 3, 2, 7])
    y = 10 / (10 + 2 * 6)
    expected = [0, 1 - 2 * y * 6 / 10, 2 - 3 * y * 3 / 6, 3 - 4 * y * 2 / 3]
    assert discounts(counts) == pytest.approx(expected)


@pytest.mark.parametrize(
    "counts",
    [
        np.repeat([1, 2, 3, 4], [10, 6, 3, 9]),  # the discount of 3 is below 0
        np.repeat([1, 2, 3, 4], [10, 2, 20, 5]),  # the discount of 2 is below 0
        np.repeat([1, 2, 3], [10, 6, 3]),  # no n-gram has the count 4
        np.repeat([1, 2, 4], [10, 6, 3]),
    ],
)
def test_discounts_out_of_range_use_the_fallback(counts: NDArray[np.int64]) -> None:
    assert discounts(counts).tolist() == [0, 0.5, 1, 1.5]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_smoothed_model_gives_every_text_a_probability(data: st.DataObject) -> None:
    alphabet = data.draw(st.sampled_from(["ab", "acgt", "abcd", "0123456789", "ab é中"]))
    texts = data.draw(st.lists(st.text(alphabet, min_size=1, max_size=30), min_size=1, max_size=40))
    order = data.draw(st.integers(1, 6))
    limits: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"min_gain": 0.0}, {"min_gain": 1.0}, {"max_bytes": 1_500}])
    )
    model = fitted("kneser-ney-char", texts, order=order, **limits)

    for text in data.draw(st.lists(st.text(alphabet + "xé漢", max_size=12), max_size=5)):
        assert np.isfinite(model.score(text).logprobs).all()
        logits, _ = model.forward(np.array([model.encode_prompt(text)]).T, model.initial_state(1))
        p = np.exp(logits[:, 0].astype(np.float64))
        assert (p[:, 1:] > 0).all()
        assert p.sum(-1) == pytest.approx(np.ones(len(p)), abs=1e-4)


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_text_without_structure_has_a_finite_likelihood(level: str) -> None:
    random = np.random.default_rng(0)
    numbers = [f"+49 {random.integers(100, 999)} {random.integers(10**6, 10**7)}" for _ in range(2_000)]
    model = revgen.create(f"kneser-ney-{level}", order=5)
    model.fit(numbers[:1_800], progress=False)

    assert model.evaluate(numbers[1_800:]).nats_per_char < 2.5
    assert np.isfinite(model.evaluate(["ACGTTGCA", "中文"]).nats_per_char)


def test_probability_equals_a_computation_by_hand() -> None:
    # The text is too small for counts of counts, so the discounts are 1/2, 1 and 3/2.
    p = distribution(fitted("kneser-ney-char", TOY, order=2), "b")
    # Order 1, from the number of different words before: </s> 2, a 2, b 1, c 1 of 6. Discounts of 1 + 1 + 1/2 + 1/2 =
    # 3 go to the uniform distribution over the 5 tokens and 32 digits that can be predicted.
    order_1 = {
        "</s>": 1 / 6 + 0.5 / 37,
        "a": 1 / 6 + 0.5 / 37,
        "b": 0.5 / 6 + 0.5 / 37,
        "c": 0.5 / 6 + 0.5 / 37,
        "<unk>": 0.5 / 37,
    }
    # </s>, a and c follow b once each: the discount of each is 1/2.
    expected = {w: (0.5 / 3 if w in ("</s>", "a", "c") else 0) + 0.5 * q for w, q in order_1.items()} | {"<s>": 0}
    assert p == pytest.approx(expected)


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 100_000}, {"min_gain": 0.5}])
def test_probabilities_after_every_context_sum_to_1(reviews: list[str], limits: dict[str, float]) -> None:
    model = fitted("kneser-ney-char", reviews, order=6, **limits)
    trie = model.trie  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    for depth in range(1, 6):
        indices = np.arange(len(trie.words[depth]))
        for index in random.permutation(indices)[:2000]:
            assert trie.distribution(depth, int(index)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("max_bytes", [None, 50_000])
def test_score_equals_the_sum_over_steps(reviews: list[str], max_bytes: int | None) -> None:
    model = fitted("kneser-ney-char", reviews[:100], order=5, max_bytes=max_bytes)
    for text in (reviews[120], "zzz qqq", "", "the"):
        ids = np.array([*model.encode_prompt(text), model.tokenizer.eos_id])
        logits, _ = model.forward(ids[:-1, None], model.initial_state(1))
        assert model.score(text).logprobs == pytest.approx(logits[np.arange(len(ids) - 1), 0, ids[1:]], abs=1e-4)


def test_higher_order_memorizes_the_text_and_smoothing_helps_on_new_text(reviews: list[str]) -> None:
    train, held_out = reviews[:140], reviews[140:]
    losses, scores = [], []
    for order in (2, 4, 8):
        model = revgen.create("kneser-ney-char", order=order)
        history = model.fit(train, valid=held_out, progress=False)
        losses.append(history[0].train_loss)
        assert history[0].nats_per_char is not None
        scores.append(history[0].nats_per_char)
    assert losses[0] > losses[1] > losses[2]
    assert scores[1] < scores[0]


def test_pruned_model_fits_into_max_bytes_and_keeps_the_best_ngrams(reviews: list[str], tmp_path: Path) -> None:
    train, held_out = reviews[:140], reviews[140:]
    scores: list[float] = []
    for max_bytes in (10_000, 40_000, 160_000, None):
        model = revgen.create("kneser-ney-char", order=6, max_bytes=max_bytes)
        history = model.fit(train, valid=held_out, progress=False)
        assert history[0].train_loss == pytest.approx(-np.concatenate([model.score(t).logprobs for t in train]).mean())
        assert max_bytes is None or 0.95 * max_bytes < sum(a.nbytes for a in model.weights.values()) <= max_bytes
        again = revgen.load(model.save(tmp_path / str(max_bytes)))
        assert again.generate("the ", seed=1) == model.generate("the ", seed=1)
        scores.append(again.evaluate(held_out).nats_per_char)
    assert scores == sorted(scores, reverse=True)


def test_pruned_ngram_is_predicted_by_the_shorter_one() -> None:
    whole, pruned = (fitted("kneser-ney-char", TOY, order=3, min_gain=gain) for gain in (None, 1e9))
    assert [len(pruned.weights[f"{n}.logp"]) for n in (1, 2, 3)] == [len(whole.weights["1.logp"]), 0, 0]
    assert distribution(pruned, "ab") == pytest.approx(distribution(pruned, ""))


def test_max_bytes_below_order_1_raises() -> None:
    with pytest.raises(revgen.OptionError, match="max_bytes must be at least 468 for 38 tokens"):
        fitted("kneser-ney-char", TOY, order=3, max_bytes=50)


@pytest.mark.parametrize("level", ["char", "word"])
def test_second_fit_drops_old_counts_and_can_extend_the_vocabulary(level: str) -> None:
    model = fitted(f"kneser-ney-{level}", ["abab abc"] * 3, order=3)
    size = len(model.tokenizer)
    greek = ["αβγ αβγ", "γβα αβγ"]

    model.fit(greek, progress=False)
    assert len(model.tokenizer) == size
    spelled = model.evaluate(greek)
    assert spelled.unknown == 12

    model.fit(greek, extend_vocabulary=True, progress=False)
    assert model.evaluate(greek).unknown == 0
    assert model.evaluate(greek).nats_per_char < spelled.nats_per_char
    assert model.score("abab").total > -100


def test_text_shorter_than_the_order_can_be_scored() -> None:
    model = fitted("kneser-ney-char", ["ab"], order=10)
    assert model.score("abab").total < model.score("ab").total < 0


def test_sample_of_high_order_is_copied_from_the_text(reviews: list[str]) -> None:
    text = fitted("ngram-char", reviews, order=15).generate("", seed=3, max_tokens=60)
    assert any(text in review for review in reviews)


def test_text_ends_if_only_an_unknown_character_followed() -> None:
    old = CharTokenizer(["<s>", "</s>", "<unk>", " ", "a", "b"])  # without digits
    model = revgen.create("ngram-char", order=4, tokenizer=old)
    model.fit(["aabbZ", "ab bba"], progress=False)
    assert model.generate("aabb", seed=1) == "aabb"


@pytest.mark.parametrize("order", [0, 21, 2.5, True])
def test_order_out_of_range_raises(order: Any) -> None:
    with pytest.raises(revgen.OptionError, match="order"):
        revgen.create("kneser-ney-char", order=order)


def test_invalid_arrays_raise(tmp_path: Path) -> None:
    model = fitted("kneser-ney-char", TOY, order=3)
    arrays = load_file(model.save(tmp_path) / "model.safetensors")
    vocab = len(model.tokenizer)
    assert validate_trie(arrays, vocab, 3) is None
    assert "4.logp" in str(validate_trie({**arrays, "4.logp": arrays["3.logp"]}, vocab, 3))
    for name, array in arrays.items():
        others = {key: value for key, value in arrays.items() if key != name}
        assert name in str(validate_trie(others, vocab, 3))
        assert validate_trie({**others, name: array[:-1]}, vocab, 3)
        assert name in str(validate_trie({**others, name: array.astype(np.int64)}, vocab, 3))
        if array.dtype.kind == "u":
            assert validate_trie({**others, name: array + 1000}, vocab, 3)
        else:
            assert name in str(validate_trie({**others, name: array * np.nan}, vocab, 3))


@pytest.mark.parametrize("unseen", [np.array(["end", "back_off"]), ["end"], None])
def test_unseen_must_be_one_of_two_strings(unseen: Any) -> None:
    with pytest.raises(revgen.OptionError, match=r"^unseen must be"):
        revgen.create("ngram-char", unseen=unseen)
