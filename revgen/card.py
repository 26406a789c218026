"""The model card: a README in Markdown, generated from the model and its metadata.

The card begins with the metadata that the Hugging Face Hub reads: library, task, tags, license, language, datasets, and
the evaluation as a ``model-index``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from revgen.display.formatting import format_field, non_empty
from revgen.display.svg_chart import draw_curves
from revgen.files import to_json
from revgen.history import History
from revgen.model import Model
from revgen.options import config_values, to_builtins
from revgen.tensors import SCALE_SUFFIX

SECTIONS = (
    ("Data", "data"),
    ("Training", "training"),
    ("Evaluation", "evaluation"),
    ("Generated text", "generated"),
)
"""The sections of a card that show a part of the metadata, and the names of these parts."""
HISTORY_FILE = "history.svg"
CURVE_TITLES = {
    "train_loss": "training loss, nats per token",
    "nats_per_char": "held-out text, nats per character",
}
"""The fields of ``EpochMetrics`` in ``metadata["history"]``, and the titles of their curves in the image."""

HUB_LICENSE = re.compile(
    r"mit|apache-2\.0|artistic-2\.0|bsd(-[23]-clause)?|bsl-1\.0|isc|mpl-2\.0|ms-pl|ncsa|ofl-1\.1|unlicense|wtfpl|zlib"
    r"|a?gpl-3\.0|gpl-2\.0|lgpl-2\.1|lgpl-3\.0|gfdl|epl-2\.0|eupl-1\.2|odbl|odc-by|pddl|unknown"
    r"|cc0-1\.0|cc-by-2\.[05]|cc-by(-sa|-nc|-nc-nd|-nc-sa)?-3\.0|cc-by(-nc)?(-sa|-nd)?-4\.0"
)
"""The Hub's names for common licenses. Any other license has the name ``other`` and a ``license_name``."""

YAML_KEYWORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none")
"""Words that YAML reads as strings only in quotes."""


def describe(model: Model) -> str:
    """Return a sentence about the architecture and the tokens of a model."""
    unit = {"char": "character", "word": "word"}.get(model.level, "token")
    return f"A language model ({model.architecture}) that writes one {unit} at a time."


def make_card(
    model: Model, *, load_as: str | None = None, samples: Sequence[str] = (), history_file: str | None = None
) -> str:
    """Return the model card as Markdown. Raises OptionError for invalid defaults of the model.

    Args:
        model: a fitted model.
        load_as: the name to pass to ``revgen.load``; by default, the name in the metadata.
        samples: generated texts to show after the samples in the metadata.
        history_file: the name of a file next to the card with an image of the training history.
    """
    model.check_generation_config()
    metadata = to_builtins(model.metadata)
    description = f"{describe(model)} It was trained with revgen."
    parts = [
        "\n".join(["---", *_to_yaml(_hub_metadata(model)), "---"]),
        f"# {model.name}",
        str(metadata.get("description", description)),
        f"{model.num_parameters:,} parameters, a vocabulary of {len(model.tokenizer):,} tokens.",
        "```python\nimport revgen\n\n"
        f"model = revgen.load({_to_literal(load_as or metadata.get('load_as') or 'path/to/this/directory')})\n"
        f"print(model.generate({_example_arguments(model)}))\n```",
    ]
    if model.generation_config:
        own = model.generation_config.items()
        defaults = [f"`{name}={_to_literal(v) if isinstance(v, str) else v}`" for name, v in own]
        parts.append(f"Unless you give others, `generate` uses {', '.join(defaults)}.")
    if package := model.package:
        parts.append(f"This model requires the package `{package}`: `pip install {package}`.")
    parts += ["## Configuration", _format_section(config_values(model.config))]
    for title, key in SECTIONS:
        if key in metadata:
            parts += [f"## {title}", _format_section(metadata[key])]
        if key == "training" and history_file:
            parts.append(f"![Loss after each epoch]({history_file})")
    saved_samples = metadata["samples"] if isinstance(metadata.get("samples"), list) else []
    if texts := [*saved_samples, *samples]:
        parts += ["## Samples", *("> " + str(text).replace("\n", "\n> ") for text in texts)]
    parts += ["## Without revgen", *_explain_files(model)]
    card = "\n\n".join(parts) + "\n"
    return card.encode("utf-8", "replace").decode("utf-8")  # replaces lone surrogates, which no file can hold


def _example_arguments(model: Model) -> str:
    """Return the arguments of ``generate`` in the example: the prompt, and a temperature if the model has no own."""
    if model.generation_config:
        prompt = model.generation_config.get("prompt")
        return _to_literal(prompt) if prompt else ""
    return '"the ", temperature=0.7'


def make_space_card(model: Model, repo_id: str) -> str:
    """Return the README of a static Space that shows the page of the model in the repository ``repo_id``."""
    metadata = _hub_metadata(model)
    licences: dict[str, Any] = {name: metadata[name] for name in ("license", "license_name") if name in metadata}
    front_matter: dict[str, Any] = {"title": model.name, "emoji": "✍️", "sdk": "static", **licences, "models": [repo_id]}
    parts = [
        "\n".join(["---", *_to_yaml(front_matter), "---"]),
        f"The model `{repo_id}` generates text in this page, on the computer or phone that shows it.",
    ]
    return "\n\n".join(parts) + "\n"


def _format_section(value: Any) -> str:
    """Return a dictionary as a Markdown table without empty rows, and any other value as text."""
    if not isinstance(value, dict):
        return str(value)
    rows = [f"| {name} | {format_field(item)} |" for name, item in non_empty(value).items()]
    return "\n".join(["| | |", "|---|---|", *rows])


# The training history


def history_metadata(history: History) -> dict[str, list[float]]:
    """Return the metrics of all epochs by name, for the metadata of a model."""
    curves = {name: [getattr(epoch, name) for epoch in history] for name in CURVE_TITLES}
    return {name: [float(f"{value:.5g}") for value in values] for name, values in curves.items() if None not in values}


def draw_history(model: Model) -> str | None:
    """Return the loss after each epoch as SVG, or None if the metadata has fewer than two epochs."""
    history = to_builtins(model.metadata).get("history")
    curves = {
        title: values
        for name, title in CURVE_TITLES.items()
        if isinstance(history, dict)
        and isinstance(values := history.get(name), list)
        and len(values) > 1
        and all(map(_is_finite_number, values))
    }
    return draw_curves(curves, "epoch") if curves else None


# Metadata for the Hub


def _hub_metadata(model: Model) -> dict[str, Any]:
    metadata = to_builtins(model.metadata)
    hub_metadata: dict[str, Any] = {
        "library_name": "revgen",
        "pipeline_tag": "text-generation",
        "tags": [model.architecture, model.level],
    }
    if isinstance(license_name := metadata.get("licence"), str):
        name = license_name.lower().replace(" ", "-")
        is_known = HUB_LICENSE.fullmatch(name)
        hub_metadata |= {"license": name} if is_known else {"license": "other", "license_name": name}
    for key, pattern in (("language", r"[a-z]{2,3}"), ("datasets", r"[\w.-]+(/[\w.-]+)?")):
        if values := [value for value in _strings(metadata.get(key)) if re.fullmatch(pattern, value, re.ASCII)]:
            hub_metadata[key] = values if len(values) > 1 or key == "datasets" else values[0]
    if results := _evaluation_results(metadata.get("evaluation"), hub_metadata.get("datasets", ["text"])[0]):
        hub_metadata["model-index"] = [{"name": model.name, "results": results}]
    return hub_metadata


def _evaluation_results(evaluation: Any, dataset: str) -> list[dict[str, Any]]:
    """Return the results of a ``model-index``. The key ``"nats_per_char on shakespeare"`` names another text."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for key, value in evaluation.items() if isinstance(evaluation, dict) else ():
        if _is_finite_number(value):
            name, _, text = key.partition(" on ")
            metric = {"type": name, "value": round(value, 5), "name": name.replace("_", " ")}
            metrics.setdefault(text, []).append(metric)
    return [
        {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {"type": dataset, "name": text or "held-out text"} | ({"split": text} if text else {}),
            "metrics": text_metrics,
        }
        for text, text_metrics in metrics.items()
    ]


def _strings(value: Any) -> list[str]:
    """Return the strings in a list, or a single string as a list."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _to_yaml(content: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of a mapping as YAML."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _to_yaml(value, indent + "  ")
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f"{indent}{key}:"
            for item in value:
                first, *rest = _to_yaml(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
        else:
            scalar = f"[{', '.join(map(_yaml_scalar, value))}]" if isinstance(value, list) else _yaml_scalar(value)
            yield f"{indent}{key}: {scalar}"


def _yaml_scalar(value: Any) -> str:
    needs_no_quotes = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w/.-]*", value, re.ASCII)
    return str(value) if needs_no_quotes and value.lower() not in YAML_KEYWORDS else _to_literal(value)


def _to_literal(value: Any) -> str:
    """Return a value as JSON, which is also valid YAML and Python."""
    if isinstance(value, str):
        value = "".join(c if c.isprintable() else " " for c in value)
    return to_json(value, ensure_ascii=False, default=str)


# Files, arrays and equations


def _explain_files(model: Model) -> Iterator[str]:
    """Yield paragraphs that explain how to read the files and compute with the weights without revgen."""
    yield "The files can be read with [safetensors](https://huggingface.co/docs/safetensors) alone:"
    if model.tokenizer.file.endswith(".json"):
        yield (
            "```python\nimport json\nfrom pathlib import Path\n\nfrom safetensors.numpy import load_file\n\n"
            'weights = load_file("model.safetensors")  # arrays by name\n'
            f'tokens = json.loads(Path("{model.tokenizer.file}").read_text("utf-8"))["tokens"]  # by id\n```'
        )
    else:
        yield (
            "```python\nfrom safetensors.numpy import load_file\n\n"
            'weights = load_file("model.safetensors")  # arrays by name\n```'
        )
        yield f"`{model.tokenizer.file}` is a SentencePiece model."
    yield f"If there is an array `name{SCALE_SUFFIX}`, multiply each row of the matrix `name` by its scale."
    yield "Token ids 0, 1 and 2 mean the start of a document, its end, and unknown text."
    yield "\n".join(["| array | shape |", "|---|---|", *_array_rows(model)])
    yield "Vectors are rows, and the initial state is zero."
    if any(name.endswith(".scale") for name in model.weights):
        yield (
            "`norm(x)` is `(x - mean) / sqrt(variance + 1e-5) * scale + shift`, over the values of a vector. The "
            "`scale` and `shift` before layer i are in `norms.i`."
        )
    for cls in model.explained_by:
        if cls.__doc__:
            yield f"```text\n{inspect.cleandoc(cls.__doc__).replace('```', '')}\n```"


def _array_rows(model: Model) -> Iterator[str]:
    """Yield one table row for all arrays of the same shape whose names differ only in one number."""
    numbers: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, array in sorted(model.weights.items()):
        number = re.search(r"\d+", name)
        pattern = name.replace(number[0], "\0", 1) if number else name
        numbers.setdefault((pattern, array.shape), []).append(number[0] if number else "")
    for (pattern, shape), layers in numbers.items():
        name = pattern.replace("\0", layers[0] if len(layers) == 1 else f"{{{','.join(layers)}}}")
        yield f"| `{name}` | {' × '.join(map(str, shape))} |"
