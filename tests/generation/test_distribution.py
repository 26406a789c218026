"""The probabilities that tokens are sampled with: each option compared with its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from toys import Floats, chi_square, probabilities, softmax

from revgen.generation.sampler import sample

BATCH, VOCAB = 40, 60


@pytest.fixture
def logits() -> Floats:
    return np.random.default_rng(0).normal(0, 3, (BATCH, VOCAB)).astype(np.float32)


def test_without_options_tokens_are_sampled_by_softmax(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits), softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 0.8, 1.0, 1.7, 10.0])
def test_temperature_divides_the_logits(logits: Floats, temperature: float) -> None:
    p = probabilities(logits, temperature=temperature)

    np.testing.assert_allclose(p, softmax(logits / temperature), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-3, 1e-30, 1e-50, 5e-324])
def test_temperatures_at_or_near_zero_take_the_most_likely_token(logits: Floats, temperature: float) -> None:
    p = probabilities(logits, temperature=temperature)

    assert (p.argmax(-1) == logits.argmax(-1)).all()
    np.testing.assert_allclose(p.max(-1), 1, atol=1e-4)


def test_a_very_high_temperature_makes_all_tokens_equally_likely(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits, temperature=1e6), 1 / VOCAB, rtol=1e-3)


def test_a_higher_temperature_has_a_higher_entropy(logits: Floats) -> None:
    def entropy(temperature: float) -> Floats:
        p = probabilities(logits, temperature=temperature).astype(np.float64)
        bits: Floats = -(p * np.log2(p + 1e-300)).sum(-1)
        return bits

    steps = [entropy(temperature) for temperature in (0.2, 0.5, 1.0, 1.5, 3.0)]

    assert all((higher > lower).all() for lower, higher in pairwise(steps))


@pytest.mark.parametrize("k", [1, 2, 7, VOCAB - 1, VOCAB, VOCAB + 1, 10**9])
def test_top_k_keeps_the_k_most_likely_tokens(logits: Floats, k: int) -> None:
    p = probabilities(logits, top_k=k)

    for row, kept in zip(softmax(logits), p, strict=True):
        most_likely = np.argsort(-row)[:k]
        assert set(np.flatnonzero(kept)) == set(most_likely)
        np.testing.assert_allclose(kept[most_likely], row[most_likely] / row[most_likely].sum(), rtol=1e-4)


@pytest.mark.parametrize("threshold", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_with_that_probability(logits: Floats, threshold: float) -> None:
    p = probabilities(logits, top_p=threshold)

    for row, kept in zip(softmax(logits), p, strict=True):
        inside = np.flatnonzero(kept)
        assert row[inside].sum() >= threshold - 1e-6
        assert row[inside].sum() - row[inside].min() < threshold + 1e-6, "it is the smallest such set"
        assert row[inside].min() > np.delete(row, inside).max(initial=0)
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


def test_top_p_of_one_keeps_every_token(logits: Floats) -> None:
    np.testing.assert_allclose(probabilities(logits, top_p=1), softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.3, 1.0])
def test_min_p_keeps_tokens_by_their_ratio_to_the_most_likely(logits: Floats, threshold: float) -> None:
    p = probabilities(logits, min_p=threshold)

    for row, kept in zip(softmax(logits), p, strict=True):
        inside = row >= threshold * row.max() * (1 - 1e-6)
        assert ((kept > 0) == inside).all()
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


@pytest.mark.parametrize("threshold", [1e-9, 0.2, 0.5, 0.9, 0.999])
def test_typical_p_keeps_the_smallest_set_of_typical_tokens(logits: Floats, threshold: float) -> None:
    p = probabilities(logits, typical_p=threshold)

    for row, kept in zip(softmax(logits), p, strict=True):
        deviation = np.abs(-np.log(row) + (row * np.log(row)).sum())
        inside = np.flatnonzero(kept)
        assert row[inside].sum() >= threshold - 1e-6
        assert row[inside].sum() - row[inside[deviation[inside].argmax()]] < threshold + 1e-6
        assert deviation[inside].max() < np.delete(deviation, inside).min(initial=np.inf) + 1e-4
        np.testing.assert_allclose(kept[inside], row[inside] / row[inside].sum(), rtol=1e-4)


def test_typical_p_may_exclude_the_most_likely_token() -> None:
    p = np.array([[0.4, 0.12, 0.12, 0.12, 0.12, 0.12]])

    kept = probabilities(np.log(p), typical_p=0.5)

    assert kept[0, 0] == 0
    np.testing.assert_allclose(kept.sum(), 1)


@pytest.mark.parametrize("penalty", [-1.0, 0.5, 2.0])
def test_the_presence_penalty_is_subtracted_once(logits: Floats, penalty: float) -> None:
    counts = np.random.default_rng(1).integers(0, 4, (BATCH, VOCAB))

    p = probabilities(logits, counts, presence_penalty=penalty)

    np.testing.assert_allclose(p, softmax(logits - penalty * (counts > 0)), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("penalty", [-1.0, 0.5, 2.0])
def test_the_frequency_penalty_is_subtracted_for_each_occurrence(logits: Floats, penalty: float) -> None:
    counts = np.random.default_rng(1).integers(0, 4, (BATCH, VOCAB))

    p = probabilities(logits, counts, frequency_penalty=penalty)

    np.testing.assert_allclose(p, softmax(logits - penalty * counts), rtol=1e-3, atol=1e-9)


def test_a_schedule_gives_each_row_the_temperature_of_its_position(logits: Floats) -> None:
    schedule = [0.5, 0, 2.0]
    positions = np.arange(BATCH)

    p = probabilities(logits, positions=positions, temperature=schedule, top_k=9)

    for position, row, given in zip(positions.tolist(), logits, p, strict=True):
        alone = probabilities(row[None], temperature=schedule[position % 3], top_k=9)[0]
        np.testing.assert_allclose(given, alone, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 5.0])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_the_repetition_penalty_makes_tokens_of_the_text_less_likely(
    logits: Floats, penalty: float, temperature: float
) -> None:
    seen = np.random.default_rng(1).random((BATCH, VOCAB)) < 0.3
    changed = logits.copy()
    changed[seen & (logits > 0)] /= penalty
    changed[seen & (logits <= 0)] *= penalty

    p = probabilities(logits, seen, repetition_penalty=penalty, temperature=temperature)

    np.testing.assert_allclose(p, probabilities(changed, temperature=temperature), rtol=1e-4, atol=1e-9)


def test_options_apply_in_their_documented_order(logits: Floats) -> None:
    seen = np.random.default_rng(1).random((BATCH, VOCAB)) < 0.3
    counts = seen * 3
    options = {"temperature": 0.8, "top_k": 25, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8}

    p = probabilities(logits, counts, repetition_penalty=1.2, frequency_penalty=0.1, **options)

    for row, seen_row, given in zip(logits.astype(np.float64), seen, p, strict=True):
        row[seen_row] = np.where(row > 0, row / 1.2, row * 1.2)[seen_row] - 3 * 0.1
        expected = softmax(row / 0.8)
        expected[np.argsort(-expected)[25:]] = 0
        expected /= expected.sum()
        order = np.argsort(-expected)
        before = np.cumsum(expected[order]) - expected[order]
        expected[order[before >= 0.9]] = 0
        expected[expected < 0.02 * expected.max()] = 0
        expected /= expected.sum()
        surprise = -np.log(np.where(expected > 0, expected, 1e-300))
        order = np.argsort(np.abs(surprise - (expected * surprise).sum()))
        before = np.cumsum(expected[order]) - expected[order]
        expected[order[before >= 0.8]] = 0
        np.testing.assert_allclose(given, expected / expected.sum(), rtol=1e-3, atol=1e-9)


def test_filters_do_not_change_the_logits_in_place(logits: Floats) -> None:
    before = logits.copy()

    everything = {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5}
    penalties = {"repetition_penalty": 2.0, "frequency_penalty": 1.0}
    for options in ({}, everything | penalties, {"temperature": 0}, {"top_p": 0.5}):
        probabilities(logits, np.ones((BATCH, VOCAB)), **options)

    assert (logits == before).all()


def test_samples_follow_the_probabilities() -> None:
    count = 50_000
    p = np.random.default_rng(0).dirichlet(np.ones(10)).astype(np.float32)

    sampled = sample(np.tile(p, (count, 1)), np.random.default_rng(1).random(count))

    # 9 degrees of freedom: above 33.7 by chance only once in 10,000 times
    assert chi_square(np.bincount(sampled, minlength=10), p.astype(np.float64) * count) < 33.7


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, 1 - 2**-53])
def test_a_token_without_probability_is_never_sampled(uniform: float) -> None:
    p = np.array([[0, 0, 1, 0], [0, 0.5, 0.5, 0], [0.1, 0.2, 0.7, 0]], np.float32)

    sampled = sample(p, np.full(3, uniform))

    assert (p[np.arange(3), sampled] > 0).all()
