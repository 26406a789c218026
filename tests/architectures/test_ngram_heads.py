"""N-gram heads find the token after the last earlier occurrence, within the document and the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.typing import NDArray
from reading import check_joined_states, read_in_blocks

import revgen
from revgen.card import make_card
from revgen.networks import ngram_heads
from revgen.networks.functional import unflatten
from revgen.networks.ngram_heads import NgramStack
from revgen.networks.stack import RecurrentConfig
from revgen.ops import log_softmax
from revgen.tokenizers import CharTokenizer, Tokenizer

LENGTHS = 1, 2, 4
BOS = Tokenizer.bos_id


def find(ids: list[int], n: int, context: int) -> list[int]:
    """Return for each position 1 plus the token after the last earlier occurrence of its last n tokens, or 0."""
    found, start = [], 0
    for t, token in enumerate(ids):
        start = t if token == BOS else start
        for s in range(t - 1, max(start, t - context) - 1, -1):
            if s - n + 1 >= 0 and ids[s - n + 1 : s + 1] == ids[t - n + 1 : t + 1]:
                found.append(ids[s + 1] + 1)
                break
        else:
            found.append(0)
    return found


@given(ids=st.lists(st.sampled_from([BOS, 3, 3, 4, 4, 5]), min_size=1, max_size=300), context=st.integers(1, 150))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_heads_find_the_token_after_the_last_occurrence(
    library: str, ids: list[int], context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram_heads, "CONTEXT", context)
    stack = NgramStack("gru", RecurrentConfig(8, ngram_heads=LENGTHS), vocab=6)
    text = np.concatenate([np.zeros((1, stack.num_recent), np.int64), np.array([ids]) + 1], 1)

    found = stack.look_up(text if library == "numpy" else torch.from_numpy(text))

    for length, tokens in zip(LENGTHS, found, strict=True):
        assert np.asarray(tokens)[:, 0].tolist() == find(ids, length, context)


@pytest.fixture(scope="module")
def model() -> Any:
    """Return a model with noise on all weights."""
    tokenizer = CharTokenizer.train(["abcdefgh " * 3])
    model: Any = revgen.create("lstm-char", tokenizer=tokenizer, hidden_size=8, ngram_heads=LENGTHS)
    model.prepare(tokenizer, seed=1)
    rng = np.random.default_rng(0)
    model.weights = {n: (a + rng.normal(0, 0.3, a.shape)).astype(np.float32) for n, a in model.weights.items()}
    return model


def random_ids(model: Any, time: int, batch: int) -> NDArray[np.int64]:
    ids = np.random.default_rng(2).integers(BOS, len(model.tokenizer), (time, batch))
    return np.concatenate([np.full((1, batch), BOS), ids])


def test_ids_may_have_a_small_type() -> None:
    definition = NgramStack("gru", RecurrentConfig(4, ngram_heads=(1,)), vocab=256)
    rng = np.random.default_rng(0)
    p = unflatten({name: rng.normal(size=shape) for name, shape in definition.param_shapes().items()})
    ids = np.array([[255], [3], [255]])
    logits = [
        definition.forward(p, ids.astype(dtype), definition.initial_state(1, np.zeros))[0]
        for dtype in (np.int64, np.uint8)
    ]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("size", [1, 7, 130])
def test_a_text_is_read_in_blocks_as_at_once(model: Any, size: int) -> None:
    ids = random_ids(model, 400, 3)

    np.testing.assert_allclose(read_in_blocks(model, ids, size), read_in_blocks(model, ids, len(ids)), atol=1e-5)


def test_documents_of_different_lengths_are_continued_together(model: Any) -> None:
    check_joined_states(model, random_ids(model, 100, 2), atol=1e-5)


def test_a_document_does_not_depend_on_the_one_before(model: Any) -> None:
    first, second = random_ids(model, 20, 1), random_ids(model, 50, 1)
    text = np.concatenate([first, second]).T + 1
    recent = np.zeros((1, model.definition.num_recent), np.int64)

    after = [found[len(first) :] for found in model.definition.look_up(np.concatenate([recent, text], 1))]
    alone = model.definition.look_up(np.concatenate([recent, second.T + 1], 1))

    np.testing.assert_array_equal(after, alone)


def test_the_distribution_is_causal(model: Any) -> None:
    ids = random_ids(model, 60, 1)
    changed = ids.copy()
    changed[40:] = BOS + 1

    logits, other = (read_in_blocks(model, tokens, len(ids)) for tokens in (ids, changed))

    np.testing.assert_array_equal(logits[:40], other[:40])
    np.testing.assert_allclose(np.exp(log_softmax(logits)).sum(-1), 1, rtol=1e-5)


def repetitions(seed: int, count: int) -> list[str]:
    """Return documents in which a random word occurs three times."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice([*"abcdefghijklmnop"], 8)) for _ in range(count)]
    return [f"{word}, {word} and {word}." for word in words]


def test_a_network_with_heads_repeats_a_word_that_it_has_never_seen() -> None:
    options: dict[str, Any] = {"hidden_size": 32, "num_layers": 1}
    plain = revgen.create("lstm-char", **options)
    model = revgen.create("lstm-char", ngram_heads=(1, 2, 3), **options)
    for network in (plain, model):
        network.fit(repetitions(0, 400), epochs=4, progress=False)

    losses = [network.evaluate(repetitions(1, 50)).nats_per_char for network in (model, plain)]

    assert losses[0] < 0.75 * losses[1]
    assert model.generate("pkgbalon, pkgb", max_tokens=4, temperature=0) == "pkgbalon, pkgbalon"


def test_a_saved_model_predicts_the_same_and_learns_new_characters(tmp_path: Path) -> None:
    model = revgen.create("gru-word", hidden_size=8, ngram_heads=[1, 2])
    model.fit(["the cat saw the cat. " * 5], epochs=1, progress=False)
    model.save(tmp_path)
    loaded: Any = revgen.load(tmp_path)

    assert loaded.config.ngram_heads == (1, 2)
    assert loaded.info()["config"]["ngram_heads"] == [1, 2]
    assert loaded.evaluate(["the cat saw the dog"]) == model.evaluate(["the cat saw the dog"])

    card = make_card(loaded)

    assert "| `heads.{0,1}.embedding` |" in card
    assert "heads.0.embedding[f_0]" in card and "r, u = sigmoid(" in card

    vocab = len(loaded.tokenizer)
    loaded.fit(["the dog saw the dog. " * 5], epochs=1, extend_vocabulary=True, progress=False)

    assert len(loaded.tokenizer) > vocab
    assert loaded.weights["heads.1.embedding"].shape == (1 + len(loaded.tokenizer), 8)
