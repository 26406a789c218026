"""textgenrnn: the causal attention average, held equal to its definition, and context labels through every door."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.architectures import textgenrnn
from revgen.architectures.textgenrnn import attend
from revgen.corpus.batches import Batches
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
def labelled() -> LanguageModel:
    """A little model that was fitted with two labels; tests must leave it as it is."""
    model = revgen.create("textgenrnn-char", **SMALL)
    model.fit(TEXTS, labels=LABELS, epochs=20, batch_size=4, sequence_length=40, progress=False)
    return model


@pytest.mark.parametrize("level", tokenizers.names())
def test_it_conforms_at_every_level(level: str) -> None:
    check_model(f"textgenrnn-{level}", hidden_size=8, embedding_size=8)


# The average -----------------------------------------------------------------------------


def reference(w: Any, x: Any, begins: Any) -> Any:
    """The definition, sum by sum: x (time, features), begins (time,)."""
    rows, first = [], 0
    for t in range(len(x)):
        first = t if begins[t] else first
        shares = np.exp(x[first : t + 1] @ w)
        rows.append((shares[:, None] * x[first : t + 1]).sum(0) / shares.sum())
    return np.array(rows)


def made_up(time: int = 60, batch: int = 3, features: int = 5, scale: float = 1.0) -> tuple[Any, Any, Any, Any]:
    random = np.random.default_rng(0)
    p = unflatten({"attention": (random.normal(size=features) * scale).astype(np.float32)})
    x = random.normal(size=(time, batch, features)).astype(np.float32)
    begins = random.random((time, batch)) < 0.1
    past = np.zeros((batch, features), np.float32), np.full(batch, -np.inf, np.float32)
    return p, x, begins, past


def test_the_average_is_that_of_the_definition() -> None:
    p, x, begins, past = made_up()

    averages, _ = attend(p, x, begins, *past)

    for row in range(x.shape[1]):
        wanted = reference(p.attention.astype(float), x[:, row].astype(float), begins[:, row])
        np.testing.assert_allclose(averages[:, row], wanted, atol=1e-5)


@pytest.mark.parametrize("borders", [[1], [7, 8], list(range(1, 60))], ids=str)
def test_the_state_goes_on_with_the_average_wherever_the_text_is_cut(borders: list[int]) -> None:
    p, x, begins, past = made_up()
    whole, _ = attend(p, x, begins, *past)

    parts = []
    for part, some in zip(np.split(x, borders), np.split(begins, borders), strict=True):
        average, past = attend(p, part, some, *past)
        parts.append(average)

    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    p, x, begins, past = made_up(time=200, scale=300.0)

    averages, (_, weight) = attend(p, x, begins, *past)

    assert np.isfinite(averages).all() and np.isfinite(weight).all()
    assert (np.abs(averages).max((1, 2)) > 0.1).all()
    assert averages.dtype == np.float32


def test_gradients_of_the_average_are_finite_and_reach_everything() -> None:
    p, x, begins, past = made_up()
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in (*vars(p).items(), ("x", x))}

    averages, (_, weight) = attend(unflatten(tensors), tensors["x"], torch.tensor(begins), *map(torch.tensor, past))
    (averages.square().sum() + weight.sum()).backward()

    for name, tensor in tensors.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


def test_a_prediction_does_not_depend_on_what_follows(labelled: LanguageModel) -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(3, len(labelled.tokenizer), (40, 2))
    other = tokens.copy()
    other[25:] = 3

    logits, _ = labelled.forward(tokens, labelled.initial_state(2))
    others, _ = labelled.forward(other, labelled.initial_state(2))

    np.testing.assert_array_equal(logits[:25], others[:25])


def test_numpy_and_torch_agree_token_by_token_and_in_blocks(
    labelled: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.random.default_rng(0).integers(0, 3 * len(labelled.tokenizer), (50, 3))  # with labels
    expected, _ = network_forward(labelled.network)(tokens, None)  # type: ignore[attr-defined]

    state, rows = labelled.initial_state(3), []
    for step in tokens[:, None]:
        logits, state = labelled.forward(step, state)
        rows.append(logits)
    monkeypatch.setattr(textgenrnn, "ATTENTION_BLOCK_SIZE", 7)
    blocks, _ = labelled.forward(tokens, labelled.initial_state(3))

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
def test_a_bad_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(revgen.OptionError, match=f"^{option} must be "):
        revgen.create("textgenrnn-char", **{option: value})


# Labels ----------------------------------------------------------------------------------


def test_each_label_gives_its_own_texts(labelled: LanguageModel) -> None:
    def counts(label: str | None) -> tuple[int, int]:
        text = " ".join(labelled.generate("", n=50, seed=0, max_tokens=30, label=label))
        return text.count("sea"), text.count("drums")

    sea, city, either = counts("sea"), counts("city"), counts(None)

    assert sea[0] > 30 > 10 * sea[1]
    assert city[1] > 30 > 10 * city[0]
    assert min(either) > 3


def test_a_label_makes_its_texts_likelier(labelled: LanguageModel) -> None:
    for text, label, other in ((SEA[0], "sea", "city"), (CITY[0], "city", "sea")):
        assert labelled.score(text, label=label).total > labelled.score(text, label=other).total + 1
    given = labelled.evaluate(TEXTS, labels=LABELS)
    plain = labelled.evaluate(TEXTS)
    assert given.nats_per_char < plain.nats_per_char
    assert (given.characters, given.tokens, given.unknown) == (plain.characters, plain.tokens, 0)
    one = labelled.evaluate([SEA[0]], labels=["sea"])
    assert one.nats_per_char == pytest.approx(-labelled.score(SEA[0], label="sea").total / len(SEA[0]), abs=1e-5)


def test_labels_are_saved_streamed_and_loaded_back(labelled: LanguageModel, tmp_path: Path) -> None:
    loaded = revgen.load(labelled.save(tmp_path / "model"))

    assert loaded.labels == labelled.labels == ("city", "sea")
    assert loaded.config == labelled.config
    text = labelled.generate("the ", label="sea", seed=1, max_tokens=30)
    assert loaded.generate("the ", label="sea", seed=1, max_tokens=30) == text
    assert "the " + "".join(loaded.stream("the ", label="sea", seed=1, max_tokens=30)) == text


@pytest.mark.parametrize("call", [LanguageModel.generate, LanguageModel.stream, LanguageModel.score])
def test_an_unknown_label_is_an_error_that_lists_the_known(labelled: LanguageModel, call: Any) -> None:
    with pytest.raises(
        revgen.OptionError, match=r"label must be one of the labels of the training text \(city, sea\), not 'see'"
    ):
        call(labelled, "a", label="see")
    with pytest.raises(revgen.OptionError, match=r"city, sea.*not 'see'"):
        labelled.evaluate(["a"], labels=["see"])


def test_other_architectures_refuse_labels(small_model: LanguageModel) -> None:
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


def test_other_architectures_learn_from_a_corpus_with_labels_without_them() -> None:
    corpus = revgen.read(TEXTS, labels=LABELS)
    tokenizer = revgen.create("kneser-ney-char").tokenizer_for(corpus)

    assert (tokenize(corpus, tokenizer).ids == tokenize(revgen.read(TEXTS), tokenizer).ids).all()


def test_without_labels_it_has_none_and_says_so() -> None:
    model = revgen.create("textgenrnn-char", **SMALL)
    model.fit(TEXTS[:10], epochs=1, progress=False)

    assert model.labels == ()
    with pytest.raises(revgen.OptionError, match="none"):
        model.generate(label="sea")


def test_a_fitted_model_learns_a_label_more_and_keeps_the_others(labelled: LanguageModel, tmp_path: Path) -> None:
    model = revgen.load(labelled.save(tmp_path / "model"))

    model.fit(SEA * 4 + CITY, labels=["sea"] * 8 + ["a town"] * 2, epochs=1, progress=False)

    assert model.labels == ("city", "sea", "a town")
    assert model.weights["labels"].shape == (4, 16)
    assert isinstance(model.generate(label="a town", max_tokens=5), str)
    model.fit(SEA * 4, epochs=1, progress=False)
    assert model.labels == ("city", "sea", "a town")


def test_training_with_labels_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
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


# Labels of a corpus ----------------------------------------------------------------------


def labels_of(corpus: revgen.Corpus) -> list[str | int | None]:
    return [corpus.label for _, last in corpus.blocks() if last]


def test_labels_stand_in_a_field_beside_the_text(tmp_path: Path) -> None:
    rows = [("a b", "x"), ("", "left out"), ("c", "x"), ("d e", "y")]
    lines = tmp_path / "corpus.jsonl"
    lines.write_text("".join(json.dumps({"text": text, "genre": genre or None}) + "\n" for text, genre in rows))
    table = tmp_path / "corpus.csv"
    table.write_text("text,genre\n" + "".join(f"{text},{genre}\n" for text, genre in rows))

    for path in (lines, table):
        corpus = revgen.read(path, labels="genre")
        assert list(corpus) == ["a b", "c", "d e"]
        assert labels_of(corpus) == ["x", "x", "y"]
        assert corpus.label_names() == ["x", "y"]
        assert labels_of(revgen.read(revgen.read(path), labels="genre")) == ["x", "x", "y"]
        with pytest.raises(revgen.CorpusError, match="'year'"):
            list(revgen.read(path, labels="year"))


def test_labels_stand_in_a_column_of_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "stars": [5, 1, 5]})

    assert labels_of(revgen.read(frame, labels="stars")) == [5, 1, 5]
    assert labels_of(revgen.read(frame.text, labels=frame.stars)) == [5, 1, 5]
    with pytest.raises(revgen.CorpusError, match="no column 'year'"):
        revgen.read(frame, labels="year")


def test_labels_stand_in_a_column_of_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "corpus.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2], "text": ["a", "b"], "genre": ["x", None]}), path)

    assert labels_of(revgen.read(path, labels="n")) == [1, 2]
    assert labels_of(revgen.read(path)) == [None, None]
    with pytest.raises(revgen.CorpusError, match="line 2: the row has no label in 'genre'"):
        list(revgen.read(path, labels="genre"))
    assert labels_of(revgen.read(path, labels="genre", errors="skip")) == ["x"]


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, ""])
def test_a_missing_label_is_an_error_that_names_the_row(missing: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(revgen.OptionError, match=r"labels has no label for item 2, 'b'"):
        list(revgen.read(["a", "b"], labels=["x", missing]))
    frame = pandas.DataFrame({"text": ["a", "b"], "stars": pandas.array([1, pandas.NA], dtype="Int64")})
    with pytest.raises(revgen.OptionError, match=r"labels has no label for item 2, 'b'"):
        list(revgen.read(frame, labels="stars"))
    table = tmp_path / "corpus.csv"
    table.write_text("text,genre\na,x\nb,\n")
    with pytest.raises(revgen.CorpusError, match=r"corpus\.csv, line 3: the row has no label in 'genre'"):
        list(revgen.read(table, labels="genre"))


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1]), [False, True], [0.0, 1.0], ["0", "1"]])
def test_whole_numbers_stay_numbers_and_are_saved(labels: Any, tmp_path: Path) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(["good film", "bad film"] * 20, labels=list(labels) * 20, epochs=1, progress=False)
    loaded = revgen.load(model.save(tmp_path / "model"))

    texts = isinstance(labels[0], str)
    assert model.labels == loaded.labels == (("0", "1") if texts else (0, 1))
    assert type(loaded.labels[1]) is type(model.labels[1])
    label: Any
    for label in (1, np.int64(1), "1", True):
        assert loaded.generate("", label=label, seed=1) == model.generate("", label=1, seed=1)
    model.fit(["good film", "new film"] * 20, labels=[1, "x"] * 20, epochs=1, progress=False)
    assert model.labels[-1] == "x" and len(model.labels) == 3 + texts


def test_each_file_has_a_label(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} one\n{name} two\n")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]

    assert labels_of(revgen.read(files, labels=["A", "B"])) == ["A", "B"]
    assert labels_of(revgen.read(files, documents="line", labels=["A", "B"])) == ["A", "A", "B", "B"]
    with pytest.raises(revgen.CorpusError, match="no field 'genre'"):
        list(revgen.read(files, labels="genre"))


@pytest.mark.parametrize("labels", [["x"], ["x"] * 3, []])
def test_labels_must_be_as_many_as_texts(labels: list[str]) -> None:
    with pytest.raises(revgen.OptionError, match="labels must have one label for each text or file"):
        revgen.create("textgenrnn-char").fit(["some text", "another"], labels=labels, progress=False)


@pytest.mark.parametrize("labels", ["genre", 5])
def test_labels_of_texts_in_memory_are_no_field(labels: Any) -> None:
    with pytest.raises(revgen.OptionError, match="labels must have one label for each text"):
        revgen.read(["some text"], labels=labels)


def test_every_token_carries_its_label_and_some_documents_are_read_without() -> None:
    corpus = revgen.read(TEXTS, labels=LABELS)
    tokenizer = tokenizers.get("char").train(corpus)
    tokens = tokenize(corpus, tokenizer, ("city", "sea"))

    for ids, text, label in zip(tokens.documents(), TEXTS, LABELS, strict=True):
        assert tokenizer.decode(ids[1:-1] % len(tokenizer)) == text
        assert set((ids // len(tokenizer)).tolist()) == {1 + ("city", "sea").index(label)}
    for part in tokens.split(0.2, seed=0):
        assert part.vocab == len(tokenizer)

    found: Counter[int] = Counter()
    plain = [list(Batches(tokenize(corpus, tokenizer), 20, 10, 0, epoch)) for epoch in range(10)]
    for epoch in range(10):
        for (inputs, targets), (wanted, following) in zip(Batches(tokens, 20, 10, 0, epoch), plain[epoch], strict=True):
            assert (inputs % len(tokenizer) == wanted).all() and (targets == following).all()
            found.update((inputs // len(tokenizer)).flatten().tolist())
    assert 0.03 < found[0] / found.total() < 0.2
    assert min(found[1], found[2]) / found.total() > 0.3


# The command -----------------------------------------------------------------------------


def test_the_command_fits_with_labels_and_generates_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from revgen.cli import main

    corpus = tmp_path / "corpus.jsonl"
    rows = zip(TEXTS, LABELS, strict=True)
    corpus.write_text("".join(json.dumps({"text": text, "place": label}) + "\n" for text, label in rows))
    model = str(tmp_path / "model")
    small = ["--set", "hidden_size=16", "--set", "embedding_size=8", "--epochs", "1"]

    assert main(["fit", "textgenrnn-char", str(corpus), "--labels", "place", *small, "--out", model]) == 0
    assert main(["evaluate", model, str(corpus), "--labels", "place"]) == 0
    capsys.readouterr()
    assert main(["generate", model, "--label", "sea", "--seed", "1", "--max-tokens", "10"]) == 0
    given = capsys.readouterr().out.removesuffix("\n")
    assert given == revgen.load(model).generate(label="sea", seed=1, max_tokens=10)
    assert main(["generate", model, "--label", "moon"]) == 2
    assert "(city, sea), not 'moon'" in capsys.readouterr().err


def test_a_label_that_is_a_number_is_given_as_one() -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(["good film", "bad film"] * 20, labels=[1, 0] * 20, epochs=1, progress=False)
    label: Any
    for label in (1, np.int64(1)):
        assert model.generate("", label=label, seed=1) == model.generate("", label="1", seed=1)
        assert model.score("good", label=label).total == model.score("good", label="1").total
    with pytest.raises(revgen.OptionError, match="label must be one of the labels of the training text"):
        model.generate("", label=2)
