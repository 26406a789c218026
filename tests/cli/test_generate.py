"""``revgen generate``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run, run_failing

import revgen
from revgen.cli import main
from revgen.language_model import LanguageModel


def test_generate_prints_the_text_that_the_python_function_returns(
    model_directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "generate", model_directory, "--prompt", "the ", "--seed", "3", "--max-tokens", "40")

    assert printed == small_model.generate("the ", seed=3, max_tokens=40) + "\n"


def test_generate_has_an_option_for_every_field_of_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])

    usage = capsys.readouterr().out
    for field in dataclasses.fields(revgen.GenerationConfig):
        if "Guide" not in str(field.type):
            flag = "--filter" if field.name == "filters" else f"--{field.name.replace('_', '-')}"
            assert f"[{flag} " in usage or f"[{flag}]" in usage


def test_generate_applies_registered_filters(model_directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    @revgen.register_filter("only-e")
    class OnlyE:
        """Make "e" the most likely token."""

        def __call__(self, logits: Any, context: Any) -> Any:
            logits = logits * 0
            logits[:, revgen.load(model_directory).tokenizer.encode("e")[0]] = 50
            return logits

    try:
        text = run(capsys, "generate", model_directory, "--filter", "only-e", "--max-tokens", "4")
    finally:
        revgen.registry.filters.unregister("only-e")

    assert text == "eeee\n"
    assert "no filter 'only-e'" in run_failing(capsys, "generate", model_directory, "--filter", "only-e")


def test_generate_takes_every_sampling_option(
    model_directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--temperature 0.7 --top-k 9 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.2 --stop . --stop , --seed 4"
    )

    printed = run(capsys, "generate", model_directory, "--prompt", "the ", *arguments.split())

    assert printed == "{}\n".format(
        small_model.generate(
            "the ",
            temperature=0.7,
            top_k=9,
            top_p=0.9,
            min_p=0.01,
            repetition_penalty=1.2,
            stop=[".", ","],
            seed=4,
        )
    )


def test_generate_takes_schedules_penalties_constraints_and_beams(
    model_directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(arguments: str) -> str:
        return run(capsys, "generate", model_directory, "--prompt", "the ", *arguments.split()).removesuffix("\n")

    options: dict[str, Any] = {"seed": 4, "max_tokens": 30}
    common = "--seed 4 --max-tokens 30 "
    assert printed(common + "--temperature 0.2,2,0") == small_model.generate("the ", temperature=[0.2, 2, 0], **options)
    assert printed(common + "--typical-p 0.5 --frequency-penalty 0.3") == small_model.generate(
        "the ", typical_p=0.5, frequency_penalty=0.3, **options
    )
    bans = "--banned-tokens e --banned-tokens a --logit-bias s=2 --logit-bias .=-1 --min-tokens 9"
    assert printed(common + bans) == small_model.generate(
        "the ", banned_tokens=["e", "a"], logit_bias={"s": 2, ".": -1}, min_tokens=9, **options
    )
    assert printed(common + "--forced-tokens 0=b --forced-tokens 2=x") == small_model.generate(
        "the ", forced_tokens={0: "b", 2: "x"}, **options
    )
    assert printed(common + "--regex [a-f]{9}") == small_model.generate("the ", regex="[a-f]{9}", **options)
    assert printed("--choices song --choices band --seed 1") in ("the song", "the band")
    assert printed("--num-beams 3 --length-penalty 0.5 --max-tokens 9") == small_model.generate(
        "the ", num_beams=3, length_penalty=0.5, max_tokens=9
    )


def test_generate_reports_what_is_copied(
    reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = revgen.create("kneser-ney-char", order=12)
    model.fit(reviews[:30], index_texts=True, progress=False)
    directory = str(model.save(tmp_path / "model"))
    arguments = ("--prompt", "the ", "--seed", "1", "--max-tokens", "80")

    assert main(["generate", directory, *arguments, "--check-novelty"]) == 0
    captured = capsys.readouterr()
    row = json.loads(run(capsys, "generate", directory, *arguments, "--check-novelty", "--json"))
    short = json.loads(
        run(capsys, "generate", directory, *arguments, "--check-novelty", "--max-copied-chars=6", "--json")
    )

    assert captured.out == model.generate("the ", seed=1, max_tokens=80) + "\n"
    assert captured.err == f"{model.novelty(captured.out[:-1])}\n"
    assert row["copied"] == model.novelty(row["text"]).to_dict()
    assert short["copied"]["longest"] <= 6 < row["copied"]["longest"]


def test_generate_separates_several_texts(
    model_directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "generate", model_directory, "-n", "3", "--seed", "3", "--max-tokens", "20")

    assert printed == "---\n".join(f"{text}\n" for text in small_model.generate(n=3, seed=3, max_tokens=20))


@pytest.mark.parametrize("n", [1, 3])
def test_generate_prints_one_json_object_per_line(
    n: int, model_directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, "generate", model_directory, "-n", str(n), "--prompt", "the ", "--seed", "3", "--json")

    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in rows] == revgen.load(model_directory).generate("the ", n=n, seed=3)
    assert {(row["model"], row["prompt"]) for row in rows} == {("lstm-char", "the ")}


def test_unknown_characters_in_the_prompt_are_a_warning_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "gru-char", "--prompt", "the 漢", "--max-tokens", "3"]) == 0

    captured = capsys.readouterr()
    assert captured.out.startswith("the 漢")
    assert captured.err == "revgen: gru-char does not know '漢' and reads <unk> instead\n"
