"""``revgen fit`` and ``revgen compare``."""

from __future__ import annotations

import argparse
import inspect
import shlex
from typing import Any

from revgen.cli.console import note, print_json, print_table
from revgen.cli.options import (
    LABELS,
    VALID,
    add_device,
    add_option,
    add_read_options,
    as_paths,
    claim_directory,
    get_read_options,
    make_directory,
    parse_valid,
    select_options,
)
from revgen.cli.parser import Command
from revgen.errors import OptionError
from revgen.files import expand_user, is_rank_zero
from revgen.hub_client import is_repository
from revgen.language_model import LanguageModel
from revgen.options import parse_assignment
from revgen.pending import CONFIG
from revgen.training.options import FitOptions
from revgen.zoo import ModelOptions, create, list_models, load

FIT_HELP = {
    "labels": LABELS,
    "epochs": "passes over the text (default: chosen by the preset and the corpus)",
    "preset": 'how much text to read and how wide a new model is: "quick", "balanced" (default) or "best"',
    "max_seconds": "a time budget",
    "token_budget": "the number of tokens to read in total",
    "batch_size": "rows of text to read in parallel (default: chosen by the corpus)",
    "gradient_accumulation_steps": "compute each batch in this many parts, to save memory",
    "sequence_length": "the number of tokens that gradients reach back (default: chosen by the architecture)",
    "optimizer": 'the optimizer of the matrices: "adamw" or "muon" (default: chosen by the architecture)',
    "learning_rate": "the peak of the schedule (default: chosen by the architecture)",
    "weight_decay": "the decoupled weight decay of the matrices (default: 0.2)",
    "weight_averaging": "the fraction of the run, at its end, over which the weights are averaged",
    "patience": "stop after this many epochs without improvement (default: 5)",
    "seed": "the same seed gives the same weights (default: 0)",
    "checkpoint": "the directory for the state of training, written after each epoch and each minute",
    "resume": "continue from the latest state in --checkpoint, if there is one",
    "extend_vocabulary": "add tokens for characters and words that a fitted model does not know",
    "index_texts": "save the text with the model, to detect what is copied from it",
    "sample_prompt": "the prompt of the sample after each epoch",
}


CONFIG_HELP = (
    "a TOML file with any of these arguments, such as epochs = 5 or set = { hidden_size = 128 }; "
    "the command line has precedence"
)


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen fit``."""
    parser.add_argument("model", help="the name of a new model, or the directory or repository of a model to fine-tune")
    parser.add_argument("texts", nargs="+", help="files, directories, globs, or - for standard input")
    parser.add_argument("--pretrained", action="store_true", help="fine-tune the pretrained weights of that name")
    parser.add_argument("--out", required=True, help="the directory to save the model in")
    parser.add_argument("--overwrite", action="store_true", help="replace another model in --out")
    parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--valid", help=VALID)
    for name, text in FIT_HELP.items():
        add_option(parser, name, FitOptions.__annotations__[name].__forward_arg__, text)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an option of a new model; can be repeated"
    )
    add_device(parser)
    add_read_options(parser)


def explain_model_option(name: str) -> str | None:
    """Return how ``revgen fit`` takes an option of a new model; None for other names."""
    return f"give it as --set {name}=…" if name in ModelOptions.__annotations__ else None


def run_fit(options: argparse.Namespace) -> None:
    """Train a model and save it."""
    model = _model_to_fit(options)
    fit_options = select_options(options, FIT_HELP)
    accepted = inspect.signature(model.fit).parameters
    if unknown := [name for name in fit_options if name not in accepted]:
        raise OptionError(f"{model.name} is not trained with --{unknown[0].replace('_', '-')}")
    valid = parse_valid(options.valid) if options.valid else None
    model.to(options.device)
    _check_out(options)
    fit_options["progress"] = not options.quiet
    with claim_directory(options.out):
        history = model.fit(as_paths(options.texts), valid, **fit_options, **get_read_options(options))
        directory = model.save(options.out, overwrite=True)
    if not is_rank_zero():
        return
    if options.json:
        print_json({"directory": str(directory), "notes": history.notes, "epochs": history.to_dicts()}, indent=2)
    elif not options.quiet:
        print_table(*history.to_rows())
        name = shlex.quote(str(directory))
        print("\n".join([*history.notes, f"saved: revgen generate {name}, or revgen export {name} page.html"]))


def _check_out(options: argparse.Namespace) -> None:
    """Raise OptionError if ``--out`` has a model that training would replace, and that is not the one to fine-tune."""
    out = expand_user(options.out)
    if options.overwrite or options.resume or out.resolve() == expand_user(options.model).resolve():
        return
    if (out / CONFIG).is_file():
        raise OptionError(f"--out {options.out} has a model already: add --overwrite to replace it")


def _model_to_fit(options: argparse.Namespace) -> LanguageModel:
    """Return a new model, or a saved one."""
    name = options.model
    is_name = name in list_models() or not (expand_user(name).is_dir() or is_repository(name))
    if is_name and not options.pretrained:
        model = create(name, **dict(parse_assignment(option, "--set") for option in options.set))
        if list_models(name, pretrained=True):
            note(f"training a new {name}; add --pretrained to fine-tune its pretrained weights")
        return model
    if options.set:
        raise OptionError(f"--set is for a new model; {name} has its configuration")
    return load(name)


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``revgen compare``."""
    parser.add_argument("texts", nargs="+", metavar="CORPUS", help="files or directories, as for fit")
    parser.add_argument("--models", nargs="+", metavar="NAME[:OPTION=VALUE,…]", help="new models, with their options")
    parser.add_argument("--out", help="the directory for report.html, report.md and report.json")
    parser.add_argument("--valid", default="0.1", help=f"{VALID} (default: 0.1)")
    parser.add_argument("--epochs", type=int, help="the budget of each model: passes over the text (default: 10)")
    parser.add_argument("--max-seconds", type=float, help="the budget of each model: time")
    parser.add_argument("--prompt", default="the ", help='the prompt of the samples (default: "the ")')
    parser.add_argument("--max-tokens", type=int, default=300, help="the length of the samples (default: 300)")
    parser.add_argument("--temperature", type=float, default=1.0, help="the temperature of the samples (default: 1)")
    parser.add_argument(
        "--max-order", type=int, default=10, help="the highest n-gram order in the loss curve, or 0 (default: 10)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of the split, of training and of the samples (default: 0)"
    )
    parser.add_argument(
        "--adaptive", action="store_true", help="also measure each model when it learns from each held-out document"
    )
    add_read_options(parser)


def run_compare(options: argparse.Namespace) -> None:
    """Train models, print the comparison, and save the report."""
    from revgen.comparison.compare import DEFAULT_MODELS, compare  # imports PyTorch

    names = ("epochs", "max_seconds", "prompt", "max_tokens", "temperature", "max_order", "adaptive", "seed")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.out:
        make_directory(options.out)
    comparison = compare(
        as_paths(options.texts),
        options.models or DEFAULT_MODELS,
        valid=parse_valid(options.valid),
        progress=not options.quiet,
        **settings,
        **get_read_options(options),
    )
    if options.json:
        print(comparison.to_json())
    else:
        print_table(comparison.to_dicts(), comparison.columns)
    if options.out:
        directory = comparison.save(options.out)
        note(f"saved: {directory / 'report.html'}")


COMMANDS = {
    "fit": Command(
        add_fit_arguments,
        run_fit,
        """\
  revgen fit lstm-char reviews.txt --valid 0.1 --epochs 5 --out my-model
  revgen fit gru-word posts.jsonl --field body --max-seconds 300 --set hidden_size=128 --out my-model
  revgen fit my-model more.txt --epochs 2 --out my-finer-model
  revgen fit --config my-model.toml --epochs 10
  revgen fit lstm-char reviews.txt --pretrained --extend-vocabulary --out my-finer-model""",
        explain_model_option,
    ),
    "compare": Command(
        add_compare_arguments,
        run_compare,
        """\
  revgen compare reviews.txt --epochs 3 --out report
  revgen compare posts.jsonl --field body --models kneser-ney-char:order=8 gru-char lstm-char:hidden_size=128 \\
    --max-seconds 60 --valid held_out.txt --prompt "the " --out report""",
    ),
}
