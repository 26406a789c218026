"""Texts in files: each line can be generated again from its provenance, and a file that was cut off is continued."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import revgen
from revgen import LanguageModel, OptionError, Tokenizer
from revgen.cli import main

OPTIONS: dict[str, Any] = {"max_tokens": 30, "temperature": [0.8, 1.2], "top_p": 0.9, "stop": [".", "\n"]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def regenerated(model: LanguageModel, provenance: dict[str, Any]) -> str:
    """Return the text that the model generates from the provenance of a line."""
    options = provenance["options"]
    pairs = {name: dict(options[name]) for name in ("logit_bias", "forced_tokens") if name in options}
    texts = model.generate(provenance["prompt"], n=provenance["n"], seed=provenance["seed"], **options | pairs)
    return str(texts[provenance["row"]])


def test_each_line_can_be_generated_again_from_its_provenance(small_model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"

    count = small_model.write_samples(path, "the ", n=21, batch_size=8, seed=5, progress=False, **OPTIONS)

    found = lines(path)
    assert count == len(found) == 21
    assert len({row["text"] for row in found}) > 15
    loaded = revgen.load(small_model.save(tmp_path / "model"))
    for row in found:
        assert regenerated(loaded, row["provenance"]) == row["text"]
    provenance = found[9]["provenance"]
    assert provenance["model"] == "lstm-char" and provenance["prompt"] == "the "
    assert provenance["revision"] == loaded.fingerprint
    assert (provenance["seed"], provenance["n"], provenance["row"]) == (6, 8, 1)
    again = small_model.generate("the ", n=8, seed=6, **provenance["options"])
    assert again[1] == found[9]["text"]


def test_provenance_holds_options_of_every_kind(small_model: LanguageModel, tmp_path: Path) -> None:
    e = int(small_model.tokenizer.encode("e")[0])
    for i, options in enumerate(
        (
            {"logit_bias": {e: -3.0, "a": 1}, "banned_tokens": [Tokenizer.eos_id], "forced_tokens": {0: "b", 2: e}},
            {"regex": r"[a-z]{3,9} (one|two)", "frequency_penalty": 0.5},
            {"choices": ("band", "song")},
        )
    ):
        path = tmp_path / f"{i}.jsonl"
        small_model.write_samples(path, "the ", n=5, max_tokens=20, progress=False, **options)  # type: ignore[arg-type]
        assert [regenerated(small_model, row["provenance"]) for row in lines(path)] == [
            row["text"] for row in lines(path)
        ]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 13, 20])
@pytest.mark.parametrize("torn", ["", '{"text": "half a li'])
def test_resuming_a_file_that_was_cut_off_gives_the_same_file(
    small_model: LanguageModel, tmp_path: Path, kept: int, torn: str
) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "samples.jsonl"
    small_model.write_samples(whole, "the ", n=20, batch_size=8, seed=5, progress=False, **OPTIONS)
    path.write_text("".join(whole.read_text("utf-8").splitlines(keepends=True)[:kept]) + torn, "utf-8")

    count = small_model.write_samples(path, "the ", n=20, batch_size=8, seed=5, resume=True, progress=False, **OPTIONS)

    assert count == 20 and path.read_bytes() == whole.read_bytes()


def test_resuming_keeps_the_seed_and_batch_size_of_the_file(small_model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    small_model.write_samples(path, "a", n=5, batch_size=4, progress=False, max_tokens=9)
    begun = path.read_bytes()

    small_model.write_samples(path, "a", n=11, batch_size=2, resume=True, progress=False, max_tokens=9)

    assert path.read_bytes().startswith(begun)
    assert {row["provenance"]["n"] for row in lines(path)} == {4}
    assert [regenerated(small_model, row["provenance"]) for row in lines(path)] == [row["text"] for row in lines(path)]
    assert small_model.write_samples(path, "a", n=3, resume=True, progress=False, max_tokens=9) == 11, "it has more"


def test_a_killed_process_leaves_complete_lines_and_can_be_resumed(small_model: LanguageModel, tmp_path: Path) -> None:
    directory, path = str(small_model.save(tmp_path / "model")), tmp_path / "samples.jsonl"
    command = [sys.executable, "-m", "revgen", "generate", directory, "-n", "100000", "--seed", "1", "--out", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not path.exists() or path.stat().st_size < 100_000:
        assert process.poll() is None
    process.kill()
    process.wait()

    count = len(path.read_bytes().split(b"\n")) - 1
    assert small_model.write_samples(path, n=count + 40, seed=1, resume=True, progress=False) == count + 40

    found = lines(path)
    for row in (found[0], found[count - 1], found[count], found[-1]):
        assert regenerated(small_model, row["provenance"]) == row["text"]
    assert len({(row["provenance"]["seed"], row["provenance"]["row"]) for row in found}) == len(found)


def test_an_existing_file_is_not_overwritten(small_model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    small_model.write_samples(path, "a", n=2, seed=1, max_tokens=5, progress=False)
    before = path.read_bytes()

    def refused(message: str, prompt: str = "a", **options: Any) -> None:
        with pytest.raises(OptionError, match=message):
            small_model.write_samples(path, prompt, **{"n": 4, "seed": 1, "max_tokens": 5, "progress": False} | options)
        assert path.read_bytes() == before

    refused(r"samples\.jsonl exists already: continue it with resume=True")
    refused(r"holds samples of another prompt, 'a'", prompt="b", resume=True)
    refused(r"holds samples of another seed, 1", seed=2, resume=True)
    refused(r"holds samples of another options", max_tokens=6, resume=True)
    refused(r"^top_k must be", top_k=0, resume=True)
    refused(r"^temperature cannot be a function here", temperature=lambda i: 1.0, resume=True)
    refused(r"^n must be", n=0)
    refused(r"^batch_size must be", batch_size=0)


@pytest.mark.parametrize("content", ["a text\n", "{}\n", '{"provenance": 3}\n', '{"provenance": {"n": 3}}\n'])
def test_a_file_without_provenance_is_not_changed(small_model: LanguageModel, tmp_path: Path, content: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(content)

    with pytest.raises(OptionError, match="holds no samples with their provenance"):
        small_model.write_samples(path, n=3, resume=True, progress=False)

    assert path.read_text() == content


def test_a_line_reports_what_the_text_copies(reviews: list[str], tmp_path: Path) -> None:
    model = revgen.create("kneser-ney-char", order=8)
    model.fit(reviews[:20], index_texts=True, progress=False)

    model.write_samples(tmp_path / "a.jsonl", n=3, max_tokens=50, check_novelty=True, progress=False)

    for row in lines(tmp_path / "a.jsonl"):
        assert row["copied"] == model.novelty(row["text"]).to_dict()
        assert regenerated(model, row["provenance"]) == row["text"]


def test_beams_are_written_to_a_file(small_model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "beams.jsonl"

    assert small_model.write_samples(path, "the ", n=3, num_beams=4, max_tokens=9, progress=False) == 3

    assert [row["text"] for row in lines(path)] == small_model.generate("the ", n=3, num_beams=4, max_tokens=9)
    with pytest.raises(OptionError, match="n must be at most num_beams"):
        small_model.write_samples(tmp_path / "more.jsonl", n=9, num_beams=4, progress=False)
    few = tmp_path / "few.jsonl"
    assert small_model.write_samples(few, n=4, num_beams=4, regex="a|b", progress=False) == 2
    assert small_model.write_samples(few, n=4, num_beams=4, regex="a|b", progress=False, resume=True) == 2


def test_a_path_that_cannot_be_written_is_an_error(small_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the texts cannot be written"):
        small_model.write_samples(tmp_path, n=1, progress=False, resume=True)


def test_the_fingerprint_depends_on_the_weights(small_model: LanguageModel, tmp_path: Path) -> None:
    loaded = revgen.load(small_model.save(tmp_path / "model"))
    assert loaded.fingerprint == small_model.fingerprint

    loaded.weights = {name: array + 1e-3 for name, array in loaded.weights.items()}

    assert loaded.fingerprint != small_model.fingerprint


# The command -----------------------------------------------------------------------------


def test_the_command_writes_a_file_of_texts_that_can_be_regenerated(
    small_model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, path = str(small_model.save(tmp_path / "model")), tmp_path / "samples.jsonl"
    arguments = ["generate", directory, "-n", "40", "--prompt", "the ", "--seed", "3", "--out", str(path)]

    assert main([*arguments, "--max-tokens", "20", "--logit-bias", "e=-1"]) == 0

    assert capsys.readouterr().err.endswith(f"{path}: 40 texts\n")
    rows = lines(path)
    assert len(rows) == 40 and rows[33]["provenance"]["model"] == directory
    assert regenerated(small_model, rows[33]["provenance"]) == rows[33]["text"]


@pytest.mark.parametrize(
    "options",
    [
        {"banned_tokens": range(5, 9)},
        {"banned_tokens": torch.tensor([5, 8])},
        {"banned_tokens": {"e": 1}.keys()},
        {"banned_tokens": bytearray([5, 8])},
        {"temperature": range(1, 3)},
    ],
)
def test_provenance_holds_collections_of_every_type(
    small_model: LanguageModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "samples.jsonl"

    small_model.write_samples(path, "the ", n=2, seed=1, max_tokens=10, progress=False, **options)

    for row in lines(path):
        assert regenerated(small_model, row["provenance"]) == row["text"]


@pytest.mark.parametrize("prompt", ["naïve “漢字” \u2028 🎶", "a lone surrogate: \udc80, ä"])
def test_characters_that_are_not_ascii_are_kept_in_the_file(
    prompt: str, small_model: LanguageModel, tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"

    with warnings.catch_warnings(action="ignore"):
        small_model.write_samples(path, prompt, n=2, max_tokens=3, seed=1, progress=False)
        small_model.write_samples(path, prompt, n=4, max_tokens=3, seed=1, progress=False, resume=True)

    assert [row["text"].startswith(prompt) for row in lines(path)] == [True] * 4
    assert ("“漢字”" in path.read_text("utf-8")) == ("“漢字”" in prompt)
