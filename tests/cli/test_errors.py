"""Error messages of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import run_failing

from revgen.cli import build_parser
from revgen.cli.parser import replace_parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing", "invalid choice: 'nothing'; choose from list, info, generate"),
        ("genrate", "invalid choice: 'genrate'; did you mean generate"),
        ("generate MODEL --documents lin", "unrecognized option --documents"),
        ("evaluate MODEL TEXTS --documents lin", "invalid choice: 'lin'; did you mean line?"),
        ("fit elman-char TEXTS --out OUT --hidden-size 8", "option --hidden-size: give it as --set hidden_size=…"),
        ("fit elman-char TEXTS --out OUT --set epochs=8", "epochs is an option of training"),
        ("generate MODEL --length-penalty 2", "--length-penalty needs --num-beams"),
        ("explain MODEL song --top 0", "--top must be a whole number of at least 1, not 0"),
        ("datasets revews", "there is no data set 'revews'; did you mean reviews?"),
        ("datasets --out OUT", "--out writes the texts of one data set: name it"),
        ("completion bsh", "invalid choice: 'bsh'; did you mean bash"),
        ("generate MODEL --quiet --verbose", "not allowed with argument"),
        ("generate", "the following arguments are required: model"),
        ("generate MODEL --temprature 1", "unrecognized option --temprature; did you mean --temperature"),
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
        ("generate no/where", "no/where: no such directory"),
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
        ("fit elman-char TEXTS --out OUT --resume", "--resume needs the directory of the run to resume: --checkpoint"),
        ("fit elman-char TEXTS --out OUT --set hidden_size", "must have the form name=value, not 'hidden_size'"),
        ("fit elman-char TEXTS --out OUT --set hidden_size=big", "hidden_size must be"),
        ("fit elman-char TEXTS --out OUT --set hiden_size=8", "did you mean hidden_size"),
        ("fit elman-char TEXTS --out OUT --set name=8", "no option of elman 'name'"),
        ("fit elman-char TEXTS --out OUT --set tokenizer=8", "tokenizer must be"),
        ("fit MODEL TEXTS --out OUT --set hidden_size=8", "--set is for a new model"),
        ("fit elman-char TEXTS --out TEXTS", "--out"),
        ("fit elman-char TEXTS --out MODEL", "has a model already: add --overwrite to replace it"),
        ("fit elman-char TEXTS --out BELOW_A_FILE", "--out "),
    ],
)
@pytest.mark.usefixtures("hub")
def test_error_is_one_line_with_status_2(
    arguments: str,
    message: str,
    model_directory: str,
    texts_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {
        "MODEL": model_directory,
        "TEXTS": texts_file,
        "OUT": str(tmp_path / "out"),
        "BELOW_A_FILE": f"{texts_file}/out",
    }

    line = run_failing(capsys, *(words.get(word, word) for word in arguments.split()))

    assert message in line


BAD_OPTIONS = {
    "generate MODEL": (
        "--max-tokens=-1 --min-tokens=-1 --temperature=-1 --top-k=-1 --top-p=-1 --min-p=-1 --typical-p=-1 "
        "--repetition-penalty=-1 --frequency-penalty=nan --logit-bias=ab=1 --banned-tokens=ab --forced-tokens=0=ab "
        "--forced-tokens=900=a --stop= --regex=( --max-copied-chars=0 --num-beams=0 --length-penalty=nan --seed=-1 "
        "-n=0 --min-tokens=900"
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
    ("command", "option"), [(command, option) for command, options in BAD_OPTIONS.items() for option in options.split()]
)
def test_error_names_the_option_and_no_python_parameter(
    command: str, option: str, model_directory: str, texts_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"MODEL": model_directory, "TEXTS": texts_file, "OUT": str(tmp_path / "out")}

    line = run_failing(capsys, *(words.get(word, word) for word in command.split()), option)

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
def test_only_parameters_are_replaced_by_options(message: str, shown: str) -> None:
    _, commands = build_parser()
    assert replace_parameters(message, "generate", commands) == shown


def test_damaged_model_is_an_error_that_names_the_file(
    model_directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(model_directory) / "model.safetensors").write_bytes(b"nothing")

    assert "model.safetensors cannot be read: its header is cut off" in run_failing(capsys, "generate", model_directory)


def test_a_misspelled_directory_gets_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my-villages").mkdir()
    (tmp_path / "my-villages" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)

    assert "did you mean my-villages?" in run_failing(capsys, "generate", "my-vilages")


@pytest.mark.parametrize("arguments", [("nowhere.txt",), ("names.csv",), ("empty.txt",)])
def test_a_failed_fit_leaves_no_empty_directory(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("names.csv").write_text("name,region\nLannion,Brittany\n")

    message = run_failing(capsys, "fit", "kneser-ney-char", *arguments, "--out", "model", "--quiet")

    assert not Path("model").exists()
    if arguments == ("names.csv",):
        assert "no column 'text'; it has name, region: choose one with field (on the command line, --field)" in message
