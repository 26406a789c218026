"""Scalars of NumPy and PyTorch work like Python's numbers in every function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import same_weights

import revgen
from revgen import OptionError
from revgen.files import to_json
from revgen.options import to_builtins

Converter = Callable[[Any], Any]

NUMPY_TYPES: dict[type, Converter] = {bool: np.bool_, int: np.int64, float: np.float32}
CONVERTERS: dict[str, Converter] = {
    "numpy": lambda value: NUMPY_TYPES[type(value)](value),
    "array": np.array,
    "torch": torch.tensor,
}


def unchanged(value: Any) -> Any:
    return value


@pytest.fixture(params=CONVERTERS)
def convert(request: pytest.FixtureRequest) -> Converter:
    """A function that converts a number, exact in float32, to a scalar of another library."""
    return CONVERTERS[request.param]


def fit(convert: Converter, texts: list[str], directory: Path, **more_options: Any) -> revgen.LanguageModel:
    model = revgen.create(
        "gru-char",
        hidden_size=convert(8),
        num_layers=convert(1),
        dropout=convert(0.25),
        residual=convert(True),
        tokenizer={"min_count": convert(1)},
    )
    model.fit(
        texts,
        valid=convert(0.25),
        epochs=convert(2),
        batch_size=convert(4),
        sequence_length=convert(16),
        learning_rate=convert(0.0078125),
        weight_decay=convert(0.25),
        weight_averaging=convert(0.25),
        patience=convert(3),
        seed=convert(3),
        gradient_accumulation_steps=convert(2),
        progress=False,
        checkpoint=revgen.CheckpointConfig(directory, steps=convert(5), seconds=convert(60.0), keep=convert(2)),
        index_texts=True,
        **more_options,
    )
    model.metadata |= {
        "year": convert(2020),
        "evaluation": {**model.metadata["evaluation"], "nats_per_char on x": convert(1.5)},
    }
    return model


def test_training_with_scalars_gives_the_same_model(convert: Converter, reviews: list[str], tmp_path: Path) -> None:
    expected = fit(unchanged, reviews[:8], tmp_path / "expected")
    model = fit(convert, reviews[:8], tmp_path / "model")

    configs = []
    for trained, name in ((expected, "a"), (model, "b")):
        for section in ("training", "history"):
            trained.metadata[section].pop("seconds", None)
        directory = trained.save(tmp_path / name)
        configs.append(json.loads((directory / "config.json").read_text()))
    assert same_weights(model, expected) and model.fingerprint == expected.fingerprint
    assert configs[0] == configs[1]
    assert (tmp_path / "a" / "README.md").read_text() == (tmp_path / "b" / "README.md").read_text()
    assert "nats_per_char" in (tmp_path / "b" / "README.md").read_text().partition("model-index")[2]
    assert json.dumps(model.info(), sort_keys=True) == json.dumps(expected.info(), sort_keys=True)
    assert type(model.config.hidden_size) is int and type(model.config.residual) is bool


def test_resuming_with_scalars_gives_the_same_model(convert: Converter, reviews: list[str], tmp_path: Path) -> None:
    expected = fit(unchanged, reviews[:8], tmp_path / "expected")
    model = fit(convert, reviews[:8], tmp_path / "expected", resume=True)
    assert same_weights(model, expected)


def test_generation_accepts_scalars(convert: Converter, small_model: revgen.LanguageModel, tmp_path: Path) -> None:
    def generate_all(convert: Converter, key: type, name: str) -> list[Any]:  # an array cannot be a key
        model = small_model
        filters: dict[str, Any] = {
            "temperature": convert(0.5),
            "top_k": convert(5),
            "top_p": convert(0.875),
            "min_p": convert(0.0),
        }
        filters |= {"typical_p": convert(0.875), "repetition_penalty": convert(1.5), "frequency_penalty": convert(0.25)}
        limits: dict[str, Any] = {"max_tokens": convert(20), "min_tokens": convert(2), "seed": convert(4)}
        biases: dict[str, Any] = {
            "logit_bias": {key(5): convert(0.5)},
            "banned_tokens": [convert(6)],
            "forced_tokens": {key(0): convert(7)},
        }
        path = tmp_path / f"{name}.jsonl"
        model.write_samples(
            path,
            n=convert(3),
            batch_size=convert(2),
            progress=False,
            temperature=convert(0.5),
            seed=convert(1),
            **biases,
        )
        return [
            model.generate("the ", n=convert(3), check_novelty=convert(False), **limits, **filters, **biases),
            model.generate("the ", temperature=[convert(0.5), convert(1.0)], **limits),
            model.generate("the ", num_beams=convert(2), length_penalty=convert(0.5), max_tokens=convert(5)),
            model.explain("a song", top=convert(2)).to_dicts(),
            path.read_text(),
        ]

    assert generate_all(convert, np.int64, "other") == generate_all(unchanged, int, "one")


def test_generation_accepts_arrays_as_lists(small_model: revgen.LanguageModel) -> None:
    for name, values in {"temperature": [0.5, 1.0], "banned_tokens": [5, 6]}.items():
        options: list[dict[str, Any]] = [
            {name: value, "max_tokens": 20, "seed": 1} for value in (values, np.array(values))
        ]
        from_list, from_array = (small_model.generate("the ", **kwargs) for kwargs in options)
        assert from_list == from_array


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ngram", {"order": 3}),
        ("kneser-ney", {"order": 3, "min_gain": 0.5, "max_bytes": 4000}),
        ("mlp", {"hidden_size": 8, "num_layers": 1, "context": 4, "embedding_size": 8, "dropout": 0.5}),
        ("transformer", {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "context": 8}),
        ("textgenrnn", {"hidden_size": 8, "num_layers": 1, "embedding_size": 8}),
        ("graves-lstm", {"hidden_size": 8, "num_layers": 1, "tie_embeddings": True}),
        ("awd-lstm", {"hidden_size": 8, "num_layers": 1, "embedding_size": 8, "alpha": 2.0, "weight_drop": 0.5}),
    ],
)
def test_every_architecture_accepts_scalars(
    name: str, options: dict[str, Any], convert: Converter, reviews: list[str], tmp_path: Path
) -> None:
    models: list[Any] = []
    for converter in (convert, unchanged):
        model = revgen.create(f"{name}-char", **{key: converter(value) for key, value in options.items()})
        training = {} if "hidden_size" not in options else {"epochs": converter(1)}
        model.fit(reviews[:4], valid=converter(0.25), seed=converter(2), progress=False, **training)
        models.append(revgen.load(model.save(tmp_path / str(len(models)))))
    assert models[0].config == models[1].config and models[0].fingerprint == models[1].fingerprint


def test_learning_rate_finder_and_mixtures_accept_scalars(
    convert: Converter, small_model: revgen.LanguageModel, reviews: list[str], tmp_path: Path
) -> None:
    result = small_model.find_lr(
        reviews[:4],
        low=convert(0.0078125),
        high=convert(1.0),
        steps=convert(10),
        batch_size=convert(4),
        seed=convert(1),
    )
    assert type(result.suggestion) is float
    mixture = revgen.mix([small_model, small_model], [convert(0.25), convert(0.75)])
    assert revgen.load(mixture.save(tmp_path / "mixture")).config == mixture.config


def test_label_may_be_a_number(reviews: list[str]) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8, num_layers=1, embedding_size=8)
    model.fit(reviews[:6], labels=np.array([1, 0, 1, 0, 1, 0]), epochs=1, progress=False)
    assert model.labels == (0, 1)
    labels: list[Any] = ["1", 1, np.int64(1), torch.tensor(1)]
    assert len({model.generate("a", label=label, max_tokens=9, seed=1) for label in labels}) == 1
    assert len({model.score("a song", label=label).total for label in labels}) == 1


@pytest.mark.parametrize("name", ["hidden_size", "residual"])
def test_flags_and_sizes_are_not_interchangeable(name: str) -> None:
    wrong: Any = np.bool_(True) if name == "hidden_size" else np.int64(1)
    with pytest.raises(OptionError, match=f"{name} must be"):
        revgen.create("gru-char", **{name: wrong})


def test_to_json_converts_numpy_scalars_and_non_finite_numbers() -> None:
    values = {
        np.int64(1): np.float32(0.5),
        "a": np.array([[1, np.nan]]),
        "b": (np.bool_(True), float("inf")),
        "c": {"x"},
    }
    assert json.loads(to_json(values)) == {"1": 0.5, "a": [[1.0, None]], "b": [True, None], "c": ["x"]}
    assert to_builtins(np.longdouble(2)) == 2.0 and type(to_builtins(np.longdouble(2))) is float


def test_metadata_that_json_cannot_represent_is_rejected_before_writing(
    small_model: revgen.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_model, "metadata", {"made by": object()})
    with pytest.raises(OptionError, match=r"metadata has a value .* not JSON serializable"):
        small_model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
