"""Tests of textgenrnn: its causal attention average, and labels in Python, corpora and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.architectures import textgenrnn
from revgen.architectures.textgenrnn import attend
from revgen.corpus.tokens import tokenize
from revgen.language_model import LanguageModel
from revgen.networks.functional import unflatten
from revgen.networks.network import network_forward
from revgen.registry import tokenizers
from revgen.testing import check_model

SEA = ["the sea and the sand. ", "a song of the sea, the sand. "]
CITY = ["drums beat in the city. ", "big city drums, big beat. "]
TEXTS = SEA * 20 + CITY * 20
LABELS = ["sea"] * 40 + ["city"] * 40
SMALL: dict[str, Any] = {"hidden_size": 24, "embedding_size": 16}


@pytest.fixture(scope="module")
def labeled() -> LanguageModel:
    """Return a small model that was fitted with two labels; tests must not change it."""
    model = revgen.create("textgenrnn-char", **SMALL)
    model.fit(TEXTS, labels=LABELS, epochs=20, batch_size=4, sequence_length=40, progress=False)
    return model


@pytest.mark.parametrize("level", tokenizers.names())
def test_textgenrnn_passes_check_model_at_every_level(level: str) -> None:
    check_model(f"textgenrnn-{level}", hidden_size=8, embedding_size=8)


# The average


def reference(w: Any, x: Any, begins: Any) -> Any:
    """Compute the average by its definition: x (time, features), begins (time,)."""
    rows, first = [], 0
    for t in range(len(x)):
        first = t if begins[t] else first
        weights = np.exp(x[first : t + 1] @ w)
        rows.append((weights[:, None] * x[first : t + 1]).sum(0) / weights.sum())
    return np.array(rows)


def random_inputs(time: int = 60, batch: int = 3, features: int = 5, scale: float = 1.0) -> tuple[Any, Any, Any, Any]:
    random = np.random.default_rng(0)
    p = unflatten({"attention": (random.normal(size=features) * scale).astype(np.float32)})
    x = random.normal(size=(time, batch, features)).astype(np.float32)
    begins = random.random((time, batch)) < 0.1
    past = np.zeros((batch, features), np.float32), np.full(batch, -np.inf, np.float32)
    return p, x, begins, past


def test_average_equals_its_definition() -> None:
    p, x, begins, past = random_inputs()

    averages, _ = attend(p, x, begins, *past)

    for row in range(x.shape[1]):
        wanted = reference(p.attention.astype(float), x[:, row].astype(float), begins[:, row])
        np.testing.assert_allclose(averages[:, row], wanted, atol=1e-5)


@pytest.mark.parametrize("boundaries", [[1], [7, 8], list(range(1, 60))], ids=str)
def test_average_continues_from_the_state_wherever_the_text_is_cut(boundaries: list[int]) -> None:
    p, x, begins, past = random_inputs()
    whole, _ = attend(p, x, begins, *past)

    parts = []
    for part, some in zip(np.split(x, boundaries), np.split(begins, boundaries), strict=True):
        average, past = attend(p, part, some, *past)
        parts.append(average)

    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    p, x, begins, past = random_inputs(time=200, scale=300.0)

    averages, (_, weight) = attend(p, x, begins, *past)

    assert np.isfinite(averages).all() and np.isfinite(weight).all()
    assert (np.abs(averages).max((1, 2)) > 0.1).all()
    assert averages.dtype == np.float32


def test_gradients_of_the_average_are_finite_and_not_zero() -> None:
    p, x, begins, past = random_inputs()
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in (*vars(p).items(), ("x", x))}

    averages, (_, weight) = attend(unflatten(tensors), tensors["x"], torch.tensor(begins), *map(torch.tensor, past))
    (averages.square().sum() + weight.sum()).backward()

    for name, tensor in tensors.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


def test_prediction_does_not_depend_on_later_tokens(labeled: LanguageModel) -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(3, len(labeled.tokenizer), (40, 2))
    other = tokens.copy()
    other[25:] = 3

    logits, _ = labeled.forward(tokens, labeled.initial_state(2))
    others, _ = labeled.forward(other, labeled.initial_state(2))

    np.testing.assert_array_equal(logits[:25], others[:25])


def test_numpy_and_torch_agree_token_by_token_and_in_blocks(
    labeled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.random.default_rng(0).integers(0, 3 * len(labeled.tokenizer), (50, 3))  # with labels
    expected, _ = network_forward(labeled.network)(tokens, None)  # type: ignore[attr-defined]

    state, rows = labeled.initial_state(3), []
    for step in tokens[:, None]:
        logits, state = labeled.forward(step, state)
        rows.append(logits)
    monkeypatch.setattr(textgenrnn, "ATTENTION_BLOCK_SIZE", 7)
    blocks, _ = labeled.forward(tokens, labeled.initial_state(3))

    np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-4)
    np.testing.assert_allclose(blocks, expected, atol=1e-4)
    assert blocks.dtype == np.float32


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_size", 0),
        ("num_layers", 1.5),
        ("embedding_size", -1),
        ("dropout", 1),
        ("labels", "ab"),
        ("labels", [1.5]),
    ],
)
def test_error_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(revgen.OptionError, match=f"^{option} must be "):
        revgen.create("textgenrnn-char", **{option: value})


# Labels


def test_each_label_gives_its_own_texts(labeled: LanguageModel) -> None:
    def counts(label: str | None) -> tuple[int, int]:
        text = " ".join(labeled.generate("", n=50, seed=0, max_tokens=30, label=label))
        return text.count("sea"), text.count("drums")

    sea, city, either = counts("sea"), counts("city"), counts(None)

    assert sea[0] > 30 > 10 * sea[1]
    assert city[1] > 30 > 10 * city[0]
    assert min(either) > 3


def test_label_makes_its_texts_more_likely(labeled: LanguageModel) -> None:
    for text, label, other in ((SEA[0], "sea", "city"), (CITY[0], "city", "sea")):
        assert labeled.score(text, label=label).total > labeled.score(text, label=other).total + 1
    given = labeled.evaluate(TEXTS, labels=LABELS)
    plain = labeled.evaluate(TEXTS)
    assert given.nats_per_char < plain.nats_per_char
    assert (given.characters, given.tokens, given.unknown) == (plain.characters, plain.tokens, 0)
    one = labeled.evaluate([SEA[0]], labels=["sea"])
    assert one.nats_per_char == pytest.approx(-labeled.score(SEA[0], label="sea").total / len(SEA[0]), abs=1e-5)


def test_labels_are_saved_streamed_and_loaded_back(labeled: LanguageModel, tmp_path: Path) -> None:
    loaded = revgen.load(labeled.save(tmp_path / "model"))

    assert loaded.labels == labeled.labels == ("city", "sea")
    assert loaded.config == labeled.config
    text = labeled.generate("the ", label="sea", seed=1, max_tokens=30)
    assert loaded.generate("the ", label="sea", seed=1, max_tokens=30) == text
    assert "the " + "".join(loaded.stream("the ", label="sea", seed=1, max_tokens=30)) == text


@pytest.mark.parametrize("call", [LanguageModel.generate, LanguageModel.stream, LanguageModel.score])
def test_error_for_an_unknown_label_lists_the_labels(labeled: LanguageModel, call: Any) -> None:
    with pytest.raises(
        revgen.OptionError, match=r"label must be one of the labels of the training text \(city, sea\), not 'see'"
    ):
        call(labeled, "a", label="see")
    with pytest.raises(revgen.OptionError, match=r"city, sea.*not 'see'"):
        labeled.evaluate(["a"], labels=["see"])


def test_labels_raise_for_other_architectures(small_model: LanguageModel) -> None:
    for call in (
        lambda: small_model.generate("a", label="x"),
        lambda: small_model.stream("a", label="x"),
        lambda: small_model.score("a", label="x"),
        lambda: small_model.evaluate(["a"], labels=["x"]),
        lambda: revgen.create("gru-char").fit(TEXTS, labels=LABELS),
        lambda: revgen.create("ngram-char").fit(TEXTS, labels=LABELS),
    ):
        with pytest.raises(revgen.OptionError, match=r"-char cannot be conditioned on labels"):
            call()


def test_other_architectures_ignore_the_labels_of_a_corpus() -> None:
    corpus = revgen.read(TEXTS, labels=LABELS)
    tokenizer = revgen.create("kneser-ney-char").tokenizer_for(corpus)

    assert (tokenize(corpus, tokenizer).ids == tokenize(revgen.read(TEXTS), tokenizer).ids).all()


def test_model_fitted_without_labels_has_none() -> None:
    model = revgen.create("textgenrnn-char", **SMALL)
    model.fit(TEXTS[:10], epochs=1, progress=False)

    assert model.labels == ()
    with pytest.raises(revgen.OptionError, match=r"\(none\)"):
        model.generate(label="sea")


def test_fine_tuning_adds_labels_and_keeps_the_others(labeled: LanguageModel, tmp_path: Path) -> None:
    model = revgen.load(labeled.save(tmp_path / "model"))

    model.fit(SEA * 4 + CITY, labels=["sea"] * 8 + ["a town"] * 2, epochs=1, progress=False)

    assert model.labels == ("city", "sea", "a town")
    assert model.weights["labels"].shape == (4, 16)
    assert isinstance(model.generate(label="a town", max_tokens=5), str)
    model.fit(SEA * 4, epochs=1, progress=False)
    assert model.labels == ("city", "sea", "a town")


def test_training_with_labels_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    options: dict[str, Any] = {"labels": LABELS, "valid": 0.2, "progress": False, "sequence_length": 20}
    whole, broken, resumed = (revgen.create("textgenrnn-char", **SMALL) for _ in range(3))
    whole.fit(TEXTS, epochs=2, **options)

    def die(model: LanguageModel, epoch: revgen.EpochMetrics) -> None:
        if epoch.epoch == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken.fit(TEXTS, epochs=2, checkpoint=tmp_path, callbacks=[die], **options)
    resumed.fit(TEXTS, epochs=2, checkpoint=tmp_path, resume=True, **options)

    assert resumed.labels == whole.labels
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], value)


# The command line


def test_command_fits_with_labels_and_generates_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from revgen.cli import main

    corpus = tmp_path / "corpus.jsonl"
    rows = zip(TEXTS, LABELS, strict=True)
    corpus.write_text("".join(json.dumps({"text": text, "topic": label}) + "\n" for text, label in rows))
    model = str(tmp_path / "model")
    small = ["--set", "hidden_size=16", "--set", "embedding_size=8", "--epochs", "1"]

    assert main(["fit", "textgenrnn-char", str(corpus), "--labels", "topic", *small, "--out", model]) == 0
    assert main(["evaluate", model, str(corpus), "--labels", "topic"]) == 0
    capsys.readouterr()
    assert main(["generate", model, "--label", "sea", "--seed", "1", "--max-tokens", "10"]) == 0
    given = capsys.readouterr().out.removesuffix("\n")
    assert given == revgen.load(model).generate(label="sea", seed=1, max_tokens=10)
    assert main(["generate", model, "--label", "moon"]) == 2
    assert "(city, sea), not 'moon'" in capsys.readouterr().err


def test_integer_labels_can_be_given_as_strings() -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(["good film", "bad film"] * 20, labels=[1, 0] * 20, epochs=1, progress=False)
    label: Any
    for label in (1, np.int64(1)):
        assert model.generate("", label=label, seed=1) == model.generate("", label="1", seed=1)
        assert model.score("good", label=label).total == model.score("good", label="1").total
    with pytest.raises(revgen.OptionError, match="label must be one of the labels of the training text"):
        model.generate("", label=2)
