"""``revgen generate``, ``revgen synthesize`` and ``revgen write``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from revgen.cli.console import note, print_json, print_text
from revgen.cli.options import (
    MODEL,
    add_device,
    add_generation_options,
    add_model,
    add_prompt,
    get_generation_options,
)
from revgen.cli.parser import Command
from revgen.errors import OptionError
from revgen.files import expand_user
from revgen.generation.defaults import resolve_prompt
from revgen.generation.editor import write
from revgen.generation.together import synthesize
from revgen.language_model import LanguageModel
from revgen.novelty import CheckedText
from revgen.zoo import load

SEPARATOR = "---\n"


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen generate``."""
    add_model(parser)
    add_prompt(parser)
    add_generation_options(parser)
    parser.add_argument("--out", metavar="FILE", help="write the texts as JSON lines, each with its provenance")
    parser.add_argument("--resume", action="store_true", help="with --out: continue a file that was cut off")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="with --out: texts to generate at once (default: 32)"
    )
    add_device(parser)


def run_generate(options: argparse.Namespace) -> None:
    """Generate one text in pieces as it is sampled, several texts, or a file of texts."""
    if options.resume and not options.out:
        raise OptionError("--resume continues a file: add --out")
    model = load(options.model, device=options.device, revision=options.revision)
    options.prompt = resolve_prompt(model, options.prompt)
    if options.out:
        count = model.write_samples(
            options.out,
            options.prompt,
            n=options.n,
            batch_size=options.batch_size,
            resume=options.resume,
            source=options.model,
            progress=not options.quiet,
            **get_generation_options(options),
        )
        note(f"{options.out}: {count} texts")
    elif options.json or options.n != 1 or options.check_novelty:
        _print_texts(model, options)
    else:
        pieces = model.stream(options.prompt, **get_generation_options(options))  # checks the options before any output
        print_text(options.prompt, end="")
        for piece in pieces:
            print_text(piece, end="")
        print()


def _print_texts(model: LanguageModel, options: argparse.Namespace) -> None:
    texts = model.generate(options.prompt, n=options.n, **get_generation_options(options))
    reports = [text.copied for text in texts if isinstance(text, CheckedText)]
    if options.json:
        for i, text in enumerate(texts):
            row = {"model": model.name, "prompt": options.prompt, "text": text}
            print_json(row | ({"copied": reports[i].to_dict()} if reports else {}))
        return
    _print_separated(texts)
    for report in reports:
        print(report, file=sys.stderr)


def _print_separated(texts: Iterable[str]) -> None:
    print_text(SEPARATOR.join(f"{text}\n" for text in texts), end="")


def add_synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen synthesize``."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODEL)
    add_prompt(parser)
    add_generation_options(parser)


def run_synthesize(options: argparse.Namespace) -> None:
    """Generate texts with several models in turn."""
    models = [load(name) for name in options.models]
    texts = synthesize(models, options.prompt, n=options.n, **get_generation_options(options))
    if options.json:
        for text in texts:
            print_json({"models": options.models, "prompt": options.prompt, "text": text})
    else:
        _print_separated(texts)


def add_write_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen write``."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--prompt", default="", help="the beginning of the text")
    parser.add_argument(
        "--out", metavar="FILE", default="text.txt", help="the file that Ctrl-S saves (default: text.txt)"
    )
    parser.add_argument("--temperature", type=float, help="the first temperature (default: that of the model, or 1)")
    parser.add_argument("--seed", type=int, help="the seed of the sampled words")


def run_write(options: argparse.Namespace) -> None:
    """Open the editor, and print the text when it closes."""
    model = load(options.model)
    default: float = model.generation_config.get("temperature", 1.0)
    text = write(
        model,
        expand_user(options.out),
        options.prompt,
        temperature=default if options.temperature is None else options.temperature,
        seed=options.seed,
    )
    if options.json:
        print_json({"model": options.model, "text": text})
    else:
        print_text(text)


COMMANDS = {
    "generate": Command(
        add_generate_arguments,
        run_generate,
        """\
  revgen generate lstm-char
  revgen generate lstm-char --prompt "the " --no-stop-at-sentence --max-tokens 1000
  revgen generate my-model -n 5 --temperature 0.7 --top-p 0.95 --seed 1 --json
  revgen generate my-model -n 1000 --out samples.jsonl
  revgen generate me/my-model --revision v1""",
    ),
    "synthesize": Command(
        add_synthesize_arguments,
        run_synthesize,
        """\
  revgen synthesize lstm-char my-model --prompt "the " --temperature 0.7
  revgen synthesize lstm-char my-model -n 5 --max-tokens 200 --seed 1 --json""",
    ),
    "write": Command(
        add_write_arguments,
        run_write,
        """\
  revgen write lstm-char
  revgen write my-model --prompt "Dear " --out letter.txt --temperature 0.8""",
    ),
}
