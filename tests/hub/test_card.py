"""Tests of the model card: Hub metadata, samples, training history and equations."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hub_helpers import python_blocks
from hub_server import Hub, Repository

import revgen
from revgen import hub as revgen_hub, pretrained
from revgen.card import draw_history, make_card
from revgen.language_model import LanguageModel
from revgen.registry import cells


def read_metadata(text: str) -> dict[str, Any]:
    """Return the metadata of a card, read by the Hub client."""
    from huggingface_hub import ModelCard

    data: dict[str, Any] = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    return data


def test_card_metadata_follows_the_conventions_of_the_hub(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    model = revgen.load(small_model.save(tmp_path))
    model.metadata |= {
        "licence": "CC BY 4.0",
        "language": "no",
        "datasets": ["someone/reviews", "not a name"],
        "evaluation": {"nats_per_char": 1.25, "bits_per_char": 1.75, "nats_per_char on other text": 1.5, "note": "hm"},
    }

    model.push_to_hub("me/model")

    assert read_metadata(hub.repositories["me/model"].files()["README.md"].decode()) == {
        "library_name": "revgen",
        "pipeline_tag": "text-generation",
        "tags": ["lstm", "char"],
        "license": "cc-by-4.0",
        "language": "no",
        "datasets": ["someone/reviews"],
        "model-index": [
            {
                "name": "lstm-char",
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Text Generation"},
                        "dataset": {"type": "someone/reviews", "name": "held-out text"},
                        "metrics": [
                            {"type": "nats_per_char", "value": 1.25, "name": "nats per char"},
                            {"type": "bits_per_char", "value": 1.75, "name": "bits per char"},
                        ],
                    },
                    {
                        "task": {"type": "text-generation", "name": "Text Generation"},
                        "dataset": {"type": "someone/reviews", "name": "other text", "split": "other text"},
                        "metrics": [{"type": "nats_per_char", "value": 1.5, "name": "nats per char"}],
                    },
                ],
            }
        ],
    }


@pytest.mark.parametrize("licence", ["my own licence", "yes", "x: y\n---", "", "\ud800", 'a"b'])
def test_a_license_unknown_to_the_hub_is_listed_as_other(
    licence: str, small_model: LanguageModel, tmp_path: Path
) -> None:
    model = revgen.load(small_model.save(tmp_path))
    model.metadata["licence"] = licence

    metadata = read_metadata(make_card(model))

    assert metadata["license"] == "other"
    assert set(metadata) == {"library_name", "pipeline_tag", "tags", "license", "license_name"}


def test_the_code_on_a_pushed_card_loads_the_repository(hub: Hub, pushed: Repository) -> None:
    first, *_ = python_blocks(pushed.files()["README.md"].decode())

    assert 'revgen.load("me/model")' in first
    exec(first, {})


def test_a_pushed_card_shows_samples_and_an_image_of_the_history(
    pushed: Repository, small_model: LanguageModel
) -> None:
    text = pushed.files()["README.md"].decode()

    assert small_model.generate("", n=3, temperature=0.7, seed=1)[0].splitlines()[0] in text
    assert "](history.svg)" in text
    image = pushed.files()["history.svg"].decode()
    xml.etree.ElementTree.fromstring(image)
    assert image.count("<polyline") == 1 and "training loss" in image


def test_a_card_edited_on_the_hub_is_not_overwritten_by_default(pushed: Repository, small_model: LanguageModel) -> None:
    pushed.files()["README.md"] = b"an edited card"
    other = revgen.load("me/model")
    other.metadata["licence"] = "MIT"

    other.push_to_hub("me/model")
    assert pushed.files()["README.md"] == b"an edited card"
    assert b'"licence": "MIT"' in pushed.files()["config.json"]

    other.push_to_hub("me/model", overwrite_card=True)
    assert b"license: mit" in pushed.files()["README.md"]


def test_a_card_edited_in_the_directory_is_pushed(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    directory = small_model.save(tmp_path / "model")
    (directory / "README.md").write_text("about this model", "utf-8")

    revgen_hub.push(directory, "me/model")

    assert hub.repositories["me/model"].files()["README.md"] == b"about this model"


def test_safetensors_and_the_card_are_enough_to_compute_with_the_weights(
    pushed: Repository, small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compute log-probabilities as the card describes, without revgen."""
    for name, data in pushed.files().items():
        (tmp_path / name).write_bytes(data)
    text = pushed.files()["README.md"].decode()
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(python_blocks(text)[1], scope)
    w, tokens = scope["weights"], scope["tokens"]
    config = json.loads(pushed.files()["config.json"])["config"]
    assert config["residual"] and config["layer_norm"] and config["tie_embeddings"]
    for array in w:
        assert f"`{re.sub('[0-9]', '{0,1}', array, count=1)}`" in text or array.split(".")[0] in text

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def norm(i: int, x: Any) -> Any:
        y = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return y * w[f"norms.{i}.scale"] + w[f"norms.{i}.shift"]

    layers = [SimpleNamespace(h=np.zeros(32), c=np.zeros(32)) for _ in range(config["num_layers"])]
    logprobs = []
    ids = [0, *(tokens.index(c) for c in "the band"), 1]
    for token, target in itertools.pairwise(ids):
        x = w["embedding"][token]
        for i, layer in enumerate(layers):
            z = norm(i, x) @ w[f"layers.{i}.W"] + layer.h @ w[f"layers.{i}.U"] + w[f"layers.{i}.b"]
            in_gate, forget, out = np.split(sigmoid(z[: 3 * 32]), 3)
            layer.c = forget * layer.c + in_gate * np.tanh(z[3 * 32 :])
            layer.h = out * np.tanh(layer.c)
            x = x + layer.h
        logits = norm(len(layers), x) @ w["embedding"].T + w["bias"]
        logprobs.append(logits[target] - np.log(np.exp(logits).sum()))

    np.testing.assert_allclose(logprobs, small_model.score("the band").logprobs, atol=1e-4)


def test_the_card_shows_the_equations_of_the_network_and_its_cell(small_model: LanguageModel) -> None:
    text = make_card(small_model)

    assert "x = x + cell(norm(x))" in text
    assert inspect.cleandoc(cells.get("lstm").__doc__) in text


@pytest.mark.parametrize("name", pretrained.names())
def test_every_card_in_the_package_has_the_equation_of_its_prediction(name: str) -> None:
    equation = "\np(w | h) = " if name.startswith("kneser-ney") else "\nlogits = "
    assert equation in (pretrained.DIRECTORY / name / "README.md").read_text("utf-8")


def test_the_history_image_has_a_panel_for_the_held_out_text(reviews: list[str]) -> None:
    model = revgen.create("gru-char", hidden_size=8)
    model.fit(reviews[:20], reviews[20:25], epochs=3, progress=False)

    assert len(model.metadata["history"]["nats_per_char"]) == 3
    image = draw_history(model)
    assert image is not None and image.count("<polyline") == 2


def test_fine_tuning_removes_metadata_about_the_old_weights(reviews: list[str]) -> None:
    model = revgen.load("lstm-char")
    assert {"load_as", "samples", "description"} <= {*model.metadata}

    model.fit(reviews[:2], max_seconds=0.2, extend_vocabulary=True, progress=False)

    assert not {"load_as", "samples", "description"} & {*model.metadata}
    assert model.metadata["licence"] == "MIT"


def test_the_cards_in_the_package_are_up_to_date() -> None:
    for path in pretrained.DIRECTORY.glob("*/config.json"):
        assert (path.parent / "README.md").read_text("utf-8") == make_card(revgen.load(path.parent))
