"""The command ``revgen``: parses, calls the public face, prints."""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from revgen.errors import CheckpointError, OptionError, RevgenError
from revgen.files import expand_user, is_first_process, to_json
from revgen.version import __version__

MODEL = "the name of a pretrained model, the directory of a saved one, or a repository on the Hub (me/name)"
COLUMNS = ("name", "revisions", "commit", "size")
REVISION = "the branch, tag or commit, of a repository"
SEPARATOR = "---\n"
EXAMPLES = {
    "": """examples:
  revgen generate lstm-char --prompt "the "
  revgen fit gru-char reviews.txt --valid 0.1 --epochs 5 --out my-model
  revgen evaluate my-model held_out.txt
  revgen list "lstm-*\"""",
    "list": """examples:
  revgen list
  revgen list "gru-*" --pretrained --json""",
    "info": """examples:
  revgen info lstm-char
  revgen info my-model --json""",
    "generate": """examples:
  revgen generate lstm-char --prompt "the "
  revgen generate my-model -n 5 --temperature 0.7 --top-p 0.95 --seed 1 --json
  revgen generate my-model -n 1000 --out samples.jsonl
  revgen generate me/my-model --revision v1""",
    "fit": """examples:
  revgen fit lstm-char reviews.txt --valid 0.1 --epochs 5 --out my-model
  revgen fit gru-word posts.jsonl --field body --max-seconds 300 --set hidden_size=128 --out my-model
  revgen fit my-model more.txt --epochs 2 --out my-finer-model
  revgen fit lstm-char reviews.txt --pretrained --extend-vocabulary --out my-finer-model""",
    "synthesize": """examples:
  revgen synthesize lstm-char my-model --prompt "the " --temperature 0.7
  revgen synthesize lstm-char my-model -n 5 --max-tokens 200 --seed 1 --json""",
    "write": """examples:
  revgen write lstm-char
  revgen write my-model --prompt "Dear " --out letter.txt --temperature 0.8""",
    "remake": """examples:
  revgen remake samples.jsonl --line 17
  revgen remake samples.jsonl --line 17 --model my-model --json""",
    "explain": """examples:
  revgen explain lstm-char "the song is over"
  revgen explain my-model "the song is over" --html explained.html --attention attention.png""",
    "novelty": """examples:
  revgen novelty my-model samples.jsonl
  revgen novelty lstm-char sample.txt --training reviews.txt --minimum 30 --json""",
    "evaluate": """examples:
  revgen evaluate lstm-char held_out.txt
  revgen evaluate my-model posts.csv --field body --json""",
    "compare": """examples:
  revgen compare reviews.txt --epochs 3 --out report
  revgen compare posts.jsonl --field body --models kneser-ney-char:order=8 gru-char lstm-char:hidden_size=128 \\
    --max-seconds 60 --valid held_out.txt --prompt "the " --out report""",
    "push": """examples:
  revgen push my-model me/my-model --private
  revgen push my-model me/my-model --revision v2 --message "Train for longer"
  revgen push zoo/* --organization my-organization""",
    "export": """examples:
  revgen export lstm-char --out my-graph
  revgen export me/my-model --revision v1 --out my-graph --json""",
    "pull": """examples:
  revgen pull me/my-model
  revgen pull me/my-model --revision v1""",
    "cache": """examples:
  revgen cache
  revgen cache --remove me/my-model""",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    commands: Mapping[str, argparse.ArgumentParser] = {}
    """The parser of each command by its name."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it went well, 2 for an error that the line on standard error explains."""
    top = parser()
    options = top.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character that is drawn
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(f"revgen: {message}", file=sys.stderr)
            options.run(options)
        sys.stdout.flush()
    except RevgenError as error:
        message = name_options(" ".join(error.command.split()), [top.commands[options.command], *top.commands.values()])
        print(f"revgen: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    return 0


def parser() -> Parser:
    """The command line and its help."""
    top = Parser(
        prog="revgen",
        description="A zoo of small language models: generate text, train on your own, evaluate.",
        epilog=EXAMPLES[""],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"revgen {__version__}")
    top.set_defaults(run=lambda _: top.print_help())
    commands = top.add_subparsers(metavar="COMMAND", dest="command")
    top.commands = commands.choices

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print JSON")
        return added

    listing = command("list", _list, "list the models")
    listing.add_argument("pattern", nargs="?", default="*", help='names with wildcards, like "lstm-*"')
    listing.add_argument("--pretrained", action="store_true", help="only those with weights")

    info = command("info", _info, "show what is known of a model")
    info.add_argument("model", help=MODEL)
    info.add_argument("--revision", help=REVISION)

    generate = command("generate", _generate, "write text")
    generate.add_argument("model", help=MODEL)
    generate.add_argument("--revision", help=REVISION)
    generate.add_argument("--prompt", default="", help="the text to go on from")
    generate.add_argument("-n", type=int, default=1, help="how many texts (default: 1)")
    _add_generating(generate)
    generate.add_argument(
        "--out", metavar="FILE", help="write the texts to a file of JSON lines, each with its receipt"
    )
    generate.add_argument("--resume", action="store_true", help="go on with a file that was cut off")
    generate.add_argument("--batch-size", type=int, default=32, help="texts side by side, with --out (default: 32)")
    generate.add_argument("--device", default="cpu", help='"cpu" (default), "cuda", …')

    fit = command("fit", _fit, "train a new model, or go on with one that has weights")
    fit.add_argument("model", help="the name of a new model, or the directory of a saved one to go on with")
    fit.add_argument("texts", nargs="+", help="files, directories, globs, or - for standard input")
    fit.add_argument("--pretrained", action="store_true", help="go on with the pretrained weights of that name")
    fit.add_argument("--out", required=True, help="the directory to save the model in")
    fit.add_argument("--valid", help="the share to hold out for validation, or a file")
    fit.add_argument("--labels", metavar="FIELD", help="the column or JSON field with a label of each document")
    fit.add_argument("--epochs", type=int, help="passes over the text (default: by the preset and the corpus)")
    fit.add_argument("--preset", help='how much to read and how wide to be: "quick", "balanced" (default), "best"')
    fit.add_argument("--max-seconds", type=float, help="a budget of time")
    fit.add_argument("--batch-size", type=int, help="rows of text side by side (default: by the corpus)")
    fit.add_argument(
        "--gradient-accumulation-steps", type=int, help="compute each batch in so many parts, for less memory"
    )
    fit.add_argument("--sequence-length", type=int, help="how far gradients reach back, in tokens")
    fit.add_argument("--learning-rate", type=float, help="the peak of the schedule")
    fit.add_argument("--patience", type=int, help="stop after so many epochs without a better one")
    fit.add_argument("--seed", type=int, help="the same seed gives the same weights (default: 0)")
    fit.add_argument("--checkpoint", help="a directory to keep the state of training in, each epoch and each minute")
    fit.add_argument("--resume", action="store_true", help="go on from the last state in --checkpoint, if there is one")
    fit.add_argument("--extend-vocabulary", action="store_true", help="learn characters new to a model with weights")
    fit.add_argument("--index-texts", action="store_true", help="keep the text with the model, to tell what it copies")
    fit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of a new model")
    fit.add_argument("--device", default="cpu", help='"cpu" (default), "cuda", …')
    _add_reading(fit)

    together = command("synthesize", _synthesize, "let several models write a text in turn, word by word")
    together.add_argument("models", nargs="+", metavar="MODEL", help=MODEL)
    together.add_argument("--prompt", default="", help="the text to go on from")
    together.add_argument("-n", type=int, default=1, help="how many texts (default: 1)")
    _add_generating(together)

    write = command("write", _write, "write a text together with a model, in the terminal")
    write.add_argument("model", help=MODEL)
    write.add_argument("--prompt", default="", help="the text to begin with")
    write.add_argument("--out", metavar="FILE", default="text.txt", help="where Ctrl-S saves it (default: text.txt)")
    write.add_argument("--temperature", type=float, default=1.0, help="to begin with (default: 1)")
    write.add_argument("--seed", type=int, help="of what the model draws")

    remake = command("remake", _remake, "make a text of a file again from its receipt")
    remake.add_argument("file", help="a file that revgen generate --out wrote")
    remake.add_argument("--line", type=int, default=1, help="which line (default: 1)")
    remake.add_argument("--model", help="where the model is now, if not where the receipt says")
    remake.add_argument("--device", default="cpu", help='"cpu" (default), "cuda", …')

    explain = command("explain", _explain, "show how a model expected each token of a text")
    explain.add_argument("model", help=MODEL)
    explain.add_argument("text", help="the text")
    explain.add_argument("--top", type=int, default=5, help="how many alternatives to show (default: 5)")
    explain.add_argument("--html", metavar="FILE", help="write the coloured text as HTML")
    explain.add_argument("--attention", metavar="FILE", help="write a picture of the attention weights (.png, .svg, …)")
    explain.add_argument("--label", help="the label that the text has")

    novelty = command("novelty", _novelty, "tell what of a text is copied from a model's training text")
    novelty.add_argument("model", help=MODEL)
    novelty.add_argument("texts", nargs="+", help="files or directories, as for fit")
    novelty.add_argument(
        "--training", nargs="+", metavar="FILE", help="the training text, for a model without its index"
    )
    novelty.add_argument(
        "--minimum", type=int, default=20, help="the shortest span that counts (default: 20 characters)"
    )
    _add_reading(novelty)

    evaluate = command("evaluate", _evaluate, "measure how well a model predicts text")
    evaluate.add_argument("model", help=MODEL)
    evaluate.add_argument("texts", nargs="+", help="files or directories, as for fit")
    evaluate.add_argument("--revision", help=REVISION)
    evaluate.add_argument("--labels", metavar="FIELD", help="the column or JSON field with a label of each document")
    evaluate.add_argument("--device", default="cpu", help='"cpu" (default), "cuda", …')
    _add_reading(evaluate)

    compare = command("compare", _compare, "train several models on the same text and put them side by side")
    compare.add_argument("texts", nargs="+", metavar="CORPUS", help="files or directories, as for fit")
    compare.add_argument("--models", nargs="+", metavar="NAME[:OPTION=VALUE,…]", help="new models, with their options")
    compare.add_argument("--out", help="the directory to write report.html, report.md and report.json in")
    compare.add_argument("--valid", default="0.1", help="the share to hold out, or a file (default: 0.1)")
    compare.add_argument("--epochs", type=int, help="the budget of each model: passes over the text (default: 10)")
    compare.add_argument("--max-seconds", type=float, help="the budget of each model: time")
    compare.add_argument("--prompt", default="the ", help='what the samples go on from (default: "the ")')
    compare.add_argument("--max-tokens", type=int, default=300, help="the longest sample (default: 300)")
    compare.add_argument("--temperature", type=float, default=1.0, help="of the samples (default: 1)")
    compare.add_argument("--max-order", type=int, default=10, help="of the curve over n-gram orders; 0: no curve")
    compare.add_argument("--seed", type=int, default=0, help="of split, training and samples (default: 0)")
    _add_reading(compare)

    push = command("push", _push, "put a model on the Hub, or several")
    push.add_argument("models", nargs="+", metavar="MODEL", help="the directory of a saved model; then the repository")
    push.add_argument("--organization", help="push each of several directories, by its name, to this owner")
    push.add_argument("--private", action="store_true", default=None, help="if the repository is made, for you alone")
    push.add_argument("--revision", help="the branch, which is made where it is not there")
    push.add_argument("--message", help="of the commit")
    push.add_argument("--overwrite-card", action="store_true", help="write the card anew though there is one")

    export = command("export", _export, "write one step of a network as ONNX, for other programs")
    export.add_argument("model", help=MODEL)
    export.add_argument("--revision", help=REVISION)
    export.add_argument("--out", required=True, help="the directory for the graph and the tokenizer")

    pull = command("pull", _pull, "download a model from the Hub into the cache")
    pull.add_argument("model", help="a repository (me/name), or the name of a pretrained model")
    pull.add_argument("--revision", help=REVISION)

    cache = command("cache", _cache, "list the models that are in the cache of the Hub")
    cache.add_argument("--remove", metavar="MODEL", help="take this one out of it")
    return top


def name_options(message: str, parsers: Iterable[argparse.ArgumentParser]) -> str:
    """Put the options of the command line in place of the parameters that a message names.

    ``resume=True`` is ``--resume``, and ``max_tokens must be 0 or more`` is ``--max-tokens must be 0 or more``. Where
    several parsers have an option for a parameter, the first one's is taken. A parameter of one word, like ``seed``, is
    replaced only where its place in the sentence shows that it is one.
    """
    actions: dict[str, argparse.Action] = {}
    for command in parsers:
        for action in command._actions:
            if action.option_strings:
                actions.setdefault(action.dest, action)
    known = "|".join(sorted(actions, key=len, reverse=True))
    longer = "|".join(sorted((name for name in actions if "_" in name), key=len, reverse=True))

    def option(match: re.Match[str]) -> str:
        action = actions[match["name"]]
        value = match.groupdict().get("value")
        flag = action.option_strings[-1]
        return flag if value is None or action.nargs == 0 else f"{flag} {value}"

    value = r"(?P<value>\"[^\"]*\"|'[^']*'|[\w.…-]+)"
    for pattern in (
        rf"(?<![\w.-])(?P<name>{known})={value}",
        rf"^(?P<name>{known})(?= (must|cannot|needs|names|has|ends|does not) )",
        rf"(?<=combine with )(?P<name>{known})(?=:)",
        rf"(?<![\w.'/-])(?P<name>{longer})(?![\w'(=./])",
    ):
        message = re.sub(pattern, option, message)
    return message


def _add_generating(command: argparse.ArgumentParser) -> None:
    """The options of ``generate``, under its names; what is not given is left to it."""
    command.add_argument("--max-tokens", type=int, help="the longest continuation (default: 300)")
    command.add_argument("--min-tokens", type=int, help="the shortest continuation")
    command.add_argument(
        "--temperature",
        type=_schedule,
        metavar="T[,T…]",
        help="below 1 bolder, above 1 wilder, 0 greedy; several: in turn",
    )
    command.add_argument("--top-k", type=int, help="draw among the K likeliest tokens")
    command.add_argument("--top-p", type=float, help="draw among the likeliest tokens with this probability")
    command.add_argument("--min-p", type=float, help="draw among tokens this likely, measured by the likeliest")
    command.add_argument("--typical-p", type=float, help="draw among the most typical tokens with this probability")
    command.add_argument("--repetition-penalty", type=float, help="above 1: avoid what was said")
    command.add_argument("--frequency-penalty", type=float, help="above 0: avoid what was said often")
    command.add_argument(
        "--bias", dest="logit_bias", action="append", type=_bias, metavar="TOKEN=B", help="more likely, or less"
    )
    command.add_argument("--ban", dest="banned_tokens", action="append", metavar="TOKEN", help="never draw this token")
    command.add_argument(
        "--force", dest="forced_tokens", action="append", type=_forced, metavar="PLACE=TOKEN", help="0=a: draw a first"
    )
    command.add_argument("--stop", action="append", help="end before this string; can be given again")
    command.add_argument("--regex", metavar="REGEX", help="write only what matches")
    command.add_argument("--choice", dest="choices", action="append", help="write this, or another --choice")
    command.add_argument(
        "--max-copied-chars", type=int, metavar="N", help="copy at most N characters in a row from the training text"
    )
    command.add_argument(
        "--check-novelty", action="store_true", default=None, help="tell what is copied from the training text"
    )
    command.add_argument("--num-beams", type=int, metavar="N", help="search for the likeliest text with N candidates")
    command.add_argument("--length-penalty", type=float, help="above 1: longer texts, with --num-beams")
    command.add_argument("--label", help="write for this label, with a model that was fitted with labels")
    command.add_argument("--seed", type=int, help="the same seed gives the same text")


def _generating(options: argparse.Namespace) -> dict[str, Any]:
    from revgen.generation.settings import GenerationOptions

    given: dict[str, Any] = {name: getattr(options, name, None) for name in GenerationOptions.__annotations__}
    paired = {name: dict(given[name]) for name in ("logit_bias", "forced_tokens") if given[name] is not None}
    return {name: value for name, value in (given | paired).items() if value is not None}


def _schedule(text: str) -> float | list[float]:
    try:
        several = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
    return several if len(several) > 1 else several[0]


def _bias(text: str) -> tuple[str, float]:
    token, _, bias = text.rpartition("=")
    try:
        return token, float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not TOKEN=NUMBER: {text!r}") from None


def _forced(text: str) -> tuple[int, str]:
    place, _, token = text.partition("=")
    try:
        return int(place), token
    except ValueError:
        raise argparse.ArgumentTypeError(f"not PLACE=TOKEN: {text!r}") from None


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--field", help="the column or JSON field with the text (default: text)")
    command.add_argument(
        "--documents",
        choices=["file", "line", "blank"],
        help="what is one document in a text file: all of it (default), each line, or what blank lines separate",
    )
    command.add_argument("--errors", choices=["raise", "skip"], help="what to do with bad lines (default: raise)")
    command.add_argument("--encoding", help="of the files (default: UTF-8, or what the file tells)")
    command.add_argument(
        "--delimiter", help="between the fields of .csv and .tsv (default: by the name and first line)"
    )
    command.add_argument("--quoting", choices=["minimal", "none"], help="whether quotes enclose the fields of a table")


def _texts(options: argparse.Namespace) -> list[Path]:
    return [Path(name) for name in options.texts]  # as strings, names of files that are not there would be texts


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    from revgen.options import ReadOptions

    return {name: given for name in ReadOptions.__annotations__ if (given := getattr(options, name)) is not None}


def _list(options: argparse.Namespace) -> None:
    from revgen.zoo import models

    table = models(options.pattern, pretrained=options.pretrained)
    print(to_json(table.to_dicts(), indent=2) if options.json else table)


def _info(options: argparse.Namespace) -> None:
    from revgen.card import make_card
    from revgen.zoo import load

    model = load(options.model, revision=options.revision)
    if options.json:
        print(to_json(model.info(), indent=2))
    else:
        print(make_card(model, load_as=options.model), end="")


def _generate(options: argparse.Namespace) -> None:
    from revgen.novelty import CheckedText
    from revgen.zoo import load

    model = load(options.model, device=options.device, revision=options.revision)
    settings: Any = _generating(options)
    if options.resume and not options.out:
        raise OptionError("--resume is for --out: it goes on with a file")
    if options.out:
        count = model.write_samples(
            options.out,
            options.prompt,
            n=options.n,
            batch_size=options.batch_size,
            resume=options.resume,
            source=options.model,
            **settings,
        )
        print(f"{options.out}: {count} texts", file=sys.stderr)
        return
    if options.json or options.n != 1 or options.check_novelty:
        texts = model.generate(options.prompt, n=options.n, **settings)
        copied = [text.copied for text in texts if isinstance(text, CheckedText)]
        if options.json:
            for i, text in enumerate(texts):
                row = {"model": model.name, "prompt": options.prompt, "text": text}
                print(to_json(row | ({"copied": copied[i].to_dict()} if copied else {})))
            return
        print(SEPARATOR.join(f"{text}\n" for text in texts), end="")
        for found in copied:
            print(found, file=sys.stderr)
        return
    pieces = model.stream(options.prompt, **settings)  # checks the options before anything is printed
    print(options.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _fit(options: argparse.Namespace) -> None:
    from revgen.hub import is_repository
    from revgen.zoo import create, list_models, load

    named = options.model in list_models() or not (expand_user(options.model).is_dir() or is_repository(options.model))
    if named and not options.pretrained:
        model = create(options.model, **dict(map(_setting, options.set)))
        if options.model in list_models(pretrained=True):
            print(f"a new {options.model}: --pretrained goes on with the weights of that name", file=sys.stderr)
    elif options.set:
        raise OptionError(f"--set is for a new model; {options.model} has its configuration")
    else:
        model = load(options.model)
    numbers = [
        "epochs",
        "max_seconds",
        "batch_size",
        "gradient_accumulation_steps",
        "sequence_length",
        "learning_rate",
        "patience",
        "seed",
    ]
    given = {n: value for n in ["labels", "preset", *numbers] if (value := getattr(options, n)) is not None}
    given |= {
        name: value
        for name in ("checkpoint", "resume", "extend_vocabulary", "index_texts")
        if (value := getattr(options, name))
    }
    if strange := [name for name in given if name not in inspect.signature(model.fit).parameters]:
        raise OptionError(f"{model.name} is not trained with --{strange[0].replace('_', '-')}")
    valid = _number(options.valid) if options.valid else None
    _make_directory(options.out)
    history = model.to(options.device).fit(_texts(options), valid, **given, **_reading(options))
    directory = model.save(options.out)
    if not is_first_process():
        return
    if options.json:
        print(to_json({"directory": str(directory), "notes": history.notes, "epochs": history.to_dicts()}, indent=2))
    else:
        print(history)
        print(f'saved: revgen generate {directory} --prompt "the "')


def _evaluate(options: argparse.Namespace) -> None:
    from revgen.zoo import load

    evaluation = load(options.model, device=options.device, revision=options.revision).evaluate(
        _texts(options), labels=options.labels, **_reading(options)
    )
    print(to_json(evaluation.to_dict(), indent=2) if options.json else evaluation)


def _synthesize(options: argparse.Namespace) -> None:
    from revgen.generation.together import synthesize
    from revgen.zoo import load

    settings: Any = _generating(options)
    texts = synthesize([load(name) for name in options.models], options.prompt, n=options.n, **settings)
    if options.json:
        for text in texts:
            print(to_json({"models": options.models, "prompt": options.prompt, "text": text}))
    else:
        print(SEPARATOR.join(f"{text}\n" for text in texts), end="")


def _write(options: argparse.Namespace) -> None:
    from revgen.generation.editor import write
    from revgen.zoo import load

    text = write(
        load(options.model),
        expand_user(options.out),
        options.prompt,
        temperature=options.temperature,
        seed=options.seed,
    )
    print(to_json({"model": options.model, "text": text}) if options.json else text)


def _remake(options: argparse.Namespace) -> None:
    from revgen.generation.samples import receipt_of
    from revgen.zoo import load

    receipt = receipt_of(expand_user(options.file), options.line)
    text = load(options.model or receipt["model"], device=options.device).regenerate(receipt)
    print(to_json({"text": text, "receipt": receipt}) if options.json else text)


def _explain(options: argparse.Namespace) -> None:
    from revgen.files import write_atomically
    from revgen.zoo import load

    model = load(options.model)
    explanation = model.explain(options.text, top=options.top, label=options.label)
    if options.attention:
        model.attention(options.text, label=options.label).save(options.attention)
    if options.html:
        page = f'<!doctype html><meta charset="utf-8"><title>{model.name}</title>{explanation.to_html()}\n'
        try:
            write_atomically(expand_user(options.html), page.encode("utf-8", "replace"))
        except OSError as error:
            raise OptionError(f"--html {options.html}: {error.strerror or error}") from None
    if options.json:
        print(to_json(explanation.to_dicts(), indent=2))
        return
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        print(explanation.to_terminal(), end="\n\n")
    print(explanation)


def _novelty(options: argparse.Namespace) -> None:
    from revgen.corpus import read
    from revgen.tables import to_text
    from revgen.zoo import load

    model = load(options.model)
    if options.training:
        model.index_texts([Path(name) for name in options.training], **_reading(options))
    rows = []
    for i, text in enumerate(read(_texts(options), **_reading(options)), 1):
        copied = model.novelty(text, options.minimum)
        longest = max(copied.spans, key=lambda span: span.end - span.start, default=None)
        shown = "" if longest is None else " ".join(text[longest.start : longest.end].split())
        rows.append(
            {"text": i, "characters": len(text)} | copied.to_dict() | {"spans": len(copied.spans), "the longest": shown}
        )
        if options.json:
            print(to_json({"text": i, "characters": len(text)} | copied.to_dict()))
    if not options.json:
        print(to_text(rows, ("text", "characters", "share", "spans", "longest", "the longest")))


def _compare(options: argparse.Namespace) -> None:
    from revgen.comparison.compare import DEFAULT_MODELS, compare

    names = ("epochs", "max_seconds", "prompt", "max_tokens", "temperature", "max_order", "seed")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.out:
        _make_directory(options.out)
    valid = _number(options.valid)
    comparison = compare(
        _texts(options), options.models or DEFAULT_MODELS, valid=valid, **settings, **_reading(options)
    )
    print(comparison.to_json() if options.json else comparison)
    if options.out:
        directory = comparison.save(options.out)
        print(f"saved: {directory / 'report.html'}", file=sys.stderr)


def _push(options: argparse.Namespace) -> None:
    from revgen.hub import push, push_all

    settings = {name: getattr(options, name) for name in ("private", "revision", "overwrite_card")}
    settings["commit_message"] = options.message
    if options.organization:
        addresses = push_all(options.models, options.organization, **settings)
    elif len(options.models) == 2:
        addresses = [push(Path(options.models[0]), options.models[1], **settings)]
    else:
        raise OptionError("push takes a directory and a repository, or directories and --organization")
    print(to_json(addresses) if options.json else "\n".join(addresses))


def _export(options: argparse.Namespace) -> None:
    from revgen.zoo import load

    model = load(options.model, revision=options.revision)
    from revgen.interop.onnx import export

    path = export(model, options.out)
    print(to_json({"graph": str(path)}) if options.json else path)


def _pull(options: argparse.Namespace) -> None:
    from revgen.hub import pull, repository_of

    directory = pull(repository_of(options.model), revision=options.revision)
    print(to_json({"directory": str(directory)}) if options.json else directory)


def _cache(options: argparse.Namespace) -> None:
    from revgen.hub import cached, remove
    from revgen.tables import to_text

    if options.remove:
        print(f"{options.remove}: {remove(options.remove):,} bytes are free again")
        return
    rows = [model.to_dict() for model in cached()]
    if options.json:
        print(to_json(rows, indent=2))
    else:
        print(to_text([row | {"revisions": ", ".join(row["revisions"])} for row in rows], COLUMNS))


def _make_directory(name: str) -> None:
    """Before the work, not after it."""
    try:
        expand_user(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"--out {name}: {error.strerror or error}") from None


def _setting(text: str) -> tuple[str, Any]:
    """``name=value`` with the value as JSON where it is any."""
    name, sign, value = text.partition("=")
    if not sign:
        raise OptionError(f"--set takes NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
