"""Tests of the pretrained models in the package: their names, sizes, defaults, samples and cards."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen import pretrained
from revgen.generation.defaults import INDEX

ROOT = Path(__file__).parents[1]
NAMES = pretrained.names()
RECIPE = tomllib.loads((ROOT / "examples" / "pretrain.toml").read_text("utf-8"))


def config(name: str) -> dict[str, Any]:
    """Return the content of the config.json of a pretrained model."""
    return dict(json.loads((pretrained.DIRECTORY / name / "config.json").read_bytes()))


def test_at_least_20_models_of_12_corpora_are_in_the_package() -> None:
    assert len(NAMES) >= 20
    assert len({name.partition(".")[2] for name in NAMES}) >= 12
    assert revgen.list_models(pretrained=True) == NAMES


def test_each_model_takes_at_most_2500000_bytes_and_all_together_at_most_40_million() -> None:
    sizes = [sum(file.stat().st_size for file in (pretrained.DIRECTORY / name).iterdir()) for name in NAMES]

    assert max(sizes) <= 2_500_000
    assert sum(sizes) <= 40_000_000


@pytest.mark.parametrize("name", ["lstm-char", "gru-char", "rnn-char", "lstm-word", "gru-subword", "textgenrnn-char"])
def test_a_name_without_a_corpus_is_a_model_of_music(name: str) -> None:
    assert revgen.load(name).fingerprint == revgen.load(f"{name}.music").fingerprint


def test_every_model_has_a_recipe_and_every_recipe_a_model() -> None:
    assert sorted(RECIPE["models"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_generates_with_its_own_defaults(name: str) -> None:
    model = revgen.load(name)
    prompt = model.generation_config.get("prompt", "")

    text = model.generate(seed=0)

    assert model.generation_config["temperature"] > 0
    assert text.startswith(prompt) and len(text) > len(prompt)
    assert len(model.metadata["samples"]) == 5
    assert all(sample.startswith(prompt) for sample in model.metadata["samples"])


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_data_licence_and_figures(name: str) -> None:
    card = (pretrained.DIRECTORY / name / "README.md").read_text("utf-8")
    corpus = RECIPE["corpora"][name.partition(".")[2]]

    assert f'revgen.load("{name}")' in card
    assert corpus["text"] in card and corpus["source"] in card
    assert config(name)["metadata"]["licence"] == corpus["licence"]
    assert "nats_per_char" in card and "## Generated text" in card and "## Samples" in card


def test_credits_that_licences_require_are_on_the_cards() -> None:
    required = {
        "places": "GeoNames (www.geonames.org), licensed under CC BY 4.0",
        "python": "Copyright © 2001-2023 Python Software Foundation; All Rights Reserved",
        "movie_reviews": "Bo Pang and Lillian Lee",
        "tinystories": "CDLA-Sharing-1.0",
        "names": "MIT, Copyright Andrej Karpathy",
    }
    for corpus, credit in required.items():
        assert credit in RECIPE["corpora"][corpus]["text"]


def test_the_page_about_models_shows_every_model() -> None:
    page = (ROOT / "docs" / "models.md").read_text("utf-8")

    for name in NAMES:
        (row,) = re.findall(rf"^\| `{re.escape(name)}` .*$", page, re.MULTILINE)
        assert f"{config(name)['metadata']['evaluation']['nats_per_char']:.3f}" in row


@pytest.mark.parametrize("name", NAMES)
def test_generated_text_is_made_of_words_and_rarely_copied(name: str) -> None:
    generated = config(name)["metadata"]["generated"]

    if "new_names" in generated:
        assert generated["distinct_names"] >= 0.9
    else:
        assert generated["real_words"] >= 0.97
        assert generated["copied"] <= 0.05
        assert name.endswith((".python", ".hacker_news")) or generated["complete"] >= 0.9


def test_limits_of_copies_and_words_have_the_index_that_they_need() -> None:
    for name in NAMES:
        options = json.loads((pretrained.DIRECTORY / name / "generation_config.json").read_bytes())
        assert revgen.load(name).has_index == any(option in options for option in INDEX), name
