"""The defaults of a model for ``generate`` on the Hub: they are pushed, pulled and never required."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, Repository

import revgen
from revgen import CheckpointError
from revgen.hub import push
from revgen.language_model import LanguageModel

CONFIG: dict[str, Any] = {"prompt": "the ", "temperature": 0.7, "max_tokens": 50}


@pytest.fixture
def model(small_model: LanguageModel) -> LanguageModel:
    """A small model with defaults."""
    model = copy.deepcopy(small_model)
    model.generation_config = dict(CONFIG)
    return model


def test_a_pushed_model_is_pulled_with_its_defaults(hub: Hub, model: LanguageModel) -> None:
    model.push_to_hub("me/model")

    loaded = revgen.load("me/model")

    assert loaded.generation_config == CONFIG
    assert loaded.generate(seed=1) == model.generate(seed=1)
    assert 'print(model.generate("the "))' in hub.repositories["me/model"].files()["README.md"].decode()


def test_the_cache_remembers_that_a_model_has_no_defaults(hub: Hub, pushed: Repository) -> None:
    for _ in range(3):
        assert not revgen.load("me/model").generation_config

    assert hub.count_requests("HEAD", "generation_config.json") == 1


def test_a_file_that_was_edited_on_the_hub_is_used(hub: Hub, model: LanguageModel) -> None:
    model.push_to_hub("me/model")
    files = hub.repositories["me/model"].files()
    content = json.loads(files["generation_config.json"])
    files["generation_config.json"] = json.dumps(content | {"prompt": "a ", "new_entry": 1}).encode()

    assert revgen.load("me/model").generation_config == CONFIG | {"prompt": "a "}


@pytest.mark.parametrize("content", [b'{"temperature": -1}', b"[" * 100_000, b"{}" + b" " * (5 << 20)])
def test_hostile_defaults_are_an_error_that_names_the_file(hub: Hub, pushed: Repository, content: bytes) -> None:
    pushed.files()["generation_config.json"] = content

    with pytest.raises(revgen.RevgenError, match=r"generation_config\.json"):
        revgen.load("me/model")


def test_a_push_of_a_directory_sends_only_what_revgen_understands(
    hub: Hub, model: LanguageModel, tmp_path: Path
) -> None:
    directory = model.save(tmp_path / "model")
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "1234"}')
    (directory / "generation_config.json").unlink()
    (directory / "generation_config.json").symlink_to(secret)

    push(directory, "me/model")

    assert all(b"1234" not in content for content in hub.repositories["me/model"].files().values())
    (directory / "generation_config.json").write_text('{"temperature": "hot"}')
    with pytest.raises(CheckpointError):
        push(directory, "me/model")
