"""Tests of Spaces: the page of a model beside its repository, on a local server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hub_server import Hub

import revgen
from revgen.cli import main
from revgen.language_model import LanguageModel


def test_a_space_shows_the_exported_page_beside_the_model(hub: Hub, small_model: LanguageModel, tmp_path: Path) -> None:
    url = small_model.push_to_hub("me/model", space=True)

    assert url.startswith(f"{hub.url}/me/model/commit/")
    files = hub.repositories["spaces/me/model"].files()
    assert files["index.html"] == small_model.export(tmp_path / "page.html").read_bytes()
    front_matter = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert front_matter["sdk"] == "static"
    assert front_matter["models"] == ["me/model"]
    assert front_matter["title"] == "lstm-char"
    assert "model.safetensors" in hub.repositories["me/model"].files()


def test_a_space_has_the_licence_of_the_model(hub: Hub) -> None:
    model = revgen.load("rnn-char")
    model.metadata["licence"] = "MIT"

    model.push_to_hub("me/model", space=True)

    readme = hub.repositories["spaces/me/model"].files()["README.md"].decode()
    assert yaml.safe_load(readme.split("---")[1])["license"] == "mit"


def test_a_second_push_replaces_the_page_and_keeps_an_edited_readme(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("me/model", space=True)
    space = hub.repositories["spaces/me/model"]
    space.commit("main", space.files() | {"README.md": b"mine", "index.html": b"old"}, "Edit")

    small_model.push_to_hub("me/model", space=True)

    assert space.files()["README.md"] == b"mine"
    assert b"<!doctype html>" in space.files()["index.html"]
    small_model.push_to_hub("me/model", space=True, overwrite_card=True)
    assert b"sdk: static" in space.files()["README.md"]


def test_the_space_of_a_private_model_is_private(hub: Hub, small_model: LanguageModel) -> None:
    small_model.push_to_hub("model", space=True, private=True)

    assert hub.repositories["me/model"].private and hub.repositories["spaces/me/model"].private


def test_nothing_is_pushed_if_the_model_has_no_page(hub: Hub) -> None:
    model = revgen.load("rnn-char")
    model.weights["bias"] = model.weights["bias"] + 1e6  # too large for float16

    with pytest.raises(revgen.OptionError, match="float16"):
        model.push_to_hub("me/model", space=True)

    assert not hub.repositories


def test_push_command_prints_the_addresses_of_the_model_and_its_space(
    hub: Hub, small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = small_model.save(tmp_path / "one"), small_model.save(tmp_path / "other")

    assert main(["push", str(one), "me/one", "--space"]) == 0
    model_address, space_address = capsys.readouterr().out.split()
    assert "/me/one/commit/" in model_address and space_address == f"{hub.url}/spaces/me/one"

    assert main(["push", str(one), str(other), "--organization", "zoo", "--space", "--json"]) == 0
    addresses = json.loads(capsys.readouterr().out)
    assert [address.split("/", 3)[3] for address in addresses[2:]] == ["spaces/zoo/one", "spaces/zoo/other"]
