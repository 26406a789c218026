"""The command line, as a person at a terminal and as a script meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import revgen
from revgen.cli import build_parser, main
from revgen.cli.parser import replace_parameters
from revgen.language_model import LanguageModel

WRITING = ("generate", "novelty", "explain", "synthesize", "write")
COMMANDS = ("list", "info", "fit", "evaluate", *WRITING, "push", "export", "pull", "cache")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(revgen.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def directory(small_model: LanguageModel, tmp_path: Path) -> str:
    """A saved model."""
    return str(small_model.save(tmp_path / "model"))


@pytest.fixture
def texts(reviews: list[str], tmp_path: Path) -> str:
    """A file of a few documents."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "body": text.upper()}) + "\n" for text in reviews[:15]), "utf-8")
    return str(path)


@pytest.fixture
def held_out(reviews: list[str], tmp_path: Path) -> str:
    """A file of one document."""
    path = tmp_path / "held_out.txt"
    path.write_text(reviews[50], "utf-8")
    return str(path)


SMALL = ("--set", "hidden_size=12", "--set", "num_layers=1", "--epochs", "1")


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that goes wrong; argparse ends the process itself."""
    try:
        status: Any = main(arguments)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("revgen"), captured.err
    return captured.err


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that goes well prints."""
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


# Help


def test_the_help_names_every_command_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])

    text = capsys.readouterr().out
    assert end.value.code == 0
    assert set(COMMANDS) < set(text.split())
    assert 'revgen generate lstm-char --prompt "the "' in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples_of_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])

    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert end.value.code == 0
    assert len(examples.splitlines()) >= 2
    assert all(line.startswith(f"  revgen {command}") for line in examples.splitlines())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"revgen {revgen.__version__}\n"


# list and info


def test_the_command_alone_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys).startswith("usage: revgen")


def test_list_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    printed = output(capsys, "list", "gru-*")

    assert printed == f"{revgen.models('gru-*')}\n"


def test_list_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(output(capsys, "list", "--json"))

    assert [row["name"] for row in rows] == revgen.list_models()


def test_list_shows_those_with_weights(
    capsys: pytest.CaptureFixture[str], small_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revgen.hub.PRETRAINED", tmp_path)
    small_model.save(tmp_path / "lstm-char")

    rows = json.loads(output(capsys, "list", "--pretrained", "--json"))

    assert [row["name"] for row in rows] == ["lstm-char"]


def test_list_of_nothing_is_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "list", "nothing-*", "--json") == "[]\n"
    assert len(output(capsys, "list", "nothing-*").splitlines()) == 2


def test_info_prints_the_card(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    written = (Path(directory) / "README.md").read_text(encoding="utf-8")

    assert output(capsys, "info", directory) == written.replace("path/to/this/directory", directory)


def test_info_prints_json(directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads(output(capsys, "info", directory, "--json"))

    assert known["name"] == "lstm-char"
    assert known["parameters"] == small_model.num_parameters
    assert known["config"]["hidden_size"] == 32


# generate


def test_generate_prints_what_the_model_writes(
    directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = output(capsys, "generate", directory, "--prompt", "the ", "--seed", "3", "--max-tokens", "40")

    assert printed == small_model.generate("the ", seed=3, max_tokens=40) + "\n"


def test_generate_takes_every_option_of_the_sampler(
    directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--temperature 0.7 --top-k 9 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.2 --stop . --stop , --seed 4"
    )

    printed = output(capsys, "generate", directory, "--prompt", "the ", *arguments.split())

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


def test_generate_takes_every_option_of_what_a_text_is(
    directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(arguments: str) -> str:
        return output(capsys, "generate", directory, "--prompt", "the ", *arguments.split()).removesuffix("\n")

    options: dict[str, Any] = {"seed": 4, "max_tokens": 30}
    plain = "--seed 4 --max-tokens 30 "
    assert printed(plain + "--temperature 0.2,2,0") == small_model.generate("the ", temperature=[0.2, 2, 0], **options)
    assert printed(plain + "--typical-p 0.5 --frequency-penalty 0.3") == small_model.generate(
        "the ", typical_p=0.5, frequency_penalty=0.3, **options
    )
    assert printed(
        plain + "--banned-tokens e --banned-tokens a --logit-bias s=2 --logit-bias .=-1 --min-tokens 9"
    ) == small_model.generate("the ", banned_tokens=["e", "a"], logit_bias={"s": 2, ".": -1}, min_tokens=9, **options)
    assert printed(plain + "--forced-tokens 0=b --forced-tokens 2=x") == small_model.generate(
        "the ", forced_tokens={0: "b", 2: "x"}, **options
    )
    assert printed(plain + "--regex [a-f]{9}") == small_model.generate("the ", regex="[a-f]{9}", **options)
    assert printed("--choices song --choices band --seed 1") in ("the song", "the band")
    assert printed("--num-beams 3 --length-penalty 0.5 --max-tokens 9") == small_model.generate(
        "the ", num_beams=3, length_penalty=0.5, max_tokens=9
    )


def test_generate_tells_what_is_copied(reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = revgen.create("kneser-ney-char", order=12)
    model.fit(reviews[:30], index_texts=True, progress=False)
    directory = str(model.save(tmp_path / "model"))
    arguments = ("--prompt", "the ", "--seed", "1", "--max-tokens", "80")

    assert main(["generate", directory, *arguments, "--check-novelty"]) == 0
    captured = capsys.readouterr()
    row = json.loads(output(capsys, "generate", directory, *arguments, "--check-novelty", "--json"))
    short = json.loads(
        output(capsys, "generate", directory, *arguments, "--check-novelty", "--max-copied-chars=6", "--json")
    )

    assert captured.out == model.generate("the ", seed=1, max_tokens=80) + "\n"
    assert captured.err == f"{model.novelty(captured.out[:-1])}\n"
    assert row["copied"] == model.novelty(row["text"]).to_dict()
    assert short["copied"]["longest"] <= 6 < row["copied"]["longest"]


def test_novelty_prints_what_of_each_text_is_copied(
    directory: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, sample = tmp_path / "training.txt", tmp_path / "sample.jsonl"
    training.write_text("\n\n".join(reviews[:5]), "utf-8")
    texts = ["Nothing.", f"Here it says: {reviews[3][:50]}#"]
    sample.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    arguments = ("novelty", directory, str(sample), "--training", str(training))

    rows = [json.loads(line) for line in output(capsys, *arguments, "--json").splitlines()]
    table = output(capsys, *arguments).splitlines()

    assert [row["text"] for row in rows] == [1, 2]
    assert rows[0]["spans"] == [] and rows[0]["longest"] < 8
    assert rows[1]["longest"] in (50, 51) and rows[1]["spans"][-1][1] == 64
    assert len(table) == 4 and " ".join(reviews[3][:50].split()) in table[3]
    assert "has no index of its training text" in error(capsys, "novelty", directory, str(sample))


def test_fit_keeps_the_text_on_request(tmp_path: Path, reviews: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "text.txt", str(tmp_path / "model")
    text.write_text("\n".join(reviews[:10]), "utf-8")

    output(capsys, "fit", "kneser-ney-char", str(text), "--index-texts", "--out", out)

    assert revgen.load(out).novelty(reviews[3]).fraction == 1


def test_generate_writes_several_texts(
    directory: str, small_model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = output(capsys, "generate", directory, "-n", "3", "--seed", "3", "--max-tokens", "20")

    assert printed == "---\n".join(f"{text}\n" for text in small_model.generate(n=3, seed=3, max_tokens=20))


@pytest.mark.parametrize("n", [1, 3])
def test_generate_prints_one_json_object_a_line(n: int, directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = output(capsys, "generate", directory, "-n", str(n), "--prompt", "the ", "--seed", "3", "--json")

    found = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in found] == revgen.load(directory).generate("the ", n=n, seed=3)
    assert {(row["model"], row["prompt"]) for row in found} == {("lstm-char", "the ")}


def test_a_prompt_that_an_old_vocabulary_cannot_write_is_one_line_of_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["generate", "gru-char", "--prompt", "the 漢", "--max-tokens", "3"]) == 0

    captured = capsys.readouterr()
    assert captured.out.startswith("the 漢")
    assert captured.err == "revgen: gru-char does not know '漢': read as <unk>\n"


# fit and evaluate


def test_fit_then_generate_then_evaluate(
    texts: str, held_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "fitted")

    printed = output(capsys, "fit", "gru-char", texts, *SMALL, "--valid", "0.2", "--out", out)
    text = output(capsys, "generate", out, "--prompt", "the ", "--seed", "1", "--max-tokens", "9")
    figures = json.loads(output(capsys, "evaluate", out, held_out, "--json"))
    line = output(capsys, "evaluate", out, held_out)

    model = revgen.load(out)
    assert "nats_per_char" in printed and f"revgen generate {out}" in printed
    assert (model.name, model.config.hidden_size, model.config.num_layers) == ("gru-char", 12, 1)
    assert text == model.generate("the ", seed=1, max_tokens=9) + "\n"
    assert figures == model.evaluate(held_out).to_dict()
    assert {"nats_per_char", "bits_per_char", "perplexity", "tokens", "characters"} <= figures.keys()
    assert line == f"{model.evaluate(held_out)}\n"


def test_fit_prints_json_and_validates_on_a_file(
    texts: str, held_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fitted"

    arguments = ("fit", "rnn-char", texts, *SMALL, "--epochs", "2", "--valid", held_out, "--out", str(out), "--json")
    known = json.loads(output(capsys, *arguments))

    assert known["directory"] == str(out)
    assert [epoch["epoch"] for epoch in known["epochs"]] == [1, 2]
    best = min(epoch["nats_per_char"] for epoch in known["epochs"])
    assert revgen.load(out).evaluate(held_out).nats_per_char == pytest.approx(best, abs=1e-3)


def test_fit_without_validation(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = output(capsys, "fit", "gru-char", texts, *SMALL, "--out", str(tmp_path / "fitted"))

    assert "train_loss" in printed and "nats_per_char" not in printed


def test_fit_goes_on_from_a_directory(
    directory: str, texts: str, held_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "finer")

    output(capsys, "fit", directory, texts, "--epochs", "1", "--out", out)

    before, after = revgen.load(directory), revgen.load(out)
    assert (after.config, after.tokenizer) == (before.config, before.tokenizer)
    assert after.evaluate(texts).nats_per_char < before.evaluate(texts).nats_per_char


def test_fit_goes_on_in_place(directory: str, texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = revgen.load(directory).evaluate(texts).nats_per_char

    output(capsys, "fit", directory, texts, "--epochs", "1", "--out", directory)

    assert revgen.load(directory).evaluate(texts).nats_per_char < before


def test_fit_learns_new_characters_on_request(
    directory: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "new.txt", str(tmp_path / "wider")
    path.write_text("漢字漢字漢字" + "\n".join(reviews[:10]), encoding="utf-8")

    output(capsys, "fit", directory, str(path), "--epochs", "1", "--out", out)
    assert not {"漢", "字"} & set(revgen.load(out).tokenizer.vocabulary)

    output(capsys, "fit", directory, str(path), "--epochs", "1", "--extend-vocabulary", "--out", out)
    assert {"漢", "字"} <= set(revgen.load(out).tokenizer.vocabulary)


def test_fit_takes_settings_of_every_kind(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("nonlinearity=relu", "residual=false", "dropout=0", "embedding_size=7", 'tokenizer={"min_count": 1}')
    out = str(tmp_path / "fitted")

    output(capsys, "fit", "rnn-char", texts, *SMALL, *(f"--set={text}" for text in settings), "--out", out)

    config = revgen.load(out).config
    assert (config.cell_options, config.residual, config.dropout) == ({"nonlinearity": "relu"}, False, 0)
    assert config.embedding_size == 7


def test_fit_takes_the_numbers_of_its_recipe(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "fitted")
    numbers = "--batch-size 3 --sequence-length 50 --learning-rate 0.001 --patience 2 --seed 7 --max-seconds 60"

    output(capsys, "fit", "gru-char", texts, *SMALL, *numbers.split(), "--out", out)

    training = revgen.load(out).metadata["training"]
    wanted = {"batch_size": 3, "sequence_length": 50, "learning_rate": 0.001, "patience": 2, "seed": 7}
    assert training | wanted == training


def test_fit_resumes_from_a_checkpoint(texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("fit", "gru-char", texts, *SMALL, "--epochs", "2", "--out", str(tmp_path / "out"), "--json")
    checkpoint = ("--checkpoint", str(tmp_path / "checkpoint"))

    first = json.loads(output(capsys, *common, *checkpoint))
    again = json.loads(output(capsys, *common, *checkpoint, "--resume"))

    assert again["epochs"] == first["epochs"], "it was done, and nothing was trained anew"


def test_the_field_and_the_documents_of_a_file_are_chosen(
    directory: str, texts: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one line\nanother line\n", encoding="utf-8")

    body = json.loads(output(capsys, "evaluate", directory, texts, "--field", "body", "--json"))
    by_line = json.loads(output(capsys, "evaluate", directory, str(lines), "--documents", "line", "--json"))
    both = json.loads(output(capsys, "evaluate", directory, texts, str(lines), "--json"))

    assert body["characters"] == sum(len(text.upper()) for text in reviews[:15])
    assert by_line["documents"] == 2
    assert both["documents"] == 16


def test_bad_lines_are_an_error_or_passed_over(directory: str, texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(texts).open("a", encoding="utf-8") as file:
        file.write("{broken\n")

    line = error(capsys, "evaluate", directory, texts)
    figures = json.loads(output(capsys, "evaluate", directory, texts, "--errors", "skip", "--json"))

    assert f"{texts}, line 16" in line
    assert figures["documents"] == 15


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing", "invalid choice"),
        ("generate", "the following arguments are required: model"),
        ("generate MODEL --temprature 1", "unrecognized arguments"),
        ("generate MODEL --temperature hot", "--temperature: invalid float value: 'hot'"),
        ("generate MODEL --temperature -1", "--temperature must be 0 or more, not -1"),
        ("generate MODEL --temperature nan", "--temperature must be"),
        ("generate MODEL --temperature 1,hot", "--temperature: invalid float value: '1,hot'"),
        ("generate MODEL --logit-bias e", "--logit-bias: not TOKEN=BIAS: 'e'"),
        ("generate MODEL --forced-tokens e=1", "--forced-tokens: not INDEX=TOKEN: 'e=1'"),
        ("generate MODEL --regex (", "--regex must be a regular expression"),
        ("generate MODEL --choices a --regex b", "--choices does not combine with --regex"),
        ("generate MODEL --max-copied-chars 9", "has no index of its training text: fit it with --index-texts"),
        ("generate MODEL --resume", "--resume continues a file: add --out"),
        ("generate MODEL --top-k 0", "--top-k must be"),
        ("generate MODEL --top-p 1.5", "--top-p must be"),
        ("generate MODEL --min-p 2", "--min-p must be"),
        ("generate MODEL --repetition-penalty 0", "--repetition-penalty must be"),
        ("generate MODEL --max-tokens -1", "--max-tokens must be"),
        ("generate MODEL --seed -1", "--seed must be"),
        ("generate MODEL --stop=", "--stop must be"),
        ("generate MODEL -n 0", ": -n must be"),
        ("generate MODEL -n 0 --json", ": -n must be"),
        ("generate MODEL --device nowhere", "device 'nowhere' cannot be used"),
        ("generate lstn-chat", "no pretrained model or directory 'lstn-chat'"),
        ("generate no/where", "no/where: there is no such directory"),
        ("generate .", "not a model directory"),
        ("info elman-word", "elman-word has no pretrained weights: train it with revgen fit elman-word"),
        ("evaluate MODEL", "the following arguments are required: texts"),
        ("evaluate MODEL nowhere.txt", "nowhere.txt: there is no such file"),
        ("evaluate MODEL TEXTS --field nothing", "no field 'nothing'"),
        ("evaluate MODEL TEXTS --documents page", "invalid choice: 'page'"),
        ("evaluate elman-word TEXTS", "elman-word has no pretrained weights"),
        ("fit elman-char TEXTS", "the following arguments are required: --out"),
        ("fit elman-char nowhere.txt --out OUT", "nowhere.txt: there is no such file"),
        ("fit gru-chor TEXTS --out OUT", "no model 'gru-chor'; did you mean gru-char"),
        ("fit elman-char TEXTS --out OUT --epochs 0", "--epochs must be"),
        ("fit elman-char TEXTS --out OUT --epochs x", "--epochs: invalid int value: 'x'"),
        ("fit elman-char TEXTS --out OUT --max-seconds -1", "--max-seconds must be"),
        ("fit elman-char TEXTS --out OUT --batch-size 0", "--batch-size must be"),
        ("fit elman-char TEXTS --out OUT --learning-rate nan", "--learning-rate must be"),
        ("fit elman-char TEXTS --out OUT --valid 1.5", "--valid must be"),
        ("fit elman-char TEXTS --out OUT --valid nowhere.txt", "nowhere.txt: there is no such file"),
        ("fit elman-char TEXTS --out OUT --device nowhere", "device 'nowhere' cannot be used"),
        ("fit elman-char TEXTS --out OUT --resume", "--resume needs the directory to continue from: --checkpoint"),
        ("fit elman-char TEXTS --out OUT --set hidden_size", "must have the form name=value, not 'hidden_size'"),
        ("fit elman-char TEXTS --out OUT --set hidden_size=big", "hidden_size must be"),
        ("fit elman-char TEXTS --out OUT --set hiden_size=8", "did you mean hidden_size"),
        ("fit elman-char TEXTS --out OUT --set name=8", "no option of elman 'name'"),
        ("fit elman-char TEXTS --out OUT --set tokenizer=8", "tokenizer must be"),
        ("fit MODEL TEXTS --out OUT --set hidden_size=8", "--set is for a new model"),
        ("fit elman-char TEXTS --out TEXTS", "--out"),
        ("fit elman-char TEXTS --out /proc/nowhere", "--out /proc/nowhere"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_an_error_is_one_line_and_the_status_is_2(
    arguments: str, message: str, directory: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": directory, "TEXTS": texts, "OUT": str(tmp_path / "out")}

    line = error(capsys, *(places.get(word, word) for word in arguments.split()))

    assert message in line


BAD = {
    "generate MODEL": (
        "--max-tokens=-1 --min-tokens=-1 --temperature=-1 --top-k=-1 --top-p=-1 --min-p=-1 --typical-p=-1 "
        "--repetition-penalty=-1 --frequency-penalty=nan --logit-bias=ab=1 --banned-tokens=ab --forced-tokens=0=ab "
        "--forced-tokens=900=a --stop= "
        "--regex=( --max-copied-chars=0 --num-beams=0 --length-penalty=nan --seed=-1 -n=0 --min-tokens=900"
    ),
    "generate MODEL --out OUT --max-tokens 3": "--batch-size=0",
    "fit elman-char TEXTS --out OUT": (
        "--epochs=0 --max-seconds=0 --batch-size=0 --sequence-length=0 --learning-rate=0 --patience=0 --seed=-1 "
        "--preset=slow --gradient-accumulation-steps=0 --valid=2"
    ),
    "explain MODEL song": "--top=-1",
    "novelty MODEL TEXTS --training TEXTS": "--minimum=0",
    "compare TEXTS --models ngram-char": "--valid=2 --max-order=-1",
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, several in BAD.items() for option in several.split()]
)
def test_a_message_speaks_of_the_options_of_the_command_line(
    command: str, option: str, directory: str, texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": directory, "TEXTS": texts, "OUT": str(tmp_path / "out")}

    line = error(capsys, *(places.get(word, word) for word in command.split()), option)

    flag = option.partition("=")[0]
    assert re.search(rf"(^|\s){flag}\s", line), line
    assert not re.search(r"\b[a-z]+_[a-z]+\b|=True", line.replace(str(tmp_path), "")), line


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("continue it with resume=True", "continue it with --resume"),
        ("only 3 tokens for batch_size=64; try less", "only 3 tokens for --batch-size 64; try less"),
        ("pass errors='skip' or field=\"body\"", "pass --errors 'skip' or --field \"body\""),
        ("label must be 'a', not 'seed must be'", "--label must be 'a', not 'seed must be'"),
        ("the seed of a text, which has a label", "the seed of a text, which has a label"),
        ("/tmp/max_tokens/x.txt: there is no such file", "/tmp/max_tokens/x.txt: there is no such file"),
        ("there is no model 'batch_size'", "there is no model 'batch_size'"),
    ],
)
def test_parameters_become_options_and_other_words_stay(message: str, shown: str) -> None:
    _, commands = build_parser()
    assert replace_parameters(message, "generate", commands) == shown


def test_a_damaged_model_is_an_error_that_names_its_file(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(directory) / "model.safetensors").write_bytes(b"nothing")

    assert "model.safetensors is damaged" in error(capsys, "generate", directory)


def test_an_option_that_an_architecture_is_not_trained_with_is_named(
    texts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counting(LanguageModel):
        """A model that is fitted by counting."""

        def fit(self, texts: Any, valid: Any = None, *, labels: Any = None) -> Any:  # type: ignore[override]
            raise NotImplementedError

    Counting.__abstractmethods__ = frozenset()
    Counting.Config = type(revgen.create("gru-char").config)
    revgen.register_model("counting")(Counting)
    try:
        line = error(capsys, "fit", "counting-char", texts, "--epochs", "2", "--out", str(tmp_path / "out"))
    finally:
        revgen.registry.architectures.unregister("counting")

    assert "counting-char is not trained with --epochs" in line


# A process of its own


def test_python_m_revgen_is_the_command(directory: str, small_model: LanguageModel) -> None:
    command = [sys.executable, "-m", "revgen", "generate", directory, "--seed", "1", "--max-tokens", "20"]

    done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8", env=ENVIRONMENT)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == small_model.generate(seed=1, max_tokens=20) + "\n"


def test_an_error_of_the_process_is_one_line_too() -> None:
    command = [sys.executable, "-m", "revgen", "generate", "lstn-chat"]

    done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8", env=ENVIRONMENT)

    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["list", "generate {} --max-tokens 5000", "generate {} -n 50 --json", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(command: str, directory: str) -> None:
    words = command.format(directory).split()
    with subprocess.Popen(
        [sys.executable, "-m", "revgen", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        printed = process.stderr.read().decode()

    assert process.returncode == 0
    assert printed == ""


def test_a_terminal_that_does_not_know_a_character_gets_another(directory: str) -> None:
    command = [sys.executable, "-m", "revgen", "generate", directory, "--prompt", "the “", "--max-tokens", "3"]

    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})

    assert done.returncode == 0
    assert done.stdout.startswith(b"the ?")
    assert b"Traceback" not in done.stderr


def test_fit_goes_on_with_pretrained_weights_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The band plays the song again and again. " * 60, "utf-8")
    command = ["fit", "lstm-char", str(text), "--epochs", "1", "--out", str(tmp_path / "model"), "--json"]

    assert main(command) == 0
    assert "--pretrained" in capsys.readouterr().err
    new = revgen.load(tmp_path / "model")
    assert main([*command, "--pretrained"]) == 0
    finer = revgen.load(tmp_path / "model")
    assert finer.config == revgen.load("lstm-char").config != new.config
