"""Pipes, devices, links and sparse files of a terabyte as parts of a model: an error at once, or no harm."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from fuzz_helpers import call, make_trained_model, plant

import revgen

KINDS = ["pipe", "directory", "sparse", "loop", "broken", "empty", "socket", "/dev/zero", "/dev/full", "/proc/self/mem"]
SHORT = ["pipe", "sparse", "/dev/zero"]
NAMES = ["config.json", "config.json.new", "model.safetensors", "model.safetensors.new", "vocabulary.json"]
NAMES += ["index.safetensors", "README.md", ".config.json.new.part"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained_model("kneser-ney-char", index_texts=True).save(tmp_path_factory.mktemp("special") / "model")


@pytest.mark.parametrize("kind", [k if k in SHORT else pytest.param(k, marks=pytest.mark.fuzz) for k in KINDS])
def test_a_special_file_in_a_model_directory(
    kind: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    for name in NAMES:
        path = Path("model")
        shutil.copytree(original, path)
        plant(path / name, kind)

        def load() -> None:
            model = revgen.load(path)
            model.generate("the", max_tokens=3)
            if model.has_index:
                model.novelty("the song of the band")

        def save() -> None:
            revgen.load(original).save(path, overwrite=True)
            load()

        for function in (load, save):
            outcome = call(function)
            assert outcome == "null" or outcome.startswith("RevgenError"), f"{function.__name__} {name}: {outcome}"
        shutil.rmtree(path)


@pytest.mark.parametrize("name", [".config.json.new.part", *NAMES, ".README.md.part"])
def test_a_save_does_not_follow_planted_links(name: str, original: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = Path(shutil.copytree(original, tmp_path / "model"))
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(victim)
    model = revgen.load(original)
    with contextlib.suppress(revgen.RevgenError):
        model.save(path, overwrite=True)
    assert victim.read_text() == "precious"
