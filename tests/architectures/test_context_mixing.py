"""Tests of context mixing: probabilities, adaptation, and the equations that it claims to compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import revgen
from revgen.context_mixing.parts import PARTS
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax
from revgen.testing import check_model


def fitted(texts: list[str], name: str = "cm-char", epochs: int = 1, **options: Any) -> LanguageModel:
    model = revgen.create(name, **options)
    model.fit(texts, epochs=epochs, progress=False)
    return model


@pytest.fixture(scope="module")
def model(reviews: list[str]) -> LanguageModel:
    return fitted(reviews[:60])


def ids_of(model: LanguageModel, texts: list[str]) -> NDArray[Any]:
    """Return the ids of the starts of texts that are equally long, (time, texts)."""
    rows = [model.encode_prompt(text) for text in texts]
    length = min(map(len, rows))
    return np.array([row[:length] for row in rows]).T


@pytest.mark.parametrize("name", revgen.list_models("cm-*"))
def test_model_passes_the_checks(name: str) -> None:
    check_model(name)


@pytest.mark.parametrize("adapt", [True, False])
def test_probabilities_sum_to_one_at_every_position(adapt: bool, reviews: list[str]) -> None:
    model = fitted(reviews[:20], adapt=adapt)
    ids = ids_of(model, reviews[60:63])[:150]
    logits, _ = model.forward(ids, model.initial_state(3))
    assert np.exp(logits.astype(float)).sum(-1) == pytest.approx(1, abs=1e-5)
    assert (logits[..., model.tokenizer.bos_id] == -np.inf).all()


def test_score_is_the_product_of_the_probabilities_of_forward(model: LanguageModel, reviews: list[str]) -> None:
    text = reviews[61][:300]
    ids = ids_of(model, [text])
    logits, _ = model.forward(ids, model.initial_state(1))
    targets = np.append(ids[1:, 0], model.tokenizer.eos_id)
    expected = logits[np.arange(len(targets)), 0, targets]
    assert model.score(text).logprobs == pytest.approx(expected, abs=1e-4)


def test_later_tokens_never_change_earlier_logits(model: LanguageModel, reviews: list[str]) -> None:
    ids = ids_of(model, reviews[60:62])[:120]
    expected, _ = model.forward(ids, model.initial_state(2))
    for t in range(1, len(ids), 17):
        changed = ids.copy()
        changed[t:] = np.roll(ids[t:], 5, 0)
        logits, _ = model.forward(changed, model.initial_state(2))
        np.testing.assert_array_equal(logits[:t], expected[:t])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_reading_in_blocks_of_any_size_gives_the_same_logits(
    size: int, model: LanguageModel, reviews: list[str]
) -> None:
    ids = ids_of(model, reviews[60:62])[:130]
    expected, _ = model.forward(ids, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for begin in range(0, len(ids), size):
        logits, state = model.forward(ids[begin : begin + size], state)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)


def test_documents_do_not_affect_each_other(model: LanguageModel, reviews: list[str]) -> None:
    weights = {name: array.copy() for name, array in model.weights.items()}
    alone = model.score(reviews[60]).logprobs
    model.evaluate(reviews[60:70])
    model.generate(reviews[60][:50], n=3, max_tokens=20, seed=0)
    np.testing.assert_array_equal(model.score(reviews[60]).logprobs, alone)
    assert all((model.weights[name] == array).all() for name, array in weights.items())


@pytest.mark.parametrize("adapt", [True, False])
def test_long_document_grows_the_state(adapt: bool, reviews: list[str]) -> None:
    model = fitted(reviews[:60], adapt=adapt)
    text = " ".join(reviews[60:70])[:1500]
    ids = ids_of(model, [text])
    logits, state = model.forward(ids[:500], model.initial_state(1))
    for begin in range(500, len(ids), 500):
        logits, state = model.forward(ids[begin : begin + 500], state)
    expected, _ = model.next_logits(ids, model.initial_state(1))
    np.testing.assert_allclose(logits[-1], expected, atol=1e-4)


def test_joined_states_give_the_same_logits(model: LanguageModel, reviews: list[str]) -> None:
    long, short = (ids_of(model, [text]) for text in (" ".join(reviews[60:70])[:800], reviews[61][:60]))
    states = [model.forward(ids, model.initial_state(1))[1] for ids in (long, short)]
    following = np.array([[long[5, 0], short[5, 0]]])
    logits, _ = model.forward(following, model.join_states(states))
    for i, state in enumerate(states):
        expected, _ = model.forward(following[:, i : i + 1], state)
        np.testing.assert_allclose(logits[:, i : i + 1], expected, atol=1e-4)


def test_adaptation_predicts_a_repeated_text_better(model: LanguageModel, reviews: list[str]) -> None:
    frozen = fitted(reviews[:60], adapt=False)
    text = "zebra quilts vex jocks; " * 6

    def losses(model: LanguageModel) -> list[float]:
        """Return the loss of each repetition."""
        return [float(-part.sum()) for part in np.split(model.score(text).logprobs[:-1], 6)]

    adaptive = losses(model)
    assert adaptive[-1] < adaptive[0] / 4
    assert losses(frozen)[-1] > losses(frozen)[0] / 2
    assert model.evaluate(reviews[60:]).nats_per_char < frozen.evaluate(reviews[60:]).nats_per_char


def test_context_mixing_is_better_than_kneser_ney(model: LanguageModel, reviews: list[str]) -> None:
    counts = revgen.create("kneser-ney-char", order=10)
    counts.fit(reviews[:60], progress=False)
    assert model.evaluate(reviews[60:]).nats_per_char < counts.evaluate(reviews[60:]).nats_per_char - 0.05


def test_each_part_can_be_left_out(reviews: list[str]) -> None:
    only_order_2 = [part for part in PARTS if part != "order 2"]
    model = fitted(reviews[:30], without=only_order_2)
    full = fitted(reviews[:30])
    assert model.evaluate(reviews[60:80]).nats_per_char > full.evaluate(reviews[60:80]).nats_per_char
    invalid: Any
    for invalid in (["order 11"], 3, [{}]):
        with pytest.raises(revgen.OptionError, match="order 2, "):
            revgen.create("cm-char", without=invalid)


def test_max_bytes_leaves_out_documents(reviews: list[str]) -> None:
    full = fitted(reviews[:60])
    size = sum(array.nbytes for array in full.weights.values())
    smaller = fitted(reviews[:60], max_bytes=size - 10_000)
    assert sum(array.nbytes for array in smaller.weights.values()) <= size - 10_000
    assert np.isfinite(smaller.evaluate(reviews[60:65]).nats_per_char)
    with pytest.raises(revgen.OptionError, match="max_bytes must be at least"):
        fitted(reviews[:60], max_bytes=1000)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_loaded_model_is_equal(dtype: Any, model: LanguageModel, reviews: list[str], tmp_path: Path) -> None:
    loaded = revgen.load(model.save(tmp_path, dtype=dtype))
    expected = model.score(reviews[60]).logprobs
    if dtype == "float32":
        np.testing.assert_array_equal(loaded.score(reviews[60]).logprobs, expected)
    assert loaded.score(reviews[60]).logprobs == pytest.approx(expected, rel=0.02, abs=0.02)
    assert loaded.weights["text"].dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("text", lambda a: a + 100, "ids that are not in the vocabulary"),
        ("text", lambda a: a[1:], "does not consist of documents"),
        ("text", lambda a: a.astype(np.float32), "no list of token ids"),
        ("text", lambda a: np.zeros(0, np.uint8), "empty"),
        ("maps.match", lambda a: a[:, 1:], "has the shape"),
        ("mixers.weights", lambda a: a * np.inf, "not finite"),
        ("mixers.final", None, "missing"),
    ],
)
def test_invalid_weights_are_rejected(name: str, change: Any, message: str, model: LanguageModel) -> None:
    arrays = {key: array for key, array in model.weights.items() if key != name}
    if change is not None:
        with np.errstate(invalid="ignore"):
            arrays[name] = change(model.weights[name])
    problem = model.validate_weights(arrays)
    assert problem is not None and message in problem


def test_unknown_token_raises_index_error(model: LanguageModel) -> None:
    with pytest.raises(IndexError):
        model.forward(np.array([[0], [len(model.tokenizer)]]), model.initial_state(1))


def test_same_seed_trains_the_same_model(reviews: list[str]) -> None:
    assert fitted(reviews[:10]).fingerprint == fitted(reviews[:10]).fingerprint


@pytest.mark.parametrize(
    "text", ["春眠不覺曉,處處聞啼鳥。\n夜來風雨聲,花落知多少。", "L'été, à l'île: où étiez-vous?\n\t\u2028— Là."]
)
def test_any_script_is_read(text: str) -> None:
    model = fitted([text] * 4)
    assert model.score(text).total > -len(text)
    assert model.score("未知 ünknown").total > -np.inf


def test_plain_python_computes_the_same(tmp_path: Path) -> None:
    model = fitted(["the cat sat on the mat.", "the dog sat."] * 2)
    model.save(tmp_path)
    code = (
        "import sys\nsys.modules['numba'] = None\nimport numpy as np, revgen\n"
        f"model = revgen.load({str(tmp_path)!r})\nprint(model.score('the cat sat.').logprobs.tolist())\n"
        "model.fit(['the cat sat.'] * 2, epochs=1, progress=False)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(revgen.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=False, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(eval(result.stdout), model.score("the cat sat.").logprobs, atol=1e-4)


def test_mixture_with_context_mixing_sums_to_one(model: LanguageModel, reviews: list[str]) -> None:
    counts = revgen.create("kneser-ney-char", order=4, tokenizer=model.tokenizer)
    counts.fit(reviews[:60], progress=False)
    mixture = revgen.mix([model, counts])
    logits, _ = mixture.forward(ids_of(model, reviews[60:62])[:40], mixture.initial_state(2))
    assert np.exp(log_softmax(logits)).sum(-1) == pytest.approx(1, abs=1e-5)
    assert np.exp(logits).sum(-1) == pytest.approx(1, abs=1e-5)


def test_fit_points_out_that_lines_may_be_documents(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"name{i % 7}" for i in range(300)))
    model = revgen.create("cm-char")

    history = model.fit(tmp_path / "names.txt", epochs=1, progress=False)

    assert any('documents="line"' in note for note in history.notes)
