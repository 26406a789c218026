"""The session of a page: sampling with a seed, filters, alternatives, and going back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser_models import Engine, model_of, rounded
from chromium import new_browser
from toys import chars, probabilities

import revgen

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def engine(browser: Chrome, tmp_path: Path) -> Engine:
    """The engine of a word-level network."""
    return Engine(browser, model_of("elman", "word"), tmp_path)


def test_same_seed_gives_the_same_text_in_every_browser_session(engine: Engine, tmp_path: Path) -> None:
    text = engine.generate("the ", seed=7, max_tokens=200)

    with new_browser(tmp_path / "profile") as other:
        second = Engine(other, engine.model, tmp_path)

        assert second.generate("the ", seed=7, max_tokens=200) == text
    assert engine.generate("the ", seed=8, max_tokens=200) != text


def test_random_numbers_are_those_of_splitmix64(engine: Engine) -> None:
    # The outputs of Vigna's splitmix64.c for the seed 1234567, divided by 2^64.
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]

    numbers = engine.run("return [0n, 1n, 2n, 3n, 4n].map((i) => randomNumber(1234567n, i));")

    np.testing.assert_allclose(numbers, np.array(outputs, float) / 2.0**64, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 0},
        {"temperature": 1.5, "top_k": 5},
        {"top_k": 1},
        {"top_p": 0.9},
        {"temperature": 2.0, "top_p": 0.3, "min_p": 0.2},
        {"top_p": 1e-9},
        {"min_p": 0.1},
        {"temperature": 1e-40},
    ],
)
def test_filters_keep_the_tokens_that_python_keeps(engine: Engine, options: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).normal(0, 2, 40).astype(np.float32)
    logits[7:9] = logits[3], -5.0
    names = {"top_k": "topK", "top_p": "topP", "min_p": "minP"}

    p = engine.run(
        "return Array.from(filteredProbabilities(Float64Array.from(a), b));",
        logits.tolist(),
        {names.get(name, name): value for name, value in options.items()},
    )

    np.testing.assert_allclose(p, probabilities(logits[None], **options)[0], rtol=1e-5, atol=1e-7)


def test_tokens_are_sampled_with_their_probabilities(engine: Engine) -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])

    ids = engine.run(
        "return Array.from({ length: 20000 }, (_, i) => sample(a, randomNumber(3n, BigInt(i))));", p.tolist()
    )

    np.testing.assert_allclose(np.bincount(ids, minlength=4) / 20000, p, atol=0.02)


def test_token_reports_its_probability_and_alternatives(engine: Engine) -> None:
    model = engine.model
    token = engine.run("return model.start({ prompt: 'the ', seed: 1 }).next({ temperature: 2, topK: 3 });")

    logits, _ = model.next_logits(np.array([[0, *model.tokenizer.encode("the ").tolist()]]).T, model.initial_state(1))
    p = np.exp(logits[0] - logits[0].max())
    p /= p.sum()
    possible = np.delete(np.argsort(-p), np.isin(np.argsort(-p), model.suppressed_tokens))
    assert [alternative["id"] for alternative in token["alternatives"]] == possible[:8].tolist()
    for part in (token, *token["alternatives"]):
        assert part["probability"] == pytest.approx(p[part["id"]], rel=1e-4)
        assert part["text"] == model.tokenizer.decode([part["id"]])
    assert token["id"] in possible[:3]
    assert token["done"] is False


@pytest.mark.parametrize(
    ("architecture", "level", "prompt"), [("elman", "word", "the"), ("transformer", "subword", "the so")]
)
def test_text_that_goes_back_continues_as_before(
    browser: Chrome, tmp_path: Path, architecture: str, level: str, prompt: str
) -> None:
    engine = Engine(browser, model_of(architecture, level), tmp_path)

    lengths, same = engine.run(
        """model.suppressed.add(EOS);
           const session = model.start({ prompt: a, seed: 5 });
           for (let i = 0; i < 150; i++) session.next({ remaining: 150 });
           const text = session.text, tokens = session.tokens, results = [];
           for (const n of [150, 149, 130, 64, 3, 1, 0]) {
             session.rewind(n);
             results.push(session.tokens.length);
             while (session.tokens.length < tokens.length) session.next({ remaining: 150 });
             results.push(session.text === text);
           }
           return [results.filter((_, i) => i % 2 === 0), results.filter((_, i) => i % 2)];""",
        prompt,
    )

    assert lengths == [150, 149, 130, 64, 3, 1, 0]
    assert all(same)


@pytest.mark.parametrize(("level", "prompt"), [("word", "the "), ("subword", "the so")])
def test_alternative_replaces_the_last_token_and_changes_what_follows(
    browser: Chrome, tmp_path: Path, level: str, prompt: str
) -> None:
    engine = Engine(browser, model_of("elman", level), tmp_path)

    before, after, expected = engine.run(
        """const session = model.start({ prompt: a, seed: 5 });
           const first = session.next(), other = first.alternatives.find(({ id }) => id !== first.id);
           const chosen = session.choose(other.id);
           session.next();
           session.rewind(1);
           session.choose(chosen.id);
           const next = session.next();
           const { ids } = session.records[0];
           const [start] = model.trim(model.tokenizer.encode(a));
           const logits = model.logits([0, ...start, ...ids]).at(-1);
           return [other, chosen, [probabilitiesOf(logits, [next.id])[0], next.probability, session.text]];""",
        prompt,
    )

    assert after["id"] == before["id"]
    assert after["text"] == before["text"]
    assert after["probability"] == pytest.approx(before["probability"])
    assert expected[0] == pytest.approx(expected[1], rel=1e-4)
    assert expected[2].startswith(after["text"])


def test_document_ends_where_the_model_ends_it(browser: Chrome, tmp_path: Path) -> None:
    model = revgen.create("ngram-char", tokenizer=chars("abc"), order=3)
    model.fit(["abc"], progress=False)
    engine = Engine(browser, rounded(model), tmp_path)

    tokens, text, done, again = engine.run(
        """const session = model.start({ prompt: 'a', seed: 1 }), tokens = [];
           while (!session.done) tokens.push(session.next());
           return [tokens, session.text, session.done, session.next()];"""
    )

    assert [token["text"] for token in tokens] == ["b", "c", ""]
    assert (text, done) == ("bc", True)
    assert again == tokens[-1]
    assert again["done"] is True
