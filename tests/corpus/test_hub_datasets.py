"""Data sets of the Hub: their texts, their licences, and errors."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, Repository

import revgen

datasets = pytest.importorskip("datasets")


@pytest.fixture
def poems(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the data set ``me/poems``, and an empty cache of ``datasets``."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    repository = Repository()
    texts = {"train": ["one\n", "naïve “漢字”", "three"], "test": ["four"]}
    files = {
        f"{split}.jsonl": "".join(json.dumps({"text": text, "title": split}) + "\n" for text in texts[split]).encode()
        for split in texts
    }
    repository.commit("main", files, "Add poems")
    hub.repositories["datasets/me/poems"] = repository
    hub.card_data["datasets/me/poems"] = {"license": "cc-by-4.0", "pretty_name": "Poems"}
    yield hub


def test_data_set_of_the_hub_is_a_corpus_and_its_licence_is_printed(
    poems: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = list(revgen.datasets.load("me/poems"))

    assert texts == ["one\n", "naïve “漢字”", "three"]
    assert f"me/poems: licence cc-by-4.0 ({poems.url}/datasets/me/poems)" in capsys.readouterr().err
    assert list(revgen.datasets.load("me/poems", split="test", progress=False)) == ["four"]
    assert list(revgen.datasets.load("me/poems", field="title", progress=False)) == ["train"] * 3
    assert list(revgen.datasets.load("me/poems", streaming=True, progress=False)) == texts
    assert capsys.readouterr().err == ""


def test_info_has_licence_size_and_address(poems: Hub) -> None:
    info = revgen.datasets.info("me/poems")

    assert (info.name, info.description, info.licence) == ("me/poems", "Poems", "cc-by-4.0")
    assert info.source == f"{poems.url}/datasets/me/poems" and info.documents is None
    del poems.card_data["datasets/me/poems"]
    assert revgen.datasets.info("me/poems").licence is None


def test_missing_licence_is_pointed_out(poems: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    poems.card_data["datasets/me/poems"] = {"license": None}
    revgen.datasets.load("me/poems")
    assert "me/poems: no licence is stated, so ask its authors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("me/none", {}, revgen.UnknownNameError, "me/none: the Hub has no such data set, or it may not be read"),
        ("me/poems", {"revision": "v9"}, revgen.HubError, "me/poems: the data set has no such revision"),
        ("me/poems", {"split": "valid"}, revgen.OptionError, 'Unknown split "valid". Should be one of'),
        ("me/poems", {"subset": "old"}, revgen.OptionError, "'old' not found. Available: .'default'"),
        ("me/poems", {"field": "body"}, revgen.CorpusError, "has no column 'body'; it has .*text"),
        ("poems", {}, revgen.UnknownNameError, "name of a data set on the Hub is owner/name"),
    ],
)
def test_error_is_one_line_that_says_what_is_wrong(
    name: str, options: dict[str, Any], error: type[Exception], message: str, poems: Hub
) -> None:
    with pytest.raises(error, match=message) as raised:
        list(revgen.datasets.load(name, progress=False, **options))
    assert "\n" not in str(raised.value)


def test_hub_that_is_down_is_reported_at_once_without_the_token(poems: Hub) -> None:
    poems.faults.down = 503
    with pytest.raises(revgen.HubError, match="me/poems: the data set could not be downloaded") as error:
        revgen.datasets.load("me/poems", token="hf_secret")
    assert "hf_secret" not in str(error.value)


@pytest.mark.parametrize("token", ["hf_me\n", "hf_sec\nret", "Bearer-like\tsecret"])
def test_token_is_never_shown(token: str, poems: Hub, recwarn: pytest.WarningsRecorder) -> None:
    for call in (revgen.datasets.load, revgen.datasets.info):
        poems.faults.down = 503
        with pytest.raises(revgen.RevgenError) as raised:
            call("me/poems", token=token)
        poems.faults.down = 0
        if token.strip() == "hf_me":
            call("me/poems", token=token)
            assert "white space around the token was removed" in str(recwarn.pop(UserWarning).message)
        else:
            assert "token has characters that no request can send" in str(raised.value)
        shown = "".join(traceback.format_exception(raised.value))
        assert token not in shown and token.strip() not in shown.replace(repr(token), "")


def test_name_of_a_directory_is_an_error(poems: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "poems").mkdir(parents=True)
    with pytest.raises(revgen.OptionError, match=r"me/poems is a file or a directory here: read it with revgen\.read"):
        revgen.datasets.load("me/poems")


def test_info_of_a_corpus_in_the_package() -> None:
    info = revgen.datasets.info("reviews")
    texts = list(revgen.datasets.load("reviews"))
    assert (info.documents, info.characters) == (len(texts), sum(map(len, texts)))
    assert (info.licence, info.source) == ("MIT", "package")
